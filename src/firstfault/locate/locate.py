"""The step where a recorded run of any agent was lost."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.localize import Posterior, localize
from firstfault.locate.check import Check, by_answer, by_function
from firstfault.locate.endpoint import Message
from firstfault.locate.resume import Recorded, Resumptions, Writer, recorded_calls
from firstfault.tools import FunctionTool, Session, Tool
from firstfault.traces import Trace
from firstfault.tree import Node, Tree, Verdict


@dataclass
class Point:
    """What completions after `step` steps did; `low` to `high` is a 95 % interval of their success (Wilson)."""

    step: int
    tries: int
    successes: int

    @property
    def share(self) -> float:
        return self.successes / self.tries

    @property
    def interval(self) -> tuple[float, float]:
        """
        >>> [round(end, 2) for end in Point(3, 4, 0).interval], [round(end, 2) for end in Point(3, 4, 2).interval]
        ([0.0, 0.49], [0.15, 0.85])
        """
        n, p, z = self.tries, self.share, 1.96
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


@dataclass
class Location:
    """Where a run was lost, and the evidence.

    `curve` has a point for every step that was tried. `instead` are the messages that the agent wrote in the place of
    the step at fault in runs that then succeeded. The tree has the record as rollout 0 and all completions.
    """

    trace: Trace
    verdict: Verdict
    tree: Tree
    curve: list[Point]
    instead: list[Message]

    @property
    def step(self) -> int | None:
        """The first irrecoverable step, from 1; None if there seems to be none."""
        return self.verdict.step if self.verdict.step <= self.verdict.steps else None

    @property
    def at_fault(self) -> Message | None:
        """What the agent wrote in that step."""
        return self.trace.messages[self.trace.steps[self.step - 1][0]] if self.step else None

    def in_words(self) -> str:
        """The finding in a sentence."""
        sure = f"probability {self.verdict.probability:.2f}"
        if self.step is None:
            return f"None of the {self.verdict.steps} steps lost this run ({sure}): it can be saved after all of them."
        if not self.verdict.finished:
            return f"Step {self.step} of {self.verdict.steps} may have lost this run ({sure}); try more completions."
        before, behind = (
            f"{sum(p.successes for p in points)} of {sum(p.tries for p in points)}"
            for lost in (False, True)
            for points in [[p for p in self.curve if (p.step >= self.step) == lost]]
        )
        return (
            f"Step {self.step} of {self.verdict.steps} lost this run ({sure}): from before it {before} completions "
            f"succeed, from behind it {behind}."
        )

    def pairs(self) -> list[dict[str, Any]]:
        """Preference pairs at the step at fault, in TRL's conversational form."""
        if self.step is None:
            return []
        tools = {"tools": self.trace.tools} if self.trace.tools else {}
        prompt = self.trace.prefix(self.step - 1)
        return [{"prompt": prompt, "chosen": [m], "rejected": [self.at_fault], **tools} for m in self.instead]

    def to_json(self) -> dict[str, Any]:
        return {
            "trace": self.trace.id,
            "in_words": self.in_words(),
            "step": self.step,
            "steps": self.verdict.steps,
            "probability": self.verdict.probability,
            "finished": self.verdict.finished,
            "lost_by_step": self.verdict.weights,
            "curve": [
                {"step": p.step, "tries": p.tries, "successes": p.successes, "interval": p.interval} for p in self.curve
            ],
            "at_fault": self.at_fault,
            "instead": self.instead,
        }


