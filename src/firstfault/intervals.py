"""Intervals of what was counted."""

from __future__ import annotations

import math

Z95 = 1.96


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n samples (Wilson's).

    >>> [round(bound, 3) for bound in wilson(0.5, 4)]
    [0.15, 0.85]
    """
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(max(0.0, share * (1 - share) / n + Z95**2 / (4 * n * n)))
    return max(0.0, round(centre - half, 6)), min(1.0, round(centre + half, 6))
