"""The metrics of an iteration; `report/metrics.py` explains each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from firstfault.credit import mean
from firstfault.losses import TermBatch
from firstfault.training.pack import Packed
from firstfault.tree import Tree


def tree_metrics(trees: Sequence[Tree], counts: Mapping[str, int]) -> dict[str, float]:
    """What the trees of an iteration say, and the `counts` of engine and agent since the last one."""
    leaves = [leaf for tree in trees for leaf in tree.leaves]
    whole = [leaf for leaf in leaves if not leaf.is_probe]
    calls = [call for tree in trees for node in tree.nodes for call in node.calls]  # those of trees that were kept
    verdicts = [verdict for tree in trees for verdict in tree.verdicts]
    counts = Counter(counts)
    return {
        "success": mean([leaf.success for leaf in leaves]),
        "success_whole": mean([leaf.success for leaf in whole]),
        "reward": mean([leaf.reward for leaf in leaves]),
        "zero_gradient_groups": mean([not tree.has_gradient for tree in trees]),
        "rollouts": counts["rollouts"],
        "probes": counts["probes"],
        "searches": len(verdicts),
        "searches_finished": sum(verdict.finished for verdict in verdicts),
        "discarded": sum(tree.discarded for tree in trees),
        "critical_steps": sum(verdict.marked for verdict in verdicts),
        "steps_per_run": mean([leaf.depth for leaf in leaves]),
        "answered": mean([leaf.end == "answer" for leaf in leaves]),
        "generated_tokens": counts["generated_tokens"],
        "computed_tokens": counts["computed_tokens"],
        "recomputed_tokens": counts["recomputed_tokens"],
        "batch_occupancy": counts["rows"] / max(1, counts["passes"]),
        "tool_calls": counts["tool_calls"],
        "tool_failures": counts["tool_failures"],
        "seconds_tools": sum(call.seconds for call in calls),
    }


@torch.no_grad()
def count_clipped(terms: TermBatch, packed: Packed, sums: dict[str, float]) -> None:
    """Terms, those whose gradient the clip cuts off, and both again from a critical step on."""
    ratios, localized = terms.ratios, packed.localized[packed.term_token]
    clipped = ((terms.advantages > 0) & (ratios > 1 + terms.clip_high)) | (
        (terms.advantages < 0) & (ratios < 1 - terms.clip_low)
    )
    sums["terms"] += len(ratios)
    sums["clip_share"] += clipped.sum().item()
    sums["localized_terms"] += localized.sum().item()
    sums["clip_share_localized"] += clipped[localized].sum().item()


@torch.no_grad()
def measure(terms: TermBatch, packed: Packed, entropies: Tensor, sums: dict[str, float]) -> None:
    """Add up what a micro-batch says of the policy, for `means`."""
    ratios = terms.ratios
    count_clipped(terms, packed, sums)
    if terms.reference_logprobs is not None:
        d = terms.reference_logprobs - terms.logprobs
        sums["kl_reference"] += (d.exp() - d - 1).sum().item()
    if terms.values is not None:
        sums["states"] += len(terms.values)
        sums["value_error"] += (terms.values - terms.value_targets).square().sum().item()
    sums["ratio_mean"] += ratios.sum().item()
    sums["ratio_distance"] += (ratios - 1).abs().sum().item()
    sums["kl_sampler"] += (ratios - 1 - ratios.log()).sum().item()  # k3 estimate of KL(sampler || policy)
    sums["entropy"] += entropies.sum().item()
    sums["action_tokens"] += len(entropies)


def means(sums: dict[str, float]) -> dict[str, float]:
    """Metrics of an iteration's updates; what one that had no gradient can't tell is left out."""
    over = {
        "updates": ("loss", "gradient_norm"),
        "action_tokens": ("entropy",),
        "terms": ("kl_sampler", "kl_reference", "ratio_mean", "ratio_distance", "clip_share", "localized_terms"),
        "states": ("value_error",),
        "localized_terms": ("clip_share_localized",),
    }
    found = {
        name: sums[name] / sums[count]
        for count, names in over.items()
        for name in names
        if sums[count] and name in sums
    }
    if "localized_terms" in found:
        found["localized_share"] = found.pop("localized_terms")
    return {**found, **{name: sums[name] for name in ("updates", "skipped_updates", "trained_tokens")}}
