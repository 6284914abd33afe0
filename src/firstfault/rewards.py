"""Rewards that any method can use in the place of the judge's: functions of a leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from firstfault.tree import Node

RewardName = Literal["judge", "signed", "turns", "tools", "progressive"]


def judge(leaf: Node) -> float:
    """As the task's judge gave it."""
    return (leaf.reward if leaf.judged is None else leaf.judged) or 0.0


def signed(leaf: Node) -> float:
    """+1 for a success, -1 for a failure (ToRL, arXiv 2503.23383)."""
    return 1.0 if leaf.success else -1.0


def turns(leaf: Node) -> float:
    """+1 for a success; for a failure min(-0.6, -1 + 0.1 (turns - 2) / 2) (DemyAgent, arXiv 2510.11701).

    Turns are messages: the question, what the agent wrote and what the tools answered, so two for each step. A failure
    that tried tools is less bad than one that did not:

    >>> from firstfault.tree import Task, Tree
    >>> def failure(steps):
    ...     tree = Tree(Task("q", "a"), prompt=[1])
    ...     node = tree.root
    ...     for _ in range(steps):
    ...         node = tree.add(node, rollout=0)
    ...     return turns(node)
    >>> [round(failure(steps), 2) for steps in (1, 2, 5, 9)]
    [-1.0, -0.9, -0.6, -0.6]
    """
    return 1.0 if leaf.success else min(-0.6, -1 + 0.1 * (2 * leaf.depth - 2) / 2)


def tools(leaf: Node) -> float:
    """-1 if the run broke its format, else the judge's reward, and 0.1 more for a success with two tools or more.

    ARPO (arXiv 2507.19849), whose agents have a search engine and Python.
    """
    used = {call.name for step in leaf.steps for call in step.calls if call.failed is None}
    return judge(leaf) + 0.1 * bool(leaf.success and len(used) > 1) if has_format(leaf) else -1.0


def has_format(leaf: Node) -> bool:
    """Whether every call of the run was well formed and it ended with an answer."""
    return leaf.end == "answer" and all(call.failed != "malformed" for step in leaf.steps for call in step.calls)


def progressive(leaf: Node) -> float:
    """Form first, then quality: 0 if the run broke its format, else 0.1 + 0.9 times the judge's reward.

    PRS (arXiv 2512.07478). The paper's values of the stages are unpublished; these are ours.
    """
    return 0.1 + 0.9 * judge(leaf) if has_format(leaf) else 0.0


REWARDS: dict[str, Callable[[Node], float]] = {
    "judge": judge,
    "signed": signed,
    "turns": turns,
    "tools": tools,
    "progressive": progressive,
}
