"""What a claim comes to: the paper's figure, ours with its interval, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Verdict = Literal["holds", "does not hold", "can't tell at this size"]


@dataclass(frozen=True)
class Figure:
    """A mean over `n` independent units (runs, tasks) with its 95 % interval, and what the paper has in its place."""

    name: str
    mean: float
    low: float
    high: float
    n: int
    paper: str = ""

    @classmethod
    def of(cls, name: str, values: Sequence[float], paper: str = "") -> Figure:
        """The mean of independent values, with a percentile bootstrap of 2000 resamples."""
        if not len(values):
            return cls(name, float("nan"), float("nan"), float("nan"), 0, paper)
        values = np.asarray(values, dtype=float)
        draws = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
        low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
        return cls(name, float(values.mean()), float(low), float(high), len(values), paper)


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

    >>> judged([Figure("a - b", 0.3, 0.1, 0.5, 20), Figure("b - c", 0.1, -0.1, 0.3, 20)])
    ("can't tell at this size", 'b - c is 0.10 [-0.10, 0.30]')
    >>> judged([Figure("a - b", 0.3, 0.1, 0.5, 20)])
    ('holds', 'a - b is 0.30 [0.10, 0.50]')
    """
    words = [f"{d.name} is {d.mean:.2f} [{d.low:.2f}, {d.high:.2f}]" for d in differences]
    against = [word for d, word in zip(differences, words, strict=True) if d.high < 0]
    unsure = [word for d, word in zip(differences, words, strict=True) if not d.low > 0 and not d.high < 0]
    if against:
        return "does not hold", "; ".join(against)
    return ("can't tell at this size", "; ".join(unsure)) if unsure else ("holds", "; ".join(words))
