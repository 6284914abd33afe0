"""Mathematics of credit that methods share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from firstfault.tree import Node, Term

Aggregation = Literal["sequence", "token"]
Scale = Literal["std", "none"]
UNCLIPPED = {"clip_low": 1.0, "clip_high": 1e9}  # bounds that no ratio reaches


def normalize(values: Sequence[float], *, center: float | None = None, eps: float = 1e-6) -> list[float]:
    """z-scores (x - mean) / (std + eps) with the population standard deviation; zeros where all values are equal.

    With a `center`, it stands in the place of the mean, in both.

    >>> [round(z, 3) for z in normalize([1, 1, 0])]
    [0.707, 0.707, -1.414]
    >>> normalize([0.3, 0.3])
    [0.0, 0.0]
    """
    center = mean(values) if center is None else center
    std = mean([(x - center) ** 2 for x in values]) ** 0.5
    return [(x - center) / (std + eps) for x in values]


def normalize_together(groups: Sequence[Sequence[float]], *, center: float | None = None) -> list[list[float]]:
    """z-scores of all values of all groups, in their groups (see `normalize`).

    >>> [[round(z, 3) for z in group] for group in normalize_together([[1, 1], [0]])]
    [[0.707, 0.707], [-1.414]]
    """
    whitened = iter(normalize([value for group in groups for value in group], center=center))
    return [[next(whitened) for _ in group] for group in groups]


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing; of equal values exactly their value, which a rounded sum would miss in the last bit.

    >>> mean([0.1] * 6) == 0.1, sum([0.1] * 6) / 6 == 0.1
    (True, False)
    """
    return float(min(max(values), max(min(values), sum(values) / len(values)))) if values else 0.0


def logistic(x: float) -> float:
    """1 / (1 + exp(-x)), for arguments of any size."""
    return (1 + math.tanh(x / 2)) / 2


def group_advantages(rewards: Sequence[float], scale: Scale) -> list[float]:
    """Those of a group of runs: `normalize`, or with scale "none" the distances from the mean.

    >>> group_advantages([1.0, 0.0], "none")
    [0.5, -0.5]
    """
    if scale == "std":
        return normalize(rewards)
    center = mean(rewards)
    return [reward - center for reward in rewards]


def run_weight(leaf: Node, aggregation: Aggregation) -> float:
    """The weight of each token of the run that ended at `leaf`.

    The loss is the mean over terms by weight: "sequence" gives every run the same say (GRPO, Eq. 3), "token" every
    token (DAPO, Eq. 8).
    """
    return 1.0 if aggregation == "token" else 1.0 / max(1, sum(len(step.action_tokens) for step in leaf.steps))


def credit_run(
    leaf: Node,
    advantage: float | Sequence[float | list[float]],
    *,
    aggregation: Aggregation,
    clip_low: float,
    clip_high: float,
) -> None:
    """Give a run its advantage: one for all, or one for each step, which may be one for each of its tokens.

    A step that several runs share carries one term for each, since a sum of clipped terms is not the clipped term of
    their sum.
    """
    weight = run_weight(leaf, aggregation)
    of_steps = [advantage] * leaf.depth if isinstance(advantage, int | float) else advantage
    for step, of_step in zip(leaf.steps, of_steps, strict=True):
        step.terms.append(Term(of_step, weight, clip_low, clip_high, run=leaf.index))
