"""The step where a recorded run of any agent was lost."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firstfault.agent.calls import as_object
from firstfault.errors import UserError
from firstfault.files import write_whole
from firstfault.intervals import wilson
from firstfault.localize import Posterior, localize
from firstfault.locate.check import Check, by_answer, by_function
from firstfault.locate.resume import Recorded, Resumptions, recorded_calls
from firstfault.tools import FunctionTool, Session, Tool
from firstfault.tools.arguments import Schema
from firstfault.traces import Trace
from firstfault.tree import Node, Tree, Verdict
from firstfault.writers.base import Message, Writer


@dataclass
class Point:
    """What completions after `step` steps did, and the 95 % `interval` of their success (Wilson)."""

    step: int
    tries: int
    successes: int

    @property
    def share(self) -> float:
        return self.successes / self.tries

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.share, self.tries)


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
        return self.verdict.step if self.verdict.names_step else None

    @property
    def is_found(self) -> bool:
        """Whether there is such a step, and it is more likely than not."""
        return self.verdict.marked

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
        before, after = (
            f"{sum(p.successes for p in points)} of {sum(p.tries for p in points)}"
            for lost in (False, True)
            for points in [[p for p in self.curve if (p.step >= self.step) == lost]]
        )
        return (
            f"Step {self.step} of {self.verdict.steps} lost this run ({sure}): from before it {before} completions "
            f"succeed, from after it {after}."
        )

    def pairs(self) -> list[dict[str, Any]]:
        """Preference pairs at the step at fault, in TRL's conversational form."""
        if not self.is_found:
            return []
        tools = {"tools": self.trace.tools} if self.trace.tools else {}
        prompt = _for_templates(self.trace.messages[: self.trace.steps[self.step - 1][0]])
        rejected = _for_templates([self.at_fault])
        return [{"prompt": prompt, "chosen": _for_templates([m]), "rejected": rejected, **tools} for m in self.instead]

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


def locate(trace: Trace, writer: Writer, tools: Sequence[Callable[..., Any] | Tool] = (), **options: Any) -> Location:
    """Find the first irrecoverable step of a failed run, by completions from its steps. See `locate_async`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(locate_async(trace, writer, tools, **options))
    raise UserError("locate() can't run inside a running event loop, such as a notebook's; await locate_async(...).")


async def locate_async(
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
        tools: functions with a docstring and type hints, or `Tool`s in the state in which the run began; called live,
            in copies of that state.
        check: whether the run of these messages is a success: a number of at least 0.5, or True; may be async. Without
            it, `answer` or the trace's own has to stand in the last message.
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
    trace = _complete(trace, system)
    made = [tool if isinstance(tool, Tool) else FunctionTool(tool) for tool in tools]
    session = Session(_tools(trace, made, side_effects), timeout=tool_timeout, max_output=1_000_000)
    judged = by_function(check) if check is not None else _by_answer(trace, answer)
    resumed = Resumptions(trace, writer, session, judged, budget, max_steps=max_steps, done=done)
    try:
        async with resumed:
            if resumed.failed.success:
                raise UserError(f"the check says that the run of trace {trace.id} is a success; give one that failed.")
            search = Posterior(trace.tool_steps, leak=judge_error)
            [verdict] = await localize({resumed.failed: search}, resumed, together=together)
            return _location(resumed, verdict)
    finally:
        await writer.close()


def _complete(trace: Trace, system: str) -> Trace:
    """The trace with its system message.

    Raises:
        UserError: if it is not one request and what the agent made of it.
    """
    if system and trace.messages[0]["role"] == "system":
        raise UserError(f"trace {trace.id} has a system message; leave out --system.")
    expected = len(trace.prefix(0))
    for number, (start, end) in enumerate(trace.steps, 1):
        if start != expected:
            raise UserError(
                f"trace {trace.id} has messages of the {trace.messages[expected]['role']} between its steps "
                f"{number - 1} and {number}, which a completion would not meet; give runs that follow one request."
            )
        expected = end
    return replace(trace, messages=[{"role": "system", "content": system}, *trace.messages]) if system else trace


def _by_answer(trace: Trace, answer: str | None) -> Check:
    expected = answer if answer is not None else trace.answer
    if expected is None:
        raise UserError(
            f"trace {trace.id} has no expected answer, so nothing says what a success is; give a check, an answer, or "
            "a judge with a rubric."
        )
    return by_answer(expected)


def _tools(trace: Trace, tools: Sequence[Tool], side_effects: Sequence[str]) -> list[Tool]:
    """The live tools, and one that answers in the place of the functions that must not be called.

    Raises:
        UserError: if the record calls a function that there is not, or `side_effects` has one that nobody knows.
    """
    live = {schema["function"]["name"]: schema for tool in tools for schema in tool.schemas}
    told = {schema["function"]["name"]: schema for schema in trace.tools or []}
    called = {name for name, *_ in recorded_calls(trace)}
    for name in side_effects:
        if name not in live and name not in told and name not in called:
            raise UserError(f"side effects {name!r}: neither the tools nor trace {trace.id} have such a function.")
    for name in sorted(called - set(live) - set(side_effects)):
        raise UserError(
            f"trace {trace.id} calls {name!r}, which is none of the tools ({', '.join(sorted(live)) or 'none'}); give "
            f"it with --tools, or answer it from the record with --side-effects {name}."
        )
    recorded = [live.get(name) or told.get(name) or _unknown(name) for name in side_effects]
    return [*tools, Recorded(trace, recorded)]  # of two functions of a name, a session takes the last


def _unknown(name: str) -> Schema:
    parameters = {"type": "object", "properties": {}, "additionalProperties": True}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


def _location(resumed: Resumptions, verdict: Verdict) -> Location:
    tree, record = resumed.tree, resumed.failed.path
    verdict.marked = verdict.finished and verdict.names_step
    tree.verdicts.append(verdict)
    completions: dict[Node, list[Node]] = {node: [] for node in record[:-1]}
    for leaf in tree.leaves:
        if leaf.rollout:
            completions[leaf.anchor].append(leaf)
    curve = [Point(n.depth, len(c), sum(leaf.success for leaf in c)) for n, c in completions.items() if c]
    instead: list[Message] = []
    if verdict.marked:
        record[verdict.step].critical = True
        before = record[verdict.step - 1]
        said = len(resumed.messages(before))
        known = [_action_of(resumed.messages(record[verdict.step])[said])]
        for leaf in completions[before]:
            message = resumed.messages(leaf)[said]
            if leaf.success and _action_of(message) not in known:
                known.append(_action_of(message))
                instead.append(message)
    return Location(resumed.trace, verdict, tree, curve, instead)


def _action_of(message: Message) -> tuple[str, list[Any]]:
    """What a message does, whatever ids its calls have."""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    return message["content"], [(call["name"], as_object(call["arguments"])) for call in calls]


def _for_templates(messages: Sequence[Message]) -> list[Message]:
    """Messages as TRL's data sets have them, and chat templates: arguments as objects, results with a name."""
    names: dict[str, str] = {}
    found = []
    for message in copy.deepcopy(list(messages)):
        for call in message.get("tool_calls", ()):
            function = call["function"]
            names[call["id"]], function["arguments"] = function["name"], as_object(function["arguments"])
        if message["role"] == "tool":
            message["name"] = names[message["tool_call_id"]]
        found.append(message)
    return found


def save_pairs(pairs: Sequence[dict[str, Any]], path: Path) -> None:
    """A pair a line."""
    write_whole(path, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
