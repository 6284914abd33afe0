"""What a claim comes to: the paper's figure, ours with its interval, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from firstfault.evaluation.statistics import LEVEL, alike, bootstrap, mean_t, scipy_stats
from firstfault.intervals import mean_interval

Verdict = Literal["holds", "does not hold", "can't tell at this size"]
UNTOLD: Verdict = "can't tell at this size"


@dataclass(frozen=True)
class Figure:
    """A mean over `n` independent units (runs, tasks, seeds), its 95 % interval, and what the paper has in its place.

    Without any unit, there are none of these; of one, or of several that are all alike, there is no interval. A claim
    may say that it has a `size`, at least.
    """

    name: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    paper: str = ""
    size: float = 0.0

    def __str__(self) -> str:
        if not self.n:
            return "not measured"
        mean, low, high = ("" if value is None else f"{value:.3f}" for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]" if low else f"{mean}, of one" if self.n == 1 else f"{mean}, all alike"

    @classmethod
    def of(cls, name: str, values: Sequence[float], paper: str = "") -> Figure:
        """The mean of independent values. Its interval holds Student's and that of a bootstrap of 2000 resamples.

        The bootstrap's own is too narrow where there are few, and Student's where they are skewed.

        >>> str(Figure.of("three tasks", [1.0, 0.0, 1.0]))
        '0.667 [-0.768, 2.101]'
        """
        if not len(values):
            return cls(name, None, None, None, 0, paper)
        mean, low, high = mean_t(values)
        if alike(values):
            return cls(name, mean, None, None, len(values), paper)
        _, other_low, other_high = mean_interval(values)
        return cls(name, mean, min(low, other_low), max(high, other_high), len(values), paper)

    @classmethod
    def over_seeds(cls, name: str, values: Sequence[Sequence[float | np.ndarray]], paper: str = "") -> Figure:
        """The mean over seeds of the mean over families of values [seeds][families], with Student's interval.

        Where a value is an array, one number for each problem, the interval also holds that of the bootstrap over
        seeds and problems: so it leaves out 0 only if both do. `compare` also corrects for the number of comparisons
        before it says that a method is ahead; this does not.

        >>> str(Figure.over_seeds("two families", [[0.1, 0.3], [0.2, 0.4], [0.1, 0.3]]))
        '0.233 [0.090, 0.377]'
        >>> str(Figure.over_seeds("one seed", [[np.array([1.0, 0.0])]]))
        '0.500, of one'
        """
        if not values:
            return cls(name, None, None, None, 0, paper)
        by_seed = [float(np.mean([np.mean(value) for value in seed])) for seed in values]
        mean, low, high = mean_t(by_seed)
        if alike(by_seed):
            return cls(name, mean, None, None, len(values), paper)
        if np.ndim(values[0][0]):
            other_low, other_high = bootstrap([np.array(family) for family in zip(*values, strict=True)])
            low, high = min(low, other_low), max(high, other_high)
        return cls(name, mean, low, high, len(values), paper)


def difference(name: str, a: Sequence[float | None], b: Sequence[float | None]) -> Figure:
    """The mean of a - b over the units that have both."""
    return Figure.of(name, [x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None])


@dataclass(frozen=True)
class Finding:
    """A claim of the paper on one task family."""

    claim: str
    family: str
    figures: Sequence[Figure]
    verdict: Verdict
    why: str
    notes: Sequence[str] = field(default=())


def judged(differences: Sequence[Figure]) -> tuple[Verdict, str]:
    """Whether each of these differences, which a claim says are positive, is so beyond its interval.

    It is not if one of them is negative, or less than the claim says, beyond an interval that is wider, as for so many
    differences: one of them would be below 0 by chance more often. One that is positive, but less than the claim says,
    can't be told.

    >>> judged([Figure("a - b", 0.3, 0.1, 0.5, 20), Figure("b - c", 0.1, -0.1, 0.3, 20)])
    ("can't tell at this size", 'b - c is 0.100 [-0.100, 0.300]')
    >>> judged([Figure("a - b", 0.3, 0.1, 0.5, 20)])
    ('holds', 'a - b is 0.300 [0.100, 0.500]')
    >>> judged([Figure("a - b", 0.3, 0.2, 0.4, 20, size=0.5)])
    ('does not hold', 'a - b is 0.300 [0.200, 0.400], less than 0.5')
    >>> judged([Figure("a - b", 0.3, 0.05, 0.55, 20, size=0.5)])
    ("can't tell at this size", 'a - b is 0.300 [0.050, 0.550], less than 0.5')
    """
    words = {d.name: f"{d.name} is {d}" for d in differences}
    words |= {d.name: f"{words[d.name]}, less than {d.size:g}" for d in differences if d.n and d.mean < d.size > 0}
    against = [words[d.name] for d in differences if d.high is not None and _corrected(d, len(differences)) < d.size]
    unsure = [words[d.name] for d in differences if d.low is None or d.low <= 0 or d.mean < d.size]
    if against:
        return "does not hold", "; ".join(against)
    return (UNTOLD, "; ".join(unsure)) if unsure else ("holds", "; ".join(words.values()))


def _corrected(d: Figure, number: int) -> float:
    """The upper end of an interval that is as much wider as Student's is after Bonferroni's correction."""
    of = scipy_stats().t
    wider = of.ppf(1 - LEVEL / 2 / number, d.n - 1) / of.ppf(1 - LEVEL / 2, d.n - 1)
    return d.mean + wider * (d.high - d.mean)
