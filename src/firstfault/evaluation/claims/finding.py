"""What a claim comes to: the paper's figure, ours with its interval, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from firstfault.intervals import mean_interval

Verdict = Literal["holds", "does not hold", "can't tell at this size"]


@dataclass(frozen=True)
class Figure:
    """A mean over `n` independent units (runs, tasks) with its 95 % interval, and what the paper has in its place.

    Without any unit, there are none of these.
    """

    name: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    paper: str = ""

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]" if self.n else "not measured"

    @classmethod
    def of(cls, name: str, values: Sequence[float], paper: str = "") -> Figure:
        """The mean of independent values, with a percentile bootstrap of 2000 resamples."""
        if not len(values):
            return cls(name, None, None, None, 0, paper)
        return cls(name, *mean_interval(values), len(values), paper)


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
    words = {d.name: f"{d.name} is {d}" for d in differences}
    against = [words[d.name] for d in differences if d.n and d.high < 0]
    unsure = [words[d.name] for d in differences if not d.n or d.low <= 0 <= d.high]
    if against:
        return "does not hold", "; ".join(against)
    return ("can't tell at this size", "; ".join(unsure)) if unsure else ("holds", "; ".join(words.values()))
