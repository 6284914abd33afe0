"""Claim 9: in training, more of ELPO's groups have a gradient, and it succeeds more often; and how its entropy goes."""

from __future__ import annotations

import numpy as np

from firstfault.evaluation.claims.compared import Compared, mean_of
from firstfault.evaluation.claims.finding import Finding
from firstfault.evaluation.results import Kept, along, spent


def gradient_share(kept: Kept) -> float | None:
    """Share of the groups that teach something.

    >>> gradient_share({"iterations": [{"zero_gradient_groups": 0.25}, {"zero_gradient_groups": 0.0}]})
    0.875
    """
    without = mean_of("zero_gradient_groups")(kept)
    return None if without is None else 1 - without


def success(kept: Kept) -> np.ndarray:
    """Of held-out runs: a method that draws more rollouts where some fail has other ones in training than GRPO has."""
    return along(kept, "iterations", spent(kept, "iterations")[-1])


MEASURES = {  # all of them means over iterations
    "groups with a gradient": gradient_share,
    "success": success,
    "entropy": mean_of("entropy"),
}


def finding(compared: Compared) -> Finding:
    """Each measure of every method, and ELPO's less GRPO's. Entropy claims nothing: neither way is better in itself."""
    levels = [level for name, measure in MEASURES.items() for level in compared.levels(measure, f"{{}}: {name}")]
    differences = [
        compared.difference("elpo", "grpo", measure, "" if name == "entropy" else "more", f"{{}}: {name}")
        for name, measure in MEASURES.items()
    ]
    return compared.finding("dynamics", differences[:2], differences[2:], levels)
