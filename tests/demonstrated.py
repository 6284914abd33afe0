"""Demonstrations as runs, and for real: what the tools answer to them."""

from __future__ import annotations

from collections.abc import Sequence

from firstfault.agent.calls import ParsedCall, tagged_calls
from firstfault.tasks import TaskSource
from firstfault.tasks.base import Turn
from firstfault.tools import Session
from firstfault.tree import Call, Node, Task, Tree


def calls(turn: Turn) -> list[ParsedCall]:
    """The calls that a turn makes, all of which can be read."""
    found = tagged_calls(turn.text)[1]
    assert not any(call.error for call in found)
    return found


def codes(turns: Sequence[Turn]) -> list[str]:
    return [call.arguments["code"] for turn in turns for call in calls(turn)]


def as_run(task: Task, turns: Sequence[Turn], success: bool) -> Node:
    """The leaf of a run that goes as the demonstration says."""
    node = Tree(task, prompt=[0]).root
    for turn in turns:
        node = Node(parent=node, index=0, rollout=0, text=turn.text)
        for call, output in zip(calls(turn), turn.outputs, strict=True):
            failed = "raised" if "Error" in output else None
            node.calls.append(Call(call.name, call.arguments, output, failed))
    node.end, node.answer, node.success = "answer", turns[-1].text, success
    return node


async def follow(source: TaskSource, task: Task, turns: Sequence[Turn], session: Session) -> tuple[list[Turn], bool]:
    """The turns with what the tools answer to their calls, and whether the run that they make is a success."""
    heard = []
    for turn in turns:
        outputs = [await session.call(call.name, call.arguments) for call in calls(turn)]
        heard.append(Turn(turn.text, tuple(output.text for output in outputs)))
    success, _ = await source.judge(task, turns[-1].text, session)
    return heard, success
