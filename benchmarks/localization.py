"""Searches for the first irrecoverable step on simulated runs; writes docs/results/localization.md and its picture.

    python benchmarks/localization.py                  # a quarter of an hour
    python benchmarks/localization.py --runs 300       # a look

A run of K tool-call steps is a profile p_0 .. p_K: a completion after m steps succeeds with p_m. Its first
irrecoverable step is the first m with p_m <= 0.02, K + 1 if there is none. All searches see the same outcomes.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from firstfault.localize.bisect import Bisect, Filled
from firstfault.localize.posterior import Posterior
from firstfault.localize.search import Search
from firstfault.tree import Verdict

RESULTS = Path(__file__).parent.parent / "docs" / "results"
BUDGETS = (4, 6, 8, 12, 16, 24)
FAMILIES = {
    "a": "p_m = q before the fault, 0 from it on; q = .1, .2, .3, .5, .8",
    "b": "falls evenly to 35 % of its start, then to 0, .01 or .02; start .3, .5, .8",
    "c": "logit p_m walks at random (sd .7 a step), then 0; start .2, .5",
    "d": "one to three partial errors (each times .3 to .7), then 0; start .5, .8",
    "f": "rises to the fault as under a constant hazard, p_m = q^((K + 1 - m) / (K + 1)), then 0; q = .05, .2, .5",
    "e": "no irrecoverable step: flat, or a walk as in c; start .1, .2, .5, .8",
}
STARTS = {"a": (0.1, 0.2, 0.3, 0.5, 0.8), "b": (0.3, 0.5, 0.8), "c": (0.2, 0.5), "d": (0.5, 0.8), "f": (0.05, 0.2, 0.5),
          "e": (0.1, 0.2, 0.5, 0.8)}  # fmt: skip
WITH_FAULT = "abcdf"


@dataclass
class Profile:
    """p_0 .. p_K, the truth, and the outcomes of the i-th try after each step."""

    family: str
    recovers: list[float]
    outcomes: list[list[bool]]

    @property
    def steps(self) -> int:
        return len(self.recovers) - 1

    @property
    def fault(self) -> int:
        return next((m for m, p in enumerate(self.recovers) if m and p <= 0.02), self.steps + 1)


def profiles(family: str, steps: int, n: int) -> Iterator[Profile]:
    """`n` runs of a family, in equal parts by its starts and by where the fault tends to be."""
    for number in range(n):
        draw = random.Random(f"{family} {steps} {number}")
        start = STARTS[family][number % len(STARTS[family])]
        where = [draw.random(), draw.betavariate(1, 3), draw.betavariate(3, 1)][number // len(STARTS[family]) % 3]
        fault = min(steps, 1 + int(where * steps))
        recovers = profile(family, steps, fault, start, draw)
        outcomes = [[draw.random() < p for _ in range(max(BUDGETS))] for p in recovers]
        yield Profile(family, recovers, outcomes)


def profile(family: str, steps: int, fault: int, start: float, draw: random.Random) -> list[float]:
    """p_0 .. p_K."""
    good = [start] * (steps + 1)
    if family == "b":
        good = [start * (1 - 0.65 * m / max(1, fault - 1)) for m in range(steps + 1)]
    elif family == "c" or (family == "e" and draw.random() < 0.5):
        logit = math.log(start / (1 - start))
        for m in range(1, steps + 1):
            logit += draw.gauss(0, 0.7)
            good[m] = 1 / (1 + math.exp(-logit))
    elif family == "d":
        for error in draw.sample(range(1, fault), min(draw.randint(1, 3), fault - 1)):
            factor = draw.uniform(0.3, 0.7)
            good = [p * factor if m >= error else p for m, p in enumerate(good)]
    elif family == "f":
        good = [start ** ((steps + 1 - m) / (steps + 1)) for m in range(steps + 1)]
    if family == "e":
        return good
    lost = draw.choice([0.0, 0.01, 0.02]) if family == "b" else 0.0
    return good[:fault] + [lost] * (steps + 1 - fault)


def searched(search: Search, run: Profile, budget: int) -> tuple[Verdict, int]:
    """The answer, and the rollouts that were used."""
    spent, used = 0, [0] * (run.steps + 1)
    while spent < budget and (question := search.ask(budget - spent)) is not None:
        step, tries = question
        seen = run.outcomes[step][used[step] : used[step] + tries]
        search.tell(step, len(seen), sum(seen))
        used[step] += tries
        spent += tries
    return search.verdict(), spent


SEARCHES: dict[str, Callable[[int], Search]] = {
    "printed, 1 try": lambda steps: Bisect(steps, lambda m: 1),
    "printed, 2 tries": lambda steps: Bisect(steps, lambda m: 2),
    "printed, 3 tries": lambda steps: Bisect(steps, lambda m: 3),
    "verified, 2 tries": lambda steps: Bisect(steps, lambda m: 2, verified=True),
    "filled": Filled,
    "posterior": partial(Posterior, stop=1.0),
    "posterior, stops at .9": Posterior,
}


@dataclass
class Score:
    """Of one search on runs of one family: shares, and means over runs."""

    exact: float
    near: float
    none: float
    rollouts: float
    weight_error: float
    answers: list[tuple[float | None, bool]]  # probability, right


def score(make: Callable[[int], Search], runs: Sequence[Profile], budget: int) -> Score:
    rows, answers = [], []
    for run in runs:
        answer, spent = searched(make(run.steps), run, budget)
        right = answer.step == run.fault
        error = statistics.mean((w - (t >= run.fault)) ** 2 for t, w in enumerate(answer.weights, 1))
        rows.append((right, abs(answer.step - run.fault) <= 1, answer.step > run.steps, spent, error))
        answers.append((answer.probability, right))
    return Score(*(statistics.mean(column) for column in zip(*rows, strict=True)), answers)


def calibration(answers: Sequence[tuple[float, bool]], bins: int = 10) -> float:
    """Expected calibration error: how far what is said is from what is true, in bins of what is said."""
    said, true = np.array(answers, float).T
    place = np.minimum((said * bins).astype(int), bins - 1)
    return sum(abs(said[place == b].mean() - true[place == b].mean()) * (place == b).mean() for b in np.unique(place))


if __name__ == "__main__":
    import sys

    n = int(sys.argv[1])
    for K in (8, 16):
        data = {f: list(profiles(f, K, n)) for f in FAMILIES}
        for name, make in SEARCHES.items():
            row = []
            t = time.perf_counter()
            for b in (6, 8, 12, 16, 24):
                s = [score(make, data[f], b) for f in WITH_FAULT]
                e = score(make, data["e"], b)
                row.append(
                    f"{statistics.mean(x.exact for x in s):.3f} ({statistics.mean(x.rollouts for x in s):.1f}) none {e.none:.2f}"
                )
            print(K, f"{name:24}", " | ".join(row), f"{time.perf_counter() - t:.0f}s", flush=True)
