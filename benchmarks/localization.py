"""Searches for the first irrecoverable step, on simulated runs and on those that `firstfault claims` measured.

    python benchmarks/localization.py               # minutes; docs/results/localization.md, .json and .svg
    python benchmarks/localization.py --runs 300    # a look
    python benchmarks/localization.py --render      # only page and picture, of what was measured

A simulated run of K tool-call steps is a profile p_0 .. p_K: a completion after m steps succeeds with p_m. All searches
of a run see the same outcomes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from localization_page import draw, render
from rich.console import Console

from firstfault.credit import mean
from firstfault.evaluation.claims.measured import Measurement
from firstfault.evaluation.failures import Completion, Failure, first_irrecoverable, search_again
from firstfault.evaluation.rows import read_rows
from firstfault.localize import Bisect, Filled, Posterior, Search
from firstfault.progress import progress
from firstfault.tree import Verdict

RESULTS = Path(__file__).parent.parent / "docs" / "results"
BUDGETS = (4, 6, 8, 12, 16, 24)
STEPS = (8, 16)
STARTS = {"a": (0.1, 0.2, 0.3, 0.5, 0.8), "b": (0.3, 0.5, 0.8), "c": (0.2, 0.5), "d": (0.5, 0.8), "f": (0.05, 0.2, 0.5),
          "e": (0.1, 0.2, 0.5, 0.8)}  # fmt: skip
ORDERS = 10  # in which the completions of a real run are searched


@dataclass(frozen=True)
class Run:
    """A failed run: its first irrecoverable step, and completions after 0, 1, .. K steps in the order of their use."""

    step: int
    completions: Sequence[Sequence[Completion]]
    failure: Failure | None = None  # of a real run
    order: int = 0

    @property
    def steps(self) -> int:
        return len(self.completions) - 1


def simulated(family: str, steps: int, n: int) -> Iterator[Run]:
    """`n` runs of a family, in equal parts by its starts and by where the fault tends to be."""
    for number in range(n):
        draw = random.Random(f"{family} {steps} {number}")
        start = STARTS[family][number % len(STARTS[family])]
        where = [draw.random(), draw.betavariate(1, 3), draw.betavariate(3, 1)][number // len(STARTS[family]) % 3]
        rates = profile(family, steps, min(steps, 1 + int(where * steps)), start, draw)
        completions = [[(draw.random() < p, None) for _ in range(max(BUDGETS))] for p in rates]
        yield Run(first_irrecoverable(rates), completions)


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


def recorded() -> dict[str, list[Failure]]:
    """The failed runs that `firstfault claims consistency` has measured, by family."""
    found: dict[str, list[Failure]] = {}
    for path in sorted((RESULTS / "claims").glob("consistency-*.jsonl")):
        for row in read_rows(path, Measurement, "--out"):
            if row.measured is not None:
                failure = Failure(**row.measured)
                found.setdefault(failure.family, []).append(failure)
    return found


Play = Callable[[Run, int], Verdict]  # a run and a budget -> what a search says of it


def play(make: Callable[[Run], Search], others: int = 0) -> Play:
    """What a search says that hears of `others` whole runs of the task before it begins."""
    return lambda run, budget: search_again(make(run), run.completions, budget, others)


def posterior(run: Run) -> Search:
    return Posterior(run.steps, stop=1.0)


def with_prior(weights: Callable[[Run], Sequence[float]]) -> Callable[[Run], Search]:
    """70 % of the prior as these weights of steps 1 .. K say, 30 % even."""

    def make(run: Run) -> Search:
        share = np.array(weights(run), float)
        return Posterior(run.steps, stop=1.0, prior=0.7 * share / share.sum() + 0.3 / run.steps)

    return make


def counts_only(run: Run, budget: int) -> Verdict:
    """The posterior, which does not hear which steps a completion repeats."""
    completions = [[(success, None) for success, _ in after] for after in run.completions]
    return SEARCHES["posterior"](replace(run, completions=completions), budget)


def entropies(run: Run) -> list[float]:
    return [max(step) for step in run.failure.entropies[: run.steps]]


def shuffled_entropies(run: Run) -> list[float]:
    return random.Random(f"{run.failure.task} {run.order}").sample(entropies(run), run.steps)


def reward_model(accuracy: float) -> Callable[[Run], list[float]]:
    """Names the first wrong step so often, and else any; of a run whose tool calls are all right, any."""

    def weights(run: Run) -> list[float]:
        draw = random.Random(f"{accuracy} {run.failure.task} {run.order}")
        wrong = run.failure.first_wrong
        right = wrong is not None and wrong <= run.steps and draw.random() < accuracy
        named = wrong if right else draw.randint(1, run.steps)
        return [float(t == named) for t in range(1, run.steps + 1)]

    return weights


def of_other_tasks(failures: Sequence[Failure]) -> dict[str, Play]:
    """Priors by what the searches of the family's other runs say: of rates, and of places (quarters of a run)."""

    def quarters(steps: int) -> np.ndarray:
        return np.arange(steps) * 4 // steps

    searches = {failure.task: Posterior(failure.steps, stop=1.0) for failure in failures}
    for failure in failures:
        search_again(searches[failure.task], failure.shuffled(0), 16)
    rates = {task: search.joint.sum(0) for task, search in searches.items()}
    places = {task: np.bincount(quarters(s.steps), s.belief[:-1], minlength=4) for task, s in searches.items()}

    def but(run: Run, found: Mapping[str, np.ndarray]) -> np.ndarray:
        return 1 + sum(one for task, one in found.items() if task != run.failure.task)

    def by_place(run: Run) -> Sequence[float]:
        quarter = quarters(run.steps)
        return but(run, places)[quarter] / np.bincount(quarter)[quarter]

    def with_rates(run: Run) -> Search:
        search = Posterior(run.steps, stop=1.0)
        search.joint *= but(run, rates)
        search.joint /= search.joint.sum()
        return search

    return {"rates of other tasks": play(with_rates), "places of other tasks": play(with_prior(by_place))}


