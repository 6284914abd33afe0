"""Claim 3 (Table 1): ELPO succeeds more often than the other methods."""

from __future__ import annotations

from firstfault.evaluation.claims.compared import Compared, final
from firstfault.evaluation.claims.finding import Finding

PAPER = 60.7  # % of ELPO, the average of seven benchmarks, Qwen2.5-7B
BASELINES = {"grpo": 51.2, "arpo": 55.9, "aepo": 56.7, "torl": 57.0, "cir": 58.4, "grpo-tcr": 59.4}


def finding(compared: Compared) -> Finding:
    """ELPO less each of the paper's baselines that was compared; what others reach stands beside, and claims nothing.

    Whatever the paper has is for points of a hundred, ours for shares.
    """
    differences = [
        compared.difference("elpo", method, final, f"+{PAPER - BASELINES[method]:.1f} points")
        for method in compared.methods
        if method in BASELINES
    ]
    beside = [
        compared.difference("elpo", method, final)
        for method in compared.methods
        if method != "elpo" and method not in BASELINES
    ]
    missing = [method for method in BASELINES if method not in compared.methods]
    notes = [f"of the paper's baselines, {', '.join(missing)} were not compared"] if missing else []
    return compared.finding("main", differences, beside, notes=notes)
