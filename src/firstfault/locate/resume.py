"""A recorded run of any agent, taken up again after any of its steps, with its model and its tools live."""

from __future__ import annotations

import ast
import asyncio
import copy
import json
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from firstfault.agent.base import Rollouts
from firstfault.agent.calls import check_call
from firstfault.agent.rollouts import make_call, side_by_side
from firstfault.errors import UserError
from firstfault.text import one_line
from firstfault.tools.arguments import Schema
from firstfault.tools.base import ReplayError, Session, Tool
from firstfault.traces import Trace
from firstfault.tree import Call, Node, Task, Tree
from firstfault.writers.base import Message, Refused, Writer
from firstfault.writers.step import take_step

Check = Callable[[list[Message]], Awaitable[bool]]


class Recorded(Tool):
    """Functions that are never called: they answer what the record has, in its order.

    A call with other arguments than any in the record gets what the function has answered last in its own run.
    """

    keeps_time = True

    def __init__(self, trace: Trace, schemas: Sequence[Schema]):
        self.schemas = schemas
        self._answers: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._last: dict[str, str] = {}
        self._given: Counter[tuple[str, str]] = Counter()
        for name, arguments, output in recorded_calls(trace):
            self._answers[name, _key(arguments)].append(output)

    def check(self, schema: Schema, arguments: Any) -> str | None:
        return None  # the record's own calls need not fit what it says of its tools

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        asked = name, _key(arguments)
        answers = self._answers.get(asked) or [self._last.get(name, "done")]
        self._given[asked] += 1
        self._last[name] = answers[min(self._given[asked], len(answers)) - 1]
        return self._last[name]

    def fork(self) -> Recorded:
        forked = copy.copy(self)
        forked._given, forked._last = self._given.copy(), self._last.copy()
        return forked


def _key(arguments: Any) -> str:
    return json.dumps(arguments, sort_keys=True)


def recorded_calls(trace: Trace) -> list[tuple[str, dict[str, Any], str]]:
    """Name, arguments and output of every call of a trace that has an output."""
    found = []
    for start, end in trace.steps:
        outputs = {message["tool_call_id"]: message["content"] for message in trace.messages[start + 1 : end]}
        for call in trace.messages[start].get("tool_calls", ()):
            if call["id"] in outputs:
                arguments = json.loads(call["function"]["arguments"])
                found.append((call["function"]["name"], arguments, outputs[call["id"]]))
    return found


