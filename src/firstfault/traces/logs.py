"""Logs of whole experiments: those of Inspect, and the trees files of our own runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from firstfault.agent.calls import OPEN, bare_call, tagged_calls
from firstfault.errors import what_is_wrong
from firstfault.traces.canonical import Asked, Draft, Facts, Refused, Said, is_success, refused, schemas
from firstfault.traces.messages import chat
from firstfault.tree import Node, Tree

INSPECT, TREES = "Inspect", "firstfault trees"


# Inspect


def inspect_log(log: dict[str, Any], where: str) -> Iterator[Draft]:
    """Every sample of a log as JSON."""
    samples = log.get("samples")
    if not isinstance(samples, list) or not samples:
        reason = "the log has no samples: it was read header_only, or was cut off; give the whole log."
        yield refused(INSPECT, where, reason)
        return
    for sample in samples:
        yield inspect_sample(sample if isinstance(sample, dict) else {}, where)


def inspect_sample(sample: dict[str, Any], where: str) -> Draft:
    """A sample, as it stands in a log as JSON or in a file of its own in a log as archive."""
    return Draft(INSPECT, where, f"{sample.get('id')}, epoch {sample.get('epoch')}", partial(_inspect, sample))


def _inspect(sample: dict[str, Any]) -> tuple[list[Said], Facts]:
    attachments = sample.get("attachments") or {}
    messages = [_attached(message, attachments) for message in sample.get("messages") or []]
    said = chat(messages)
    for message, one in zip(messages, said, strict=True):
        error = message.get("error")
        if one.role == "tool" and isinstance(error, dict):
            one.content = f"Error: {error.get('message')}"  # what Inspect sends to a model in the output's place
    tools = None
    for event in sample.get("events") or []:
        if isinstance(event, dict) and event.get("event") == "model" and event.get("tools"):
            tools = schemas(event["tools"])
    scores = sample.get("scores")
    known = [is_success(score.get("value")) for score in (scores or {}).values() if isinstance(score, dict)]
    known = [success for success in known if success is not None]
    target = sample.get("target")
    target = target[0] if isinstance(target, list) and len(target) == 1 else target  # of several, any would do
    return said, Facts(tools, all(known) if known else None, target if isinstance(target, str) and target else None)


def _attached(value: Any, attachments: dict[str, str]) -> Any:
    """The value with long texts, which Inspect keeps once and refers to, back in their places."""
    if isinstance(value, str) and value.startswith("attachment://"):
        if value.removeprefix("attachment://") not in attachments:
            raise Refused(f"it refers to a text that the log does not hold ({value}); give the whole log.")
        return attachments[value.removeprefix("attachment://")]
    if isinstance(value, dict):
        return {key: _attached(item, attachments) for key, item in value.items()}
    return [_attached(item, attachments) for item in value] if isinstance(value, list) else value


# Our own trees


def failed_runs(value: dict[str, Any], where: str) -> Iterator[Draft]:
    """Every failed run of a tree; a tree without one holds no trace."""
    try:
        tree = Tree.from_json(json.dumps(value))
        leaves = [leaf for leaf in tree.leaves if not leaf.success]
        task = tree.task.id or "-".join(map(str, tree.key)) or "tree"
    except (ValueError, RecursionError) as error:
        what = f"it is no tree that firstfault wrote ({what_is_wrong(error)})"
        yield refused(TREES, where, f"{what}; give a file of the trees/ of a run.")
        return
    for leaf in leaves:
        yield Draft(TREES, where, f"{task}/{leaf.index}", partial(_failed, tree, leaf))


def _failed(tree: Tree, leaf: Node) -> tuple[list[Said], Facts]:
    return _path(tree, leaf), Facts(None, False, tree.task.answer or None)


def _path(tree: Tree, leaf: Node) -> list[Said]:
    said = [Said(1, "user", tree.task.question)]
    for node in leaf.steps:
        calls = []
        for i, call in enumerate(node.calls):
            if call.failed == "malformed":
                raise Refused(
                    f"step {node.depth} makes a call that could not be read when it was made, and so can't be made "
                    "again; leave this run out."
                )
            calls.append(Asked(f"call_{node.depth}_{i + 1}", call.name, call.arguments))
        said.append(Said(len(said) + 1, "assistant", _spoken(node), calls))
        for call, made in zip(node.calls, calls, strict=True):
            said.append(Said(len(said) + 1, "tool", call.output, answers=made.id))
    return said


def _spoken(node: Node) -> str:
    """What the agent said in a step, without its calls and, where these follow, its thoughts."""
    if node.answer is not None:
        return node.answer
    if not node.calls:  # cut off, or out of steps
        return node.text
    text = node.text.partition("</think>")[2] if "</think>" in node.text else node.text
    return (tagged_calls(text) if OPEN in text else bare_call(text))[0].strip()
