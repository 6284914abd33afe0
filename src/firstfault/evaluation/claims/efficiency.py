"""Claim 5: along training, ELPO gets more success out of a tool call."""

from __future__ import annotations

import numpy as np

from firstfault.evaluation.claims.compared import Compared, per_call
from firstfault.evaluation.claims.finding import Finding
from firstfault.evaluation.claims.success import BASELINES
from firstfault.evaluation.results import Kept, along, spent


def by_calls(a: Kept, b: Kept) -> np.ndarray | None:
    """The first run's success less the second's, of each problem: means along the tool calls that training made.

    They are compared up to where the run that made fewer ended. Of one problem, which is solved from the 10th call on:

    >>> records = lambda *calls: [
    ...     {"spent": {"tool_calls": n}, "outcomes": {"sampled": [float(n > 0)]}} for n in (0, *calls)
    ... ]
    >>> by_calls({"evaluations": records(10, 20)}, {"evaluations": records(20)}).tolist()
    [0.25]
    """
    limit = min(spent(kept, "tool_calls")[-1] for kept in (a, b))
    return along(a, "tool_calls", limit) - along(b, "tool_calls", limit) if limit > 0 else None


def finding(compared: Compared) -> Finding:
    """Successes per call of held-out runs; beside it, success along the calls that training itself made."""
    others = [method for method in compared.methods if method in BASELINES]
    levels = compared.levels(per_call, "{}: successes per 100 calls")
    differences = [
        compared.difference("elpo", method, per_call, "more", "{}: successes per 100 calls") for method in others
    ]
    beside = [
        compared.figure(f"elpo - {method}: success along training's calls", ["elpo", method], by_calls)
        for method in others
    ]
    return compared.finding("efficiency", differences, beside, levels)
