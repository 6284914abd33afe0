"""One rollout: the agent acts and the tools answer, up to an answer or a limit; and the budget of a task."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, TypeVar

from firstfault.agent.chat import Chat, ParsedCall
from firstfault.engines.base import Engine, Hold, Sampling
from firstfault.errors import UserError
from firstfault.tools.base import ReplayError, Session
from firstfault.tree import Call, Node, Task, Tree

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Judge(Protocol):
    async def __call__(self, task: Task, answer: str, session: Session) -> tuple[bool, float]:
        """Whether the run is a success, and its reward."""
        ...


@dataclass(frozen=True)
class Agent:
    """A policy with its tools, and the limits of its runs.

    `sampling.max_new_tokens` bounds one step, `max_context` the whole run in tokens, `max_steps` its steps, `max_calls`
    its tool calls: further ones are not made, and the agent reads so.

    `counts` adds up what was spent, `rollouts`, `probes` (those from the middle of a run), `tool_calls` and
    `tool_failures`, whatever becomes of the trees. Agents made from one by `replace` share it.
    """

    engine: Engine
    chat: Chat
    session: Session
    judge: Judge
    sampling: Sampling
    max_steps: int = 16
    max_context: int = 4096
    max_calls: int | None = None
    counts: Counter[str] = field(default_factory=Counter, compare=False)

    async def step(self, tree: Tree, node: Node, session: Session, rollout: int, hold: Hold) -> Node:
        """Let the agent act once after `node`, run the calls it makes, and add what came of it to the tree."""
        seen = node.tokens
        room = self.max_context - len(seen)
        limit = min(room, self.sampling.max_new_tokens)
        key = (*tree.key, rollout, node.depth)
        done = await self.engine.generate(seen, replace(self.sampling, max_new_tokens=limit), key, hold)
        message = self.chat.parse(done.tokens)
        step = tree.add(node, rollout=rollout, action_tokens=done.tokens, logprobs=done.logprobs,
                        entropies=done.entropies, text=message.text)  # fmt: skip
        if done.stop_reason == "length":
            step.end = "context" if limit == room else "max_tokens"
        elif not message.calls:
            step.end, step.answer = "answer", message.content
        elif step.depth == self.max_steps:
            step.end = "max_steps"
        else:
            made = sum(len(earlier.calls) for earlier in node.path)
            for call in message.calls:
                left = self.max_calls is None or made + len(step.calls) < self.max_calls
                step.calls.append(await make_call(call, session) if left else _refused(call))
            self.counts["tool_calls"] += len(step.calls)
            self.counts["tool_failures"] += sum(call.failed is not None for call in step.calls)
            observation = self.chat.observe(done.tokens, [(call.name, call.output) for call in step.calls])
            if len(observation) + len(done.tokens) >= room:
                step.end = "context"
            else:
                step.observation_tokens = observation
        if step.is_leaf:
            step.success, step.reward = False, 0.0
            if step.answer is not None:
                step.success, step.reward = await self.judge(tree.task, step.answer, session)
        return step


async def make_call(call: ParsedCall, session: Session) -> Call:
    """Make a call, unless it can't be read; and what came of it."""
    if call.error:
        return Call(call.name, call.arguments, output=f"Error: {call.error}", failed="malformed")
    seen = await session.call(call.name, call.arguments)
    return Call(call.name, call.arguments, output=seen.text, failed=seen.failed, seconds=seen.seconds)


def _refused(call: ParsedCall) -> Call:
    return Call(call.name, call.arguments, output="Error: no tool calls are left; answer now", failed="no calls left")


class Rollouts:
    """The budget of one task: grows its tree by completions, each of which counts, whole or from the middle.

    Use as `async with`: tool sessions of all nodes are kept until the exit, so that a run can branch at any step.
    While it is open, the engine waits for it, or else for each rollout under way (see `Turnstile`).
    """

    def __init__(self, agent: Agent, tree: Tree, budget: int):
        self.agent = agent
        self.tree = tree
        self.budget = budget
        self.spent = 0
        self._sessions: dict[Node, Session] = {}

    @property
    def remaining(self) -> int:
        return self.budget - self.spent

    def allow(self, n: int) -> None:
        """Let `n` more rollouts be spent."""
        self.budget += n

    def limit_calls(self, n: int) -> None:
        """Let runs make no more than `n` tool calls from here on."""
        self.agent = replace(self.agent, max_calls=n)

    async def sample(self, n: int) -> list[Node]:
        """Sample `n` whole rollouts side by side; returns their leaves."""
        return await self.continue_from(self.tree.root, n)

    async def continue_from(self, node: Node, n: int = 1) -> list[Node]:
        """Sample `n` completions after `node` side by side; returns their leaves. See `continue_all`.

        Raises:
            ValueError: if the budget has less than `n` left, or if the run ended at `node`.
        """
        if n < 0 or node.is_leaf:
            raise ValueError(f"asked for {n} of {self.remaining} rollouts after {node.end or 'an open step'}")
        return await self.continue_all([node] * n)

    async def continue_all(self, nodes: Sequence[Node]) -> list[Node]:
        """Sample a completion after each of `nodes`, all side by side; returns their leaves.

        One whose tools can't be brought back to where they stood is discarded: it counts, and has no leaf. Any other
        error of one of them ends them all.

        Raises:
            ValueError: if there are more than the budget has left, or if a run ended at one of them.
        """
        if len(nodes) > self.remaining or any(node.is_leaf for node in nodes):
            ended = next((node.end for node in nodes if node.is_leaf), None)
            raise ValueError(f"asked for {len(nodes)} of {self.remaining} rollouts after {ended or 'open steps'}")
        first, self.spent = self.spent, self.spent + len(nodes)
        self.agent.counts["rollouts"] += len(nodes)
        self.agent.counts["probes"] += sum(node.parent is not None for node in nodes)
        sessions = [self._sessions[node].fork() for node in nodes]
        holds = [self._hold.fork() for _ in nodes]
        rollouts = zip(nodes, range(first, self.spent), sessions, holds, strict=True)
        try:
            ends = await side_by_side([self._complete(*rollout) for rollout in rollouts])
            return [leaf for leaf in ends if leaf is not None]
        finally:
            for hold in holds:
                hold.close()
            await asyncio.gather(*(session.close() for session in sessions))

    async def _complete(self, node: Node, rollout: int, session: Session, hold: Hold) -> Node | None:
        try:
            await session.ready()
            while not node.is_leaf:
                node = await self.agent.step(self.tree, node, session, rollout, hold)
                if not node.is_leaf:
                    self._sessions[node] = session.fork()
            return node
        except ReplayError as error:
            self.tree.discard(rollout)
            logger.warning("task %s: a rollout was discarded: %s", self.tree.task.id, error)
            return None
        finally:
            hold.close()

    async def __aenter__(self) -> Rollouts:
        prompt, limit = len(self.tree.root.tokens), self.agent.max_context
        if prompt >= limit:
            raise UserError(
                f"the prompt of task {self.tree.task.id or self.tree.task.question[:40]} has {prompt} tokens, which "
                f"leaves no room in agent.max_context = {limit}; make that larger."
            )
        self._sessions[self.tree.root] = self.agent.session.fork()
        self._hold = self.agent.engine.turnstile.hold()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._hold.close()
        await asyncio.gather(*(session.close() for session in self._sessions.values()))


async def side_by_side(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run them side by side; what breaks one of them ends them all."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