SEARCHES: dict[str, Play] = {
    "printed, 1 try": play(lambda run: Bisect(run.steps, lambda m: 1)),
    "printed, 2 tries": play(lambda run: Bisect(run.steps, lambda m: 2)),
    "printed, 3 tries": play(lambda run: Bisect(run.steps, lambda m: 3)),
    "verified, 2 tries": play(lambda run: Bisect(run.steps, lambda m: 2, verified=True)),
    "filled": play(lambda run: Filled(run.steps)),
    "posterior": play(posterior),
    "posterior, stops at .9": play(lambda run: Posterior(run.steps)),
}
REAL: dict[str, Play] = SEARCHES | {  # only real runs repeat each other
    "posterior, counts only": counts_only,
    "posterior, 15 other runs": play(posterior, 15),
    "entropies": play(with_prior(entropies)),
    "entropies, 15 other runs": play(with_prior(entropies), 15),
    "entropies of other steps, 15 other runs": play(with_prior(shuffled_entropies), 15),
    "reward model right in .9, 15 other runs": play(with_prior(reward_model(0.9)), 15),
    "reward model right in .6, 15 other runs": play(with_prior(reward_model(0.6)), 15),
    "reward model right in .3, 15 other runs": play(with_prior(reward_model(0.3)), 15),
}


def score(searched: Play, runs: Sequence[Run], budget: int) -> dict[str, float]:
    """Means over simulated runs of one family; calibration where the search says how sure it is."""
    verdicts = [searched(run, budget) for run in runs]
    right = [v.step == run.step for v, run in zip(verdicts, runs, strict=True)]
    doubt = [
        mean([(w - (t >= run.step)) ** 2 for t, w in enumerate(v.weights, 1)])
        for v, run in zip(verdicts, runs, strict=True)
    ]
    found = {"exact": mean(right), "none": mean([not v.names_step for v in verdicts]), "weight_error": mean(doubt)}
    if verdicts[0].probability is not None:
        found["calibration"] = calibration([v.probability for v in verdicts], right)
    return found


def calibration(said: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: how far what is said is from what is true, in bins of what is said."""
    probability, true = np.array(said, float), np.array(right, float)
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [abs(probability[place == b].mean() - true[place == b].mean()) * (place == b).mean() for b in set(place)]
    return float(sum(gaps))


def by_run(searched: Play, runs: Sequence[Sequence[Run]], budget: int) -> dict[str, list[float]]:
    """Of each real run, the mean over its orders: how often the search is right, how sure it says to be of its answer,
    and how often it names a step, to be relied on."""
    found: dict[str, list[float]] = {"exact": [], "said": [], "named": []}
    for orders in runs:
        verdicts = [searched(run, budget) for run in orders]
        found["exact"].append(mean([v.step == orders[0].step for v in verdicts]))
        found["named"].append(mean([v.finished and v.names_step for v in verdicts]))
        if verdicts[0].probability is not None:
            found["said"].append(mean([v.probability for v in verdicts]))
    return found


def by_family(searched: Play, runs: Mapping[str, Sequence[Run]], budget: int) -> dict[str, dict[str, float]]:
    return {family: score(searched, own, budget) for family, own in runs.items()}


def tables(searches: Mapping[str, Play], measure: Callable[[Play, Any, int], Any], runs: Any) -> dict[str, dict]:
    """What is measured on runs, by search and budget."""
    with progress(Console(stderr=True)) as bar:
        row = bar.add_task("searching", total=len(searches) * len(BUDGETS), unit="tables")
        found: dict[str, dict] = {}
        for name, searched in searches.items():
            found[name] = {}
            for budget in BUDGETS:
                found[name][str(budget)] = measure(searched, runs, budget)
                bar.advance(row)
    return found


def search_all(n: int) -> dict:
    failures = recorded()
    results: dict = {"runs": n, "simulated": {}, "real": {}}
    for steps in STEPS:
        runs = {family: list(simulated(family, steps, n)) for family in STARTS}
        results["simulated"][str(steps)] = tables(SEARCHES, by_family, runs)
    for family, own in failures.items():
        orders = [[Run(f.step, f.shuffled(order), f, order) for order in range(ORDERS)] for f in own]
        known = [{"steps": f.steps, "step": f.step, "first_wrong": f.first_wrong, "rates": f.rates} for f in own]
        results["real"][family] = {"runs": known, "searches": tables(REAL | of_other_tasks(own), by_run, orders)}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1200, help="simulated runs of each family")
    parser.add_argument("--render", action="store_true", help="only write page and picture anew")
    parsed = parser.parse_args()
    record = RESULTS / "localization.json"
    if not parsed.render:
        rounded = json.loads(json.dumps(search_all(parsed.runs)), parse_float=lambda number: round(float(number), 4))
        record.write_text(json.dumps(rounded) + "\n")
    results = json.loads(record.read_text())
    (RESULTS / "localization.md").write_text(render(results))
    draw(results, RESULTS / "localization.svg")


if __name__ == "__main__":
    main()
