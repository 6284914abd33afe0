"""How time and memory of a training step grow with the size of a tree.

python benchmarks/growth.py            # writes docs/results/growth.md
python benchmarks/growth.py --quick    # small trees; only prints
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor

import side_by_side as bench
import torch
from memory import grown
from training import OURS, sides
from trees import make_tree

from firstfault.training.pack import TreePlan, unique_tokens
from firstfault.tree import Tree

VOCAB = 32_000
SHAPES = {  # leaves and steps of trees that double in size
    "wider": [(leaves, 8, 3) for leaves in (8, 16, 32, 64, 128)],
    "deeper": [(16, depth, 3) for depth in (4, 8, 16, 32, 64)],
    "one run": [(1, depth, 1) for depth in (32, 64, 128, 256, 512)],
}


def seconds(tree: Tree, rounds: int) -> tuple[float, float]:
    """Of a step, and of one whose attention does nothing."""
    step = sides([tree], [OURS], vocab=VOCAB)[OURS]
    attend = TreePlan.attend

    def without() -> None:
        TreePlan.attend = lambda plan, layer, query, key, value, scale: query
        step()
        TreePlan.attend = attend

    times = bench.take_turns({"whole": step, "without": without}, rounds)
    return statistics.median(times["whole"]), statistics.median(times["without"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small trees; only print")
    quick = parser.parse_args().quick
    torch.set_num_threads(2)
    lines = [
        f"One tree, a vocabulary of {VOCAB:,}, 2 threads. *Wider*: more runs of 8 steps. *Deeper*: 16 runs of more "
        "steps. *One run*: a chain, where nothing is shared. Attention is what a step takes longer than one whose "
        "attention does nothing.",
        "",
    ]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for name, shapes in SHAPES.items():
            rows = []
            for leaves, depth, ratio in shapes[:3] if quick else shapes:
                shape = {"seed": 0, "depth": depth, "ratio": ratio, "leaves": leaves}
                tree = make_tree(**shape)
                tokens, longest = unique_tokens(tree), max(len(leaf.tokens) for leaf in tree.leaves)
                whole, rest = seconds(tree, 3 if quick else 15 if tokens < 5000 else 5)
                memory = pool.submit(grown, [shape], OURS, VOCAB).result()
                rows.append([f"{tokens:,}", f"{longest:,}", f"{whole:.2f}", f"{1e6 * rest / tokens:.0f}",
                             f"{1e6 * (whole - rest) / tokens:.0f}", f"{memory:,.0f}"])  # fmt: skip
                print(name, rows[-1], flush=True)
            head = ["unique tokens", "longest run", "seconds", "µs a token", "attention, µs a token", "memory, MB"]
            lines += [f"## {name.capitalize()}", "", *bench.table(head, rows), ""]
    bench.publish("growth", "How a training step grows with its tree", lines, quick)


if __name__ == "__main__":
    main()
