"""The metrics of an iteration, each with the sentence that the report and the docs show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from firstfault.credit import mean
from firstfault.losses import TermBatch
from firstfault.training.pack import Packed
from firstfault.tree import Tree

METRICS = {
    "iteration": "number of the batch of tasks: explored, credited, learnt from",
    "success": "share of the rollouts that succeeded; with an adaptive method not a learning curve, since hard tasks "
    "get other rollouts than easy ones",
    "success_whole": "the same over whole rollouts, those that started at the prompt; it differs between methods that "
    "draw more of them where some fail and those that don't",
    "reward": "mean reward of the rollouts",
    "zero_gradient_groups": "share of the trees in which no step has an advantage: they teach nothing",
    "entropy": "mean entropy (nats) of the policy at the tokens it is trained on",
    "kl_sampler": "mean divergence (nats, k3 estimate) of the policy from the one that sampled the batch",
    "kl_reference": "the same from the policy that training began with; only where the method asks for it",
    "value_error": "mean squared error of the critic over the states it learns from; only where there is one",
    "ratio_mean": "mean probability ratio between the policy and the one that sampled",
    "ratio_distance": "mean distance of that ratio from 1; at 0 no clip can bind",
    "clip_share": "share of the terms whose gradient the clip cuts off",
    "clip_share_localized": "the same among terms from a critical step on",
    "localized_share": "share of the terms that are from a critical step on",
    "loss": "mean loss of the updates; its size says nothing about progress",
    "gradient_norm": "mean norm of the gradient, before it is scaled down",
    "updates": "optimizer updates of the iteration",
    "skipped_updates": "mini-batches in which no tree had a gradient",
    "tasks": "tasks that were due; a method may draw others, too",
    "rollouts": "completions sampled, whole or from the middle of a run, whatever became of them",
    "probes": "those of them that were sampled from the middle of a run",
    "searches": "searches for a critical step",
    "searches_finished": "those of them that came to an answer to rely on",
    "discarded": "rollouts taken back because their tools could not be brought to where they stood",
    "critical_steps": "searches whose verdict the method used",
    "steps_per_run": "mean number of steps of a rollout, shared ones included",
    "answered": "share of the rollouts that ended with an answer, not at a limit",
    "generated_tokens": "tokens sampled",
    "computed_tokens": "tokens that went through the model while sampling, prompts and tool outputs included",
    "recomputed_tokens": "those of them whose keys and values had been computed before under the same weights",
    "trained_tokens": "unique tokens that went through the model in training",
    "batch_occupancy": "mean number of completions that were decoded together",
    "tool_calls": "tool calls made",
    "tool_failures": "those of them that gave no normal result",
    "seconds_explore": "time spent on sampling, tools included",
    "seconds_tools": "time that rollouts waited for tools, summed over rollouts side by side",
    "seconds_update": "time spent on training",
    "peak_memory_mb": "most memory (MB) that the process has had by then, evaluations included; on a GPU that of its "
    "tensors there, else all of the process, libraries included",
}


def tree_metrics(trees: Sequence[Tree], counts: Mapping[str, int]) -> dict[str, float]:
    """What the trees of an iteration say, and the `counts` of engine and agent since the last one."""
    leaves = [leaf for tree in trees for leaf in tree.leaves]
    whole = [leaf for leaf in leaves if leaf.anchor.parent is None]
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
