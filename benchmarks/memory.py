"""Peak memory of a training step on trees, beside flattened runs.

python benchmarks/memory.py            # writes docs/results/memory.md
python benchmarks/memory.py --quick    # two shapes; only prints

Each step runs in a process of its own; what counts is how far it grows beyond model, optimizer and trees.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import side_by_side as bench
from training import ONE, OURS, PADDED, SORTED, TRL, sides
from trees import flat_tokens, make_tree

from firstfault.training.pack import unique_tokens

RATIOS = (1, 2, 3, 4, 6)
TREES, DEPTH = 4, 4
VOCABULARIES = (384, 32_000)


def grown(shapes: list[dict], side: str, vocab: int) -> float:
    """MB by which the first step on trees of these shapes makes this process grow."""
    batch = [make_tree(**shape) for shape in shapes]
    step = sides(batch, [side], vocab=vocab)[side]
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(kind: str) -> float:
    """MB of this process in memory, now or at most. (`getrusage` would count what its parent had.)"""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{kind}:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer shapes; only print")
    quick = parser.parse_args().quick
    lines = [
        f"{TREES} trees of 16 runs with {DEPTH} steps. Batches of at most 4,096 tokens, padding included. "
        f"*{ONE}* and *{TRL}* take the runs of one tree at a time.",
        "",
    ]
    # a process for each: its high-water mark can't be set back
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for vocab in VOCABULARIES:
            rows = []
            for ratio in RATIOS[::3] if quick else RATIOS:
                shapes = [{"seed": seed, "depth": DEPTH, "ratio": ratio} for seed in range(TREES)]
                batch = [make_tree(**shape) for shape in shapes]
                unique, flat = (sum(map(count, batch)) for count in (unique_tokens, flat_tokens))
                megabytes = {
                    side: pool.submit(grown, shapes, side, vocab).result() for side in (OURS, ONE, SORTED, PADDED, TRL)
                }
                rows.append([f"{flat / unique:.2f}", f"{unique:,}", *(f"{mb:,.0f}" for mb in megabytes.values()),
                             f"{megabytes[SORTED] / megabytes[OURS]:.2f}"])  # fmt: skip
            lines += [f"A vocabulary of {vocab:,} (MB):", ""]
            lines += [
                *bench.table(["token ratio", "unique tokens", OURS, ONE, SORTED, PADDED, TRL, "sorted / ours"], rows),
                "",
            ]
    bench.publish("memory", "Peak memory of a training step", lines, quick, "trl")


if __name__ == "__main__":
    main()