class Resumptions(Rollouts):
    """Completions after the steps of a recorded run, in messages.

    Rollout 0 is the record, whose calls are made again on entering, so that the tools have a state after every step
    that a completion can fork.

    Args:
        trace: the run.
        writer: asked for the agent's messages.
        session: the tools, in the state in which the run began; it is forked, and stays the caller's.
        check: whether the run of these messages is a success.
        budget: completions.
        max_steps: most steps of a run; by default twice those of the record and ten more.
    """

    def __init__(
        self,
        trace: Trace,
        writer: Writer,
        session: Session,
        check: Check,
        budget: int,
        *,
        max_steps: int | None = None,
        done: Callable[[], None] = lambda: None,
    ):
        super().__init__(Tree(Task(trace.question, trace.answer or "", id=trace.id), prompt=[]), budget)
        self.trace, self.writer, self.session, self.check = trace, writer, session, check
        self.max_steps = max_steps or 2 * len(trace.steps) + 10
        told = {tool["function"]["name"]: tool for tool in trace.tools or []}  # what the agent had read of its tools
        there = {name: schema for name, (_, schema) in session.functions.items()}
        self.schemas = [told[name] for name in told if name in there]
        self.schemas += [schema for name, schema in there.items() if name not in told]
        self._done = done
        self._messages: dict[Node, list[Message]] = {self.tree.root: trace.prefix(0)}
        self._sessions: dict[Node, Session] = {}
        self._tries: Counter[Node] = Counter()

    @property
    def failed(self) -> Node:
        """Where the recorded run ended."""
        return next(leaf for leaf in self.tree.leaves if leaf.rollout == 0)

    def messages(self, node: Node) -> list[Message]:
        """All that was said up to a step and its tool outputs."""
        return self._messages[node]

    async def _complete_all(self, nodes: Sequence[Node], first: int) -> list[Node]:
        runs = []
        for rollout, node in enumerate(nodes, first + 1):  # the record is rollout 0
            runs.append(self._complete(node, rollout, (node.depth, self._tries[node])))
            self._tries[node] += 1
        return await side_by_side(runs)

    async def _complete(self, node: Node, rollout: int, sample: tuple[int, int]) -> Node:
        session = self._sessions[node].fork()
        try:
            await session.ready()
            while not node.is_leaf:
                node = await self._step(node, session, rollout, sample)
            self._done()
            return node
        except ReplayError as error:
            raise UserError(f"the tools' state after step {sample[0]} can't be brought back: {error}.") from error
        finally:
            await session.close()

    async def _step(self, node: Node, session: Session, rollout: int, sample: tuple[int, int]) -> Node:
        before = self._messages[node]
        try:
            written = await self.writer.complete(before, self.schemas, sample)
        except Refused as reason:
            if node.rollout < 1:  # of messages that the record has: it will refuse whatever comes
                raise UserError(f"{reason}; give the endpoint of the agent's own model.") from reason
            node.end = "context"  # the completion has written what its own model does not take
            await self._judge(node)
            return node
        step, messages = await take_step(self.tree, node, written, session, rollout=rollout, max_steps=self.max_steps)
        self._messages[step] = before + messages
        if step.is_leaf:
            await self._judge(step)
        return step

    async def _judge(self, leaf: Node) -> None:
        leaf.success = await self.check(copy.deepcopy(self._messages[leaf]))
        leaf.reward = float(leaf.success)

    async def __aenter__(self) -> Resumptions:
        live = self.session.fork()
        try:
            node = self.tree.root
            self._sessions[node] = live.fork()
            for start, end in self.trace.steps[: self.trace.tool_steps]:
                node = await self._again(node, start, end, live)
                self._sessions[node] = live.fork()
            await self._end_of_record(node)
        except BaseException:
            await self.__aexit__()
            raise
        finally:
            await live.close()
        return self

    async def _again(self, node: Node, start: int, end: int, session: Session) -> Node:
        """A step of the record, its calls made again and their outputs compared."""
        message = self.trace.messages[start]
        step = self.tree.add(node, rollout=0, text=message["content"])
        outputs = {answer["tool_call_id"]: answer["content"] for answer in self.trace.messages[start + 1 : end]}
        for call in message["tool_calls"]:
            seen = await make_call(check_call(call), session)
            recorded = outputs[call["id"]]
            if not same_output(seen, recorded):
                now, then = one_line(seen.output, 60), one_line(recorded, 60)
                raise UserError(
                    f"trace {self.trace.id}, step {step.depth}: {seen.name} gives {now!r} now, and gave {then!r} in "
                    "the record, so the run can't be taken up there; bring its tools to the state they had, or answer "
                    f"it from the record with --side-effects {seen.name}."
                )
            step.calls.append(Call(seen.name, seen.arguments, recorded, seen.failed))
        self._messages[step] = self.trace.messages[:end]
        return step

    async def _end_of_record(self, node: Node) -> None:
        rest = self.trace.messages[len(self._messages[node]) :]
        last = self.tree.add(node, rollout=0, text=rest[0]["content"] if rest else "")
        unmade = [call["function"]["name"] for message in rest for call in message.get("tool_calls", ())]
        last.calls = [Call(name, {}, failed="not made") for name in unmade]
        last.end, last.answer = ("answer", last.text) if rest and not unmade else ("max_steps", None)
        self._messages[last] = self.trace.messages
        await self._judge(last)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(session.close() for session in self._sessions.values()))


SAYS_ERROR = re.compile(r"\W*(an |the )?(\w+ )?\w*(error|exception|traceback|failed|failure)\b", re.IGNORECASE)


def same_output(seen: Call, recorded: str) -> bool:
    """Whether a call gave what the record has, as text or as a value; frameworks word errors each in their way.

    >>> [same_output(Call("f", {}, output), '{"a": 1}') for output in ("{'a': 1}", ' {"a":1}', "{'a': 2}")]
    [True, True, False]
    """
    if seen.failed:
        return bool(SAYS_ERROR.match(recorded)) or seen.output.strip() == recorded.strip()
    return seen.output.strip() == recorded.strip() or _value(seen.output) == _value(recorded)


def _value(text: str) -> str:
    """What a tool's output stands for: frameworks write values as JSON, or as Python prints them."""
    for read in (json.loads, ast.literal_eval):
        try:
            return json.dumps(read(text), sort_keys=True)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return text.strip()