def locate(
    trace: Trace,
    writer: Writer,
    tools: Sequence[Callable[..., Any] | Tool] = (),
    *,
    check: Check | Callable[[list[Message]], Any] | None = None,
    answer: str | None = None,
    system: str = "",
    side_effects: Sequence[str] = (),
    budget: int = 24,
    together: int = 2,
    judge_error: float = 0.001,
    max_steps: int | None = None,
    tool_timeout: float = 60.0,
    done: Callable[[], None] = lambda: None,
) -> Location:
    """Find the first irrecoverable step of a failed run, by completions from its steps.

    Args:
        trace: the run, see `traces.read_traces`.
        writer: what writes the agent's messages, such as `Endpoint("my-model", "http://localhost:8000/v1")`.
        tools: functions with a docstring and type hints, or `Tool`s; called live, in the state the run had.
        check: whether the run of these messages is a success. Without it, `answer` or the trace's own has to stand in
            the last message.
        system: the agent's system message, where the trace has none.
        side_effects: functions that are never called: they answer what the record has.
        budget: completions.
        together: completions at a time; more are faster, and find a little less.
        judge_error: how often the check takes a failure for a success.
        max_steps: most steps of a run; by default twice those of the record and ten more.
        tool_timeout: seconds of a call.
        done: called after each completion.

    Raises:
        UserError: if the run can't be taken up as it was, or was a success.
    """
    if system and trace.messages[0]["role"] != "system":
        trace = replace(trace, messages=[{"role": "system", "content": system}, *trace.messages])
    return asyncio.run(
        _locate(trace, writer, tools, _check(trace, check, answer), side_effects, budget, together, judge_error,
                max_steps, tool_timeout, done)
    )  # fmt: skip


def _check(trace: Trace, check: Any, answer: str | None) -> Check:
    if check is not None:
        return by_function(check)
    expected = answer if answer is not None else trace.answer
    if expected is None:
        raise UserError(
            f"trace {trace.id} has no expected answer, so nothing says what a success is; give a check, an answer, or "
            "a judge with a rubric."
        )
    return by_answer(expected)


async def _locate(
    trace: Trace, writer: Writer, tools: Sequence[Any], check: Check, side_effects: Sequence[str], budget: int,
    together: int, judge_error: float, max_steps: int | None, tool_timeout: float, done: Callable[[], None],
) -> Location:  # fmt: skip
    made = [tool if isinstance(tool, Tool) else FunctionTool(tool) for tool in tools]
    session = Session(_tools(trace, made, side_effects), timeout=tool_timeout, max_output=1_000_000)
    resumed = Resumptions(trace, writer, session, check, budget, max_steps=max_steps, done=done)
    try:
        async with resumed:
            if resumed.failed.success:
                raise UserError(f"the check says that the run of trace {trace.id} is a success; give one that failed.")
            search = Posterior(trace.tool_steps, leak=judge_error)
            [verdict] = await localize({resumed.failed: search}, resumed, together=together)
            return _location(resumed, verdict)
    finally:
        await session.close()
        await writer.close()


def _tools(trace: Trace, tools: Sequence[Tool], side_effects: Sequence[str]) -> list[Tool]:
    """The live tools, and one that answers for those which must not be called.

    Raises:
        UserError: if the record calls a function that there is not.
    """
    live = [tool for tool in tools if not any(s["function"]["name"] in side_effects for s in tool.schemas)]
    there = {schema["function"]["name"] for tool in live for schema in tool.schemas} | set(side_effects)
    for name, *_ in recorded_calls(trace):
        if name not in there:
            raise UserError(
                f"trace {trace.id} calls {name!r}, which is none of the tools ({', '.join(sorted(there)) or 'none'}); "
                f"give it with --tools, or answer it from the record with --side-effects {name}."
            )
    return [*live, Recorded(trace, list(side_effects))] if side_effects else live


def _location(resumed: Resumptions, verdict: Verdict) -> Location:
    tree, run = resumed.tree, resumed.failed.steps
    verdict.marked = verdict.finished and verdict.step <= verdict.steps
    tree.verdicts.append(verdict)
    completions: dict[Node, list[Node]] = {node: [] for node in run[:-1]}
    for leaf in tree.leaves:
        if leaf.rollout:
            completions[leaf.anchor].append(leaf)
    curve = [Point(n.depth, len(c), sum(leaf.success for leaf in c)) for n, c in completions.items() if c]
    instead: list[Message] = []
    if verdict.step <= verdict.steps:
        run[verdict.step - 1].critical = verdict.marked
        before = run[verdict.step - 1].parent
        said = len(resumed.messages(before))
        for leaf in completions.get(before, []):
            message = resumed.messages(leaf)[said]
            if leaf.success and message not in instead:
                instead.append(message)
    return Location(resumed.trace, verdict, tree, curve, instead)


def save_pairs(pairs: Sequence[dict[str, Any]], path: Path) -> None:
    """A pair a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), encoding="utf-8")
