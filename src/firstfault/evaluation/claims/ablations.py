"""Claim 7: each part of ELPO adds to it. And claim 8: its published settings are well chosen."""

from __future__ import annotations

from firstfault.evaluation.claims.compared import Compared, final
from firstfault.evaluation.claims.finding import Finding

PARTS = {  # the labels of what is left without a part
    "search=random": "without the search",
    "lambda_tree=0": "without branch advantages",
    "lambda_tree=1": "without trajectory advantages",
    "clip_low_extra=0": "without localized clipping",
}
OTHERWISE = {  # what the paper does not ablate, as far as it was compared
    "choice=random": "without the choice by entropy",
    "search=posterior": "with another search",
}
VARIED = ("lambda_tree=0", "lambda_tree=0.25", "lambda_tree=0.75", "lambda_tree=1",
          "clip_low_extra=0", "clip_low_extra=0.23")  # fmt: skip
ALSO = ("tries_max=1", "tries_max=5", "beta=1", "beta=20")
BUDGETS = ("rollouts=8", "rollouts=32")


def without_parts(compared: Compared) -> Finding:
    """ELPO less what is left without each of its parts; then less what the paper does not ablate."""
    parts = [compared.difference("elpo", method, final, "more", f"{{}} ({words})") for method, words in PARTS.items()]
    beside = [
        compared.difference("elpo", method, final, name=f"{{}} ({words})")
        for method, words in OTHERWISE.items()
        if method in compared.methods
    ]
    return compared.finding("ablations", parts, beside)


def other_settings(compared: Compared) -> Finding:
    """ELPO less other values of what the paper varies; then of what it does not, as far as it was compared."""
    differences = [compared.difference("elpo", method, final, "more") for method in VARIED]
    beside = [compared.difference("elpo", method, final) for method in ALSO if method in compared.methods]
    return compared.finding("sensitivity", differences, beside)


def other_budgets(compared: Compared) -> Finding:
    """ELPO at 16 rollouts a task less half and twice as many, with the same tokens for all."""
    return compared.finding(
        "rollouts", [compared.difference("rollouts=16", method, final, "more") for method in BUDGETS]
    )
