"""Claim 6: whether a search names the same step again, the true one, and the one that is known to be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from statistics import mean

from firstfault.evaluation import failures
from firstfault.evaluation.claims.finding import Figure, Finding, difference, judged
from firstfault.evaluation.claims.measured import Row, Subject
from firstfault.evaluation.failures import LOST, Failure, search_again
from firstfault.localize import Bisect, Filled, Posterior, Search
from firstfault.methods import ELPO

PAPER = "stable"


def printed(run: Failure) -> Search:
    """ELPO's, with its default settings."""
    return Bisect(run.steps, partial(ELPO().tries, run.entropies))


SEARCHES: dict[str, tuple[Callable[[Failure], Search], int]] = {  # and how many other runs of the task it hears of
    "printed": (printed, 0),
    "filled": (lambda run: Filled(run.steps), 0),
    "posterior": (lambda run: Posterior(run.steps), 0),
    "posterior, 15 other runs": (lambda run: Posterior(run.steps), 15),
}
AGAIN = 20  # searches of the same run, each with a draw of its own from the completions that also tell the truth
BUDGET = 16


def same_answer_rate(answers: Sequence[int]) -> float:
    """How often two of these searches give the same answer.

    >>> same_answer_rate([3, 3, 3, 4])
    0.5
    """
    pairs = len(answers) * (len(answers) - 1)
    return sum(n * (n - 1) for n in Counter(answers).values()) / pairs


async def measure(subject: Subject) -> Row | None:
    """A failed run with its completions."""
    failure = await failures.measure(*subject)
    return None if failure is None else asdict(failure)


def finding(family: str, rows: Sequence[Row]) -> Finding:
    """Agreement with itself, with exhaustive Monte Carlo, and with the first wrong step where a generator knows it."""
    measured = [Failure(**row) for row in rows]
    runs = [f for f in measured if f.rates[0] > LOST]
    figures: list[Figure] = []
    exact: dict[str, list[float]] = {}
    agree: dict[str, list[float]] = {}
    for name, (make, others) in SEARCHES.items():
        answers = [
            [search_again(make(f), f.shuffled(seed), BUDGET, others).step for seed in range(AGAIN)] for f in runs
        ]
        exact[name] = [mean(a == f.step for a in again) for f, again in zip(runs, answers, strict=True)]
        agree[name] = list(map(same_answer_rate, answers))
        known = [
            mean(a == f.first_wrong for a in again)
            for f, again in zip(runs, answers, strict=True)
            if f.first_wrong is not None and f.first_wrong <= f.steps
        ]
        figures += [
            Figure.of(f"{name}: two searches agree", agree[name], PAPER if name == "printed" else ""),
            Figure.of(f"{name}: names the true step", exact[name]),
            Figure.of(f"{name}: names the first wrong step", known),
        ]
    guess = [1 / f.steps for f in runs]
    differences = [
        difference("two printed searches agree - two guesses", agree["printed"], guess),
        difference("printed names the true step - a guess", exact["printed"], guess),
    ]
    beside = difference("posterior names the true step - printed", exact["posterior"], exact["printed"])
    known_true = [float(f.first_wrong == f.step) for f in runs if f.step <= f.steps]
    figures.append(Figure.of("the true step is the first wrong one", known_true))
    verdict, why = judged(differences)
    notes = [f"{len(measured) - len(runs)} of {len(measured)} runs are left out: hardly any of 64 whole runs of their "
             "tasks succeeds, so that no step lost them"]  # fmt: skip
    return Finding("consistency", family, [*figures, *differences, beside], verdict, why, notes)
