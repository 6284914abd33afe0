"""Claims of other papers, on the runs of a comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from firstfault.evaluation.claims.compared import Compared, final, spend
from firstfault.evaluation.claims.finding import Finding
from firstfault.evaluation.results import Kept, along, peak_memory


def vppo(compared: Compared) -> Finding:
    """VPPO (2601.18984) is better than GRPO."""
    claimed = compared.difference("vppo", "grpo", final, "+1.7 points (33.7, 35.4)")
    beside = [compared.difference("vppo-uncut", "grpo", final)] if "vppo-uncut" in compared.methods else []
    return compared.finding("vppo", [claimed], beside)


def vspo(compared: Compared) -> Finding:
    """VSPO's sampler (2512.07478) without its smoothing is far worse than GRPO, with it better."""
    differences = [
        compared.difference("grpo", "vspo-unsmoothed", final, "far more"),
        compared.difference("vspo", "grpo", final, "+2.3 points (39.6, 41.9)"),
    ]
    return compared.finding("vspo", differences, [compared.difference("vspo", "prs", final, "+0.9 points")])


def arpo(compared: Compared) -> Finding:
    """ARPO (2507.19849) is better than GRPO with half of its tool calls in training."""
    differences = [
        replace(compared.saved("arpo", "grpo", spend("tool_calls"), "0.5", "tool calls saved, {}"), size=0.5),
        compared.difference("arpo", "grpo", final, "+1.8 points (56.5, 58.3)"),
    ]
    return compared.finding("arpo", differences)


def early(kept: Kept) -> np.ndarray | None:
    """The mean success along the first half of training, for each problem; None if nothing was evaluated there."""
    half = kept["evaluations"][-1]["iteration"] / 2
    seen = any(0 < record["iteration"] <= half for record in kept["evaluations"])
    return along(kept, "iterations", half) if seen else None


def prs(compared: Compared) -> Finding:
    """With the progressive reward (2512.07478), GRPO learns faster at first."""
    claimed = compared.difference("prs", "grpo", early, "faster", "{}: first half of training")
    beside = [compared.difference("prs", "grpo", final, "+1.4 points (39.6, 41.0)", "{}: after training")]
    return compared.finding("prs", [claimed], beside)


def astarpo(compared: Compared) -> Finding:
    """A*-PO (2505.20686) takes less time and memory than GRPO and PPO."""
    papers = {"grpo": ("0.46 (20.2 h, 11.0 h)", "0.01"), "ppo": ("some", "some")}
    differences = [
        compared.saved("astarpo", other, measure, paper, f"{name} saved, {{}}")
        for other, of_paper in papers.items()
        for name, measure, paper in zip(("time", "memory"), (spend("seconds"), peak_memory), of_paper, strict=True)
    ]
    beside = [compared.difference("astarpo", other, final) for other in papers]
    if "rebel" in compared.methods:
        beside.append(compared.saved("astarpo", "rebel", peak_memory, "0.3", "memory saved, {}"))
    return compared.finding("astarpo", differences, beside)
