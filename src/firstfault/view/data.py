"""A tree as the page gets it: plain JSON values, texts that can be shown, numbers of few digits (see `plain`)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from firstfault.intervals import wilson
from firstfault.report.text import clean, shorten, state_value
from firstfault.tree import Call, Node, Tree

Decode = Callable[[tuple[int, ...]], str]


class Words:
    """The texts of tokens, each kept once. A character of several tokens stands with the last of them."""

    def __init__(self, decode: Decode):
        self.decode = decode
        self.table: dict[str, int] = {}

    def of(self, tokens: Sequence[int]) -> list[int]:
        """The places in the table of the texts of these tokens."""
        return [self.table.setdefault(piece, len(self.table)) for piece in pieces(tokens, self.decode)]


def pieces(tokens: Sequence[int], decode: Decode) -> list[str]:
    """What each token adds to the text. Each is decoded after the one before it, on which its spaces may depend."""
    found, start = [], 0
    for end in range(1, len(tokens) + 1):
        left = max(0, start - 1)
        known, text = decode(tuple(tokens[left:start])), decode(tuple(tokens[left:end]))
        if text.endswith("\ufffd") and end < len(tokens) and end - start < 4:  # a part of a character
            found.append("")
        else:
            found.append(text[len(known) :])
            start = end
    return found


def decoder(tokenizer: Any) -> Decode:
    """The texts of tokens by a tokenizer of transformers, special tokens included."""

    @lru_cache(maxsize=100_000)
    def decode(tokens: tuple[int, ...]) -> str:
        return tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False) if tokens else ""

    return decode


def summary(tree: Tree) -> dict[str, Any]:
    """A tree in the list of its iteration, and what the filters ask of it."""
    leaves = tree.leaves
    return plain({
        "question": shorten(tree.task.question, 160),
        "id": shorten(tree.task.id, 60),
        "runs": len(leaves),
        "won": sum(leaf.success is True for leaf in leaves),
        "lost": sum(leaf.success is False for leaf in leaves),
        "steps": len(tree.steps),
        "searches": len(tree.verdicts),
        "critical": sum(node.critical for node in tree.nodes),
        "gradient": tree.has_gradient,
    })  # fmt: skip


def payload(tree: Tree, credits: Sequence[dict[str, Any]], decode: Decode | None) -> dict[str, Any]:
    """All that the page knows of a tree."""
    words = Words(decode) if decode else None
    task = tree.task
    nodes = [_node(node, words) for node in tree.nodes]
    return plain({
        "task": {"question": task.question, "answer": task.answer, "id": task.id},
        "key": list(tree.key),
        "discarded": tree.discarded,
        "verdicts": [
            {**vars(v), "probes": [vars(p) for p in v.probes], "path": [n.index for n in tree.nodes[v.leaf].path]}
            for v in tree.verdicts
        ],
        "events": events(tree),
        "nodes": nodes,
        "words": list(words.table) if words else [],
        "credits": list(credits),
    })  # fmt: skip


def plain(value: Any) -> Any:
    """Numbers of five digits, null in the place of what JSON has no number for, and only what a page can show."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean(key): plain(of_key) for key, of_key in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _node(node: Node, words: Words | None) -> dict[str, Any]:
    """What differs from nothing."""
    found: dict[str, Any] = {
        "parent": node.parent.index if node.parent else None,
        "rollout": node.rollout,
        "probe": node.is_probe or None,
        "text": node.text or None,
        "calls": [_call(call) for call in node.calls] or None,
        "end": node.end,
        "answer": node.answer,
        "success": node.success,
        "reward": node.reward,
        "judged": node.judged if node.judged != node.reward else None,
        "critical": node.critical or None,
        "value": state_value(node) or None,
        "interval": _interval(node),
        "target": node.value_target,
        "tokens": len(node.action_tokens) or None,
        "entropies": node.entropies or None,
        "logprobs": node.logprobs or None,
        "reference": node.reference_logprobs or None,
    }
    if words:
        found["words"] = words.of(node.action_tokens) or None
        if node.parent is None:
            found["prompt"] = words.of(node.observation_tokens) or None
    return {key: value for key, value in found.items() if value is not None}


def _interval(node: Node) -> tuple[float, float] | None:
    """Of a value that is a mean of completions whose rewards are 0 or 1; the runs through the node include these."""
    is_share = node.value is not None and node.value_samples > 0 and all(leaf.reward in (0, 1) for leaf in node.leaves)
    return wilson(node.value, node.value_samples) if is_share else None


def _call(call: Call) -> dict[str, Any]:
    arguments = {
        str(k): v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in call.arguments.items()
    }
    return {"name": call.name, "arguments": arguments, "output": call.output, "failed": call.failed}


def events(tree: Tree) -> list[dict[str, Any]]:
    """What happened, in order: the rollouts as they were sampled, and after the last probe of a search its verdict."""
    leaf_of = {leaf.rollout: leaf for leaf in tree.leaves}
    order = sorted({node.rollout for node in tree.steps})
    search_of, verdict_after = {}, {}
    for number, verdict in enumerate(tree.verdicts):
        path = tree.nodes[verdict.leaf].path
        for probe in verdict.probes:
            anchor = path[probe.step]
            asked = [r for r in order if r in leaf_of and r not in search_of and leaf_of[r].anchor is anchor]
            search_of.update((rollout, (number, probe.step)) for rollout in asked[: probe.tries])
        mine = [rollout for rollout, (search, _) in search_of.items() if search == number]
        verdict_after.setdefault(max(mine, default=max(order, default=-1)), []).append(number)
    found = []
    for rollout in order:
        event: dict[str, Any] = {"rollout": rollout}
        if rollout in leaf_of:
            event["leaf"] = leaf_of[rollout].index
        if rollout in search_of:
            event["search"], event["after"] = search_of[rollout]
        found.append(event)
        found += [{"verdict": number} for number in verdict_after.get(rollout, [])]
    return found
