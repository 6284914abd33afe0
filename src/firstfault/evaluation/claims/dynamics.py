"""Claim 9: in training, more of ELPO's groups have a gradient, and its reward is higher; and how its entropy goes."""

from __future__ import annotations

from firstfault.evaluation.claims.compared import Compared, mean_of
from firstfault.evaluation.claims.finding import Finding, judged
from firstfault.evaluation.findings import Kept


def gradient_share(kept: Kept) -> float | None:
    """Share of the groups that teach something.

    >>> gradient_share({"iterations": [{"zero_gradient_groups": 0.25}, {"zero_gradient_groups": 0.0}]})
    0.875
    """
    without = mean_of("zero_gradient_groups")(kept)
    return None if without is None else 1 - without


MEASURES = {  # all of them means over iterations
    "groups with a gradient": gradient_share,
    "reward of whole rollouts": mean_of("success_whole"),  # before any shaping: what all methods have alike
    "entropy": mean_of("entropy"),
}


def finding(compared: Compared) -> Finding:
    """Each measure of every method, and ELPO's less GRPO's. Entropy claims nothing: neither way is better in itself."""
    levels = [level for name, measure in MEASURES.items() for level in compared.levels(measure, f"{{}}: {name}")]
    differences = [
        compared.difference("elpo", "grpo", measure, "" if name == "entropy" else "more", f"{{}}: {name}")
        for name, measure in MEASURES.items()
    ]
    verdict, why = judged(differences[:2])
    return Finding("dynamics", compared.family, [*levels, *differences], verdict, why)
