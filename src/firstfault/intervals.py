"""Intervals of what was counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.96


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n samples (Wilson's).

    >>> [round(bound, 3) for bound in wilson(0.5, 4)]
    [0.15, 0.85]
    """
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(max(0.0, share * (1 - share) / n + Z95**2 / (4 * n * n)))
    return max(0.0, round(centre - half, 6)), min(1.0, round(centre + half, 6))


def mean_interval(values: Sequence[float], seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """The mean, and the 2.5 % and 97.5 % quantiles of the means of bootstrap samples."""
    values = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """The ratio of two sums, and the 2.5 % and 97.5 % quantiles of that of bootstrap samples of pairs.

    Infinite where nothing is below the line, NaN where nothing is above it either; samples that are NaN don't count.

    >>> ratio_interval([1.0, 1.0], [2.0, 2.0])
    (0.5, 0.5, 0.5)
    """
    above, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    draws = np.random.default_rng(seed).integers(len(above), size=(resamples, len(above)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(above.sum(), below.sum())
        ratios = above[draws].sum(axis=1) / below[draws].sum(axis=1)
    ratios = ratios[~np.isnan(ratios)]
    if not len(ratios):
        return math.nan, math.nan, math.nan
    # between neighbours nothing is interpolated: one of them may be infinite
    low, high = np.quantile(ratios, 0.025, method="lower"), np.quantile(ratios, 0.975, method="higher")
    return float(ratio), float(low), float(high)
