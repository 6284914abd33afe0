"""The figures of an evaluation as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from firstfault.evaluation.summary import Estimate, Group, Summary

WORDS = {
    "success": "success (Pass@1)",
    "greedy": "success, greedy",
    "reward": "reward",
    "steps": "steps per run",
    "calls": "tool calls per run",
    "failed_calls": "failed calls per run",
    "tokens": "tokens written per run",
    "successes_per_call": "successes per call",
    "calls_per_success": "calls per success",
}


def tables(title: str, summary: Summary, ks: Sequence[int], runs: str) -> Iterator[Table]:
    """A table of all figures, and one of the main figures by family and by difficulty, where there are such."""
    whole = Table(title=escape(title))
    whole.add_column("")
    whole.add_column("", justify="right")
    whole.add_column("95 % interval")
    for name, figure in summary.overall.figures.items():
        if name not in ("pass@1", "major@1"):  # which are the success
            whole.add_row(_words(name), _value(figure.value), _interval(figure))
    whole.caption = f"{_tasks(summary.overall)}, {runs}; intervals: bootstrap over tasks"
    yield whole
    groups = [*summary.families, *(summary.difficulties if len(summary.difficulties) > 1 else [])]
    if groups:
        yield _parts(groups, ks[-1])


def _parts(groups: Sequence[Group], k: int) -> Table:
    columns = ["success", *([f"pass@{k}", f"major@{k}"] if k > 1 else []), "calls"]
    several = len({group.family for group in groups}) > 1
    parts = Table("family" if several else "difficulty", "tasks", *map(_words, columns))
    for group in groups:
        cells = [f"{_value(f.value)}\n{_interval(f, '–')}" for f in (group.figures[name] for name in columns)]
        name = ", ".join(filter(None, (group.family if several else None, group.difficulty)))
        parts.add_row(escape(name), str(group.tasks), *cells)
    parts.caption = "--json has all figures of each"
    return parts


def _words(name: str) -> str:
    return WORDS.get(name, name.capitalize())


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _interval(figure: Estimate, to: str = " to ") -> str:
    if figure.low is None:
        return "unknown"
    return f"{_value(figure.low)}{to}{_value(figure.high)}" if figure.high is not None else f"{_value(figure.low)} up"


def _tasks(group: Group) -> str:
    return f"{group.tasks} task{'s' * (group.tasks != 1)}"
