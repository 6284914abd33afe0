"""What a report needs of a run folder: settings, metrics, evaluations, and the few trees that say most."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.run_folder import RunFolder
from firstfault.tree import Tree, load_trees


@dataclass(frozen=True)
class Run:
    """What a run left behind. `metrics` are rows in order of iteration, `trees` pairs of iteration and tree."""

    path: Path
    config_text: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    trees: list[tuple[int, Tree]]

    @property
    def iterations(self) -> list[int]:
        return [row["iteration"] for row in self.metrics]

    @property
    def names(self) -> list[str]:
        """All metrics that some iteration has, in order of appearance."""
        return list(dict.fromkeys(name for row in self.metrics for name in row if name != "iteration"))

    def series(self, name: str) -> list[float | None]:
        return [row.get(name) for row in self.metrics]

    def total(self, name: str) -> float | None:
        """The sum over all iterations; None if no iteration has the metric."""
        values = [v for v in self.series(name) if v is not None and math.isfinite(v)]
        return sum(values) if values else None


def read_run(path: Path, trees_each: int = 2) -> Run:
    """Read a run folder, with the `trees_each` most telling trees of the first and of the last saved iteration."""
    run = read_records(path)
    if not run.metrics:
        raise UserError(
            f"{path} holds no metrics.jsonl with at least one iteration: a report needs the folder of a training run"
            " that has finished its first iteration, so give that folder or train first."
        )
    return replace(run, trees=list(_chosen_trees(path, trees_each)))


def read_records(path: Path) -> Run:
    """Read what a run folder has besides its trees; any of it may be missing."""
    folder = RunFolder(path)
    return Run(
        path=path,
        config_text=folder.read_config_text(),
        config=folder.read_config(),
        metrics=folder.read_metrics(),
        evaluations=folder.read_evaluation(),
        trees=[],
    )


def _chosen_trees(path: Path, each: int) -> Iterator[tuple[int, Tree]]:
    files = RunFolder(path).tree_files()
    for iteration in sorted({min(files), max(files)}) if files else []:
        for tree in heapq.nlargest(each, load_trees(files[iteration]), key=telling):
            yield iteration, tree


def telling(tree: Tree) -> tuple[bool, bool, bool, float]:
    """How much there is to see in a tree: a first fault beside a success, then mixed outcomes, then an even mix."""
    won = [leaf.success is True for leaf in tree.leaves]
    mixed = any(won) and not all(won)
    critical = any(node.critical for node in tree.nodes)
    return (critical and mixed, mixed, critical, -abs(sum(won) / max(len(won), 1) - 0.5))
