"""One rollout: the agent acts and the tools answer, up to an answer or a limit."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, TypeVar

from firstfault.agent.base import Rollouts
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

    def tree(self, task: Task, key: tuple[int, ...] = ()) -> Tree:
        """A tree that holds the prompt of a task.

        Raises:
            UserError: if it leaves no room for an answer.
        """
        prompt = self.chat.prompt(task.question)
        if len(prompt) >= self.max_context:
            raise UserError(
                f"the prompt of task {task.id or task.question[:40]} has {len(prompt)} tokens, which leaves no room in "
                f"agent.max_context = {self.max_context}; make that larger, or leave the task out."
            )
        return Tree(task, prompt, key=key)

    def check_room(self, tasks: Sequence[Task]) -> None:
        """Refuse now what `tree` would refuse later."""
        room = self.max_context - len(self.chat.prompt(""))
        for task in tasks:
            if len(task.question.encode(errors="replace")) >= room:  # a token is a byte at least
                self.tree(task)

    def rollouts(self, tree: Tree, budget: int) -> AgentRollouts:
        """Use as `async with`."""
        return AgentRollouts(self, tree, budget)

    async def run(self, task: Task, key: tuple[int, ...], n: int) -> Tree:
        """The tree of `n` whole runs of a task."""
        tree = self.tree(task, key)
        async with self.rollouts(tree, n) as rollouts:
            await rollouts.sample(n)
        return tree

    def greedy(self) -> Agent:
        """The same, but it writes what is likeliest."""
        return replace(self, sampling=replace(self.sampling, temperature=0.0))

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
            left = len(message.calls)
            if self.max_calls is not None:
                left = max(0, self.max_calls - sum(len(earlier.calls) for earlier in node.path))
            made = [await make_call(call, session) for call in message.calls[:left]]
            step.calls = made + [_refused(call) for call in message.calls[left:]]
            self.counts["tool_calls"] += len(made)
            self.counts["tool_failures"] += sum(call.failed is not None for call in made)
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


class AgentRollouts(Rollouts):
    """Rollouts of an agent.

    Use as `async with`: tool sessions of all nodes are kept until the exit, so that a run can branch at any step.
    While it is open, the engine waits for it, or else for each rollout under way (see `Turnstile`).
    """

    def __init__(self, agent: Agent, tree: Tree, budget: int):
        super().__init__(tree, budget)
        self.agent = agent
        self._sessions: dict[Node, Session] = {}

    def limit_calls(self, n: int) -> None:
        self.agent = replace(self.agent, max_calls=n)

    async def _complete_all(self, nodes: Sequence[Node], first: int) -> list[Node]:
        self.agent.counts["rollouts"] += len(nodes)
        self.agent.counts["probes"] += sum(node.parent is not None for node in nodes)
        sessions = [self._sessions[node].fork() for node in nodes]
        holds = [self._hold.fork() for _ in nodes]
        rollouts = zip(nodes, range(first, first + len(nodes)), sessions, holds, strict=True)
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

    async def __aenter__(self) -> AgentRollouts:
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
