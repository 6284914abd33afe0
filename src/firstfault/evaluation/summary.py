"""What the records of an evaluation say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from firstfault.evaluation.records import Record
from firstfault.intervals import mean_interval, ratio_interval
from firstfault.tasks.votes import at_k

FIGURES = {
    "success": "share of the sampled runs that succeed; Pass@1 and Major@1 are the same",
    "greedy": "share of the tasks that the one greedy run solves",
    "pass@K": "chance that at least one of K sampled runs of a task succeeds, estimated without bias from all of them",
    "major@K": "chance that the majority of K sampled runs of a task is right; ties are broken at random",
    "reward": "mean reward of a sampled run",
    "steps": "mean number of steps of a sampled run",
    "calls": "mean number of tool calls of a sampled run",
    "failed_calls": "mean number of those that gave no normal result",
    "tokens": "mean number of tokens that a sampled run writes; unknown where an endpoint does not tell",
    "successes_per_call": "successes of all sampled runs over their tool calls",
    "calls_per_success": "their tool calls over their successes",
}
LEVELS = 6  # difficulties that have a row each; more of them, if they are numbers, are put together
RANGES = 4


class Estimate(NamedTuple):
    """A value and its 95 % interval: bootstrap over tasks. None is unknown, and as an upper end, none."""

    value: float | None
    low: float | None
    high: float | None


class Group(NamedTuple):
    """Some of the tasks, and their figures by name."""

    family: str | None
    difficulty: str | None
    tasks: int
    figures: dict[str, Estimate]


class Summary(NamedTuple):
    """All tasks, those of each family if there are several, and those of each difficulty, if sources know it."""

    overall: Group
    families: list[Group]
    difficulties: list[Group]

    def to_json(self) -> dict[str, Any]:
        def plain(group: Group) -> dict[str, Any]:
            return {**group._asdict(), "figures": {name: f._asdict() for name, f in group.figures.items()}}

        return {
            "overall": plain(self.overall),
            "families": [plain(group) for group in self.families],
            "difficulties": [plain(group) for group in self.difficulties],
        }


def summarize(records: Iterable[Record], ks: Sequence[int], seed: int = 0) -> Summary:
    """The figures of all tasks and of the groups of them, with intervals drawn from `seed`.

    Raises:
        ValueError: if there are no records, or a task has fewer sampled runs than the largest K.
    """
    by_task: dict[int, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: (r.number, r.sample is None, r.sample)):
        by_task[record.number].append(record)
    tasks = list(by_task.values())

    def grouped(name: Callable[[list[Record]], Any]) -> dict[Any, list[list[Record]]]:
        groups: dict[Any, list[list[Record]]] = defaultdict(list)
        for task in tasks:
            groups[name(task)].append(task)
        return groups

    families = grouped(lambda task: task[0].family)
    groups = [Group(name, None, len(own), figures(own, ks, seed)) for name, own in families.items()]
    difficulties = []
    for family, own in families.items():
        place = ranges(task[0].difficulty for task in own)
        for name in dict.fromkeys(place.values()):
            some = [task for task in own if place.get(task[0].difficulty) == name]
            difficulties.append(Group(family, name, len(some), figures(some, ks, seed)))
    return Summary(
        Group(None, None, len(tasks), figures(tasks, ks, seed)), groups if len(groups) > 1 else [], difficulties
    )


def figures(tasks: Sequence[Sequence[Record]], ks: Sequence[int], seed: int = 0) -> dict[str, Estimate]:
    """The figures of `FIGURES`, from all records of each task."""
    sampled = [[record for record in task if record.sample is not None] for task in tasks]
    greedy = [record for task in tasks for record in task if record.sample is None]

    def per_run(name: str) -> Estimate:
        if any(getattr(record, name) is None for task in sampled for record in task):
            return Estimate(None, None, None)
        means = [float(np.mean([getattr(record, name) for record in task])) for task in sampled]
        return _figure(mean_interval(means, seed))

    successes = [sum(record.success for record in task) for task in sampled]
    calls = [sum(record.calls for record in task) for task in sampled]
    found = {"success": per_run("success")}
    if greedy:
        found["greedy"] = _figure(mean_interval([record.success for record in greedy], seed))
    of_tasks = [at_k([r.answer for r in task], [r.success for r in task], ks) for task in sampled]
    for name in of_tasks[0]:
        found[name] = _figure(mean_interval([of_task[name] for of_task in of_tasks], seed))
    return found | {
        **{name: per_run(name) for name in ("reward", "steps", "calls", "failed_calls", "tokens")},
        "successes_per_call": _figure(ratio_interval(successes, calls, seed)),
        "calls_per_success": _figure(ratio_interval(calls, successes, seed)),
    }


def _figure(interval: tuple[float, float, float]) -> Estimate:
    return Estimate(*(value if math.isfinite(value) else None for value in interval))


def ranges(difficulties: Iterable[str | None]) -> dict[str, str]:
    """The row that each difficulty has in a table, easy ones first: its own, or a range of numbers.

    More numbers than `LEVELS` are put together in `RANGES` ranges of about as many tasks each.

    >>> ranges(["10", "9", None])
    {'9': '9', '10': '10'}
    >>> set(ranges(map(str, range(4, 12))).values()) == {"4 to 5", "6 to 7", "8 to 9", "10 to 11"}
    True
    """
    known = [difficulty for difficulty in difficulties if difficulty is not None]
    levels = sorted(set(known), key=_order)
    if len(levels) <= LEVELS or any(_number(level) is None for level in levels):
        return {level: level for level in levels}
    place, before = {}, 0
    for level in levels:
        place[level] = before * RANGES // len(known)
        before += known.count(level)
    rows = {row: [level for level in levels if place[level] == row] for row in place.values()}
    names = {row: own[0] if len(own) == 1 else f"{own[0]} to {own[-1]}" for row, own in rows.items()}
    return {level: names[place[level]] for level in levels}


def _order(difficulty: str) -> tuple[bool, float, str]:
    number = _number(difficulty)
    return number is None, number or 0.0, difficulty


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
