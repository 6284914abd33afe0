"""Draws docs/images/credit.svg: the credit that six methods give on one tree.

python benchmarks/credit_picture.py    # needs matplotlib
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from firstfault.methods import ELPO, GRPO, VPPO, GiGPO, Method, TreeGRPO, VinePPO
from firstfault.tree import Call, Node, Probe, Task, Tree, Verdict

METHODS: list[Method] = [
    GRPO(aggregation="token"), ELPO(aggregation="token"), TreeGRPO(), GiGPO(), VPPO(cut=0), VinePPO(),
]  # fmt: skip
WORDS = {
    "GRPO": "all steps of a run alike",
    "ELPO": "against siblings and the group",
    "TreeGRPO": "within the chain, and among all",
    "GiGPO": "its run, and steps from the same state",
    "VPPO": "the good prefix of the failure is paid",
    "VinePPO": "one run, by what its steps changed",
}


def grown() -> Tree:
    """A failed run of three steps and an answer; a search that found its third step at fault; two other runs."""
    tree = Tree(Task("", ""), prompt=[1])

    def run(start: Node, rollout: int, seen: str, won: bool) -> Node:
        """A step for each word that is then read, and an answer."""
        for word in seen.split():
            start = tree.add(start, rollout=rollout, action_tokens=[2] * 4, calls=[Call("look", {}, output=word)])
        return tree.add(start, rollout=rollout, action_tokens=[2] * 4, end="answer", success=won, reward=float(won))

    failed = run(tree.root, 0, "a b c", won=False)
    run(tree.root, 1, "a d", won=False)
    run(tree.root, 2, "e d", won=True)
    run(failed.steps[1], 3, "f", won=True)  # after two steps of the failed run one of two completions succeeds
    run(failed.steps[1], 4, "c", won=False)
    run(failed.steps[2], 5, "", won=False)  # after three, none
    probes = [Probe(2, 2, 1), Probe(3, 1, 0)]
    tree.verdicts = [Verdict(failed.index, steps=3, step=3, finished=True, probes=probes)]
    failed.value = 0.0  # the run that VinePPO trains on; to it, all others are completions for values
    return tree


def places(tree: Tree) -> dict[Node, tuple[float, float]]:
    """Depth to the right, leaves below each other, inner nodes level with their first child."""
    rows: dict[Node, float] = {}

    def place(node: Node) -> None:
        for child in node.children:
            place(child)
        rows[node] = rows[node.children[0]] if node.children else float(sum(n.is_leaf for n in rows))

    place(tree.root)
    return {node: (node.depth, -row) for node, row in rows.items()}


def draw(axes: Axes, method: Method) -> None:
    tree = grown()
    method.credit([tree])
    at = places(tree)
    largest = max(abs(node.advantage or 0.0) for node in tree.steps)
    norm = TwoSlopeNorm(0.0, -largest, largest)
    for node in tree.steps:
        (x0, y0), (x, y) = at[node.parent], at[node]
        axes.plot([x0, x0 + 0.25, x], [y0, y, y], color="#8c959f", lw=1, zorder=1)
    for node in tree.steps:
        credit = node.advantage
        color = "white" if credit is None else plt.get_cmap("PuOr_r")(norm(-credit))
        axes.scatter(*at[node], s=520, marker="o", color=color, edgecolor="#57606a", zorder=2)
        text = "–" if credit is None else f"{credit:+.1f}".replace("-", "−")
        dark = credit is not None and abs(credit) > 0.6 * largest
        axes.annotate(text, at[node], ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
        if node.is_leaf:
            x, y = at[node]
            axes.annotate("✓" if node.success else "✗", (x + 0.42, y), ha="center", va="center", fontsize=10)
    axes.scatter(*at[tree.root], s=40, color="#57606a", zorder=2)
    name = type(method).__name__
    axes.set_title(f"{'Tree-GRPO' if name == 'TreeGRPO' else name}: {WORDS[name]}", fontsize=9)
    axes.set_xlim(-0.3, 4.9)
    axes.set_ylim(-5.6, 0.6)
    axes.axis("off")


def main() -> None:
    plt.rcParams |= {"svg.hashsalt": "firstfault", "svg.fonttype": "path"}
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), facecolor="white")
    for panel, method in zip(axes.flat, METHODS, strict=True):
        draw(panel, method)
    figure.tight_layout()
    path = Path(__file__).parent.parent / "docs" / "images" / "credit.svg"
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
