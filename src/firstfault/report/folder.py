"""Reading a run folder: settings, metrics, evaluations, and the few trees that say most."""

from __future__ import annotations

import heapq
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from firstfault.errors import UserError
from firstfault.tree import UNREADABLE, Tree, load_trees

T = TypeVar("T")


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
        """All metrics that are numbers in some iteration, in order of appearance."""
        return list(
            dict.fromkeys(k for row in self.metrics for k, v in row.items() if _is_number(v) and k != "iteration")
        )

    def series(self, name: str) -> list[float | None]:
        return [row[name] if _is_number(row.get(name)) else None for row in self.metrics]

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
    return Run(
        path=path,
        config_text=_parse(path / "config.toml", str) or "",
        config=_parse(path / "config.toml", tomllib.loads) or {},
        metrics=_parse(path / "metrics.jsonl", _metrics) or [],
        evaluations=_parse(path / "evaluation.json", _evaluations) or [],
        trees=[],
    )


def tree_files(path: Path) -> dict[int, Path]:
    """The files of trees of a run folder, by iteration."""
    found = ((re.fullmatch(r"step-(\d+)\.jsonl\.gz", file.name), file) for file in (path / "trees").glob("step-*"))
    return dict(sorted((int(match[1]), file) for match, file in found if match))


def _parse(file: Path, parse: Callable[[str], T]) -> T | None:
    if not file.exists():
        return None
    try:
        return parse(file.read_text(encoding="utf-8"))
    except ValueError as error:  # what json, tomllib and the decoder raise
        raise UserError(f"{file} can't be read ({error}): restore it as the run wrote it, or remove it.") from error


def _metrics(text: str) -> list[dict[str, Any]]:
    """One row an iteration. A resumed run writes some iterations again: the last row of each counts."""
    lines = text.split("\n")
    rows: dict[int, dict[str, Any]] = {}
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if i == len(lines) - 1:  # a run that is being written, or was killed while it wrote
                break
            raise
        if not isinstance(row, dict) or not isinstance(row.get("iteration"), int):
            raise ValueError(f"line {i + 1} is no object with a whole number as iteration")
        rows[row["iteration"]] = row
    return [rows[i] for i in sorted(rows)]


def _evaluations(text: str) -> list[dict[str, Any]]:
    records = json.loads(text)
    if not isinstance(records, list) or not all(
        isinstance(r, dict) and _is_number(r.get("iteration")) for r in records
    ):
        raise ValueError("it is no list of objects with an iteration")
    return sorted(records, key=lambda record: record["iteration"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _chosen_trees(path: Path, each: int) -> Iterator[tuple[int, Tree]]:
    files = tree_files(path)
    for iteration in sorted({min(files), max(files)}) if files else []:
        try:
            best = heapq.nlargest(each, load_trees(files[iteration]), key=telling)
        except UNREADABLE as error:
            raise UserError(
                f"{files[iteration]} can't be read ({error}): restore it as the run wrote it, or remove it."
            ) from error
        yield from ((iteration, tree) for tree in best)


def telling(tree: Tree) -> tuple[bool, bool, bool, float]:
    """How much there is to see in a tree: a first fault beside a success, then mixed outcomes, then an even mix."""
    won = [leaf.success is True for leaf in tree.leaves]
    mixed = any(won) and not all(won)
    critical = any(node.critical for node in tree.nodes)
    return (critical and mixed, mixed, critical, -abs(sum(won) / max(len(won), 1) - 0.5))
