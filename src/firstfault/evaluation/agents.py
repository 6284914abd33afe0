"""Who is evaluated: a policy on this machine, or a model behind an endpoint with the tools of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from rich.console import Console

from firstfault.agent.rollouts import Agent, side_by_side
from firstfault.config import RunConfig
from firstfault.engines.transformers import TransformersEngine
from firstfault.errors import UserError
from firstfault.evaluation.plan import files_of
from firstfault.policy import load_policy, pick_device, use_threads, version
from firstfault.tasks.base import TaskSource
from firstfault.tools import ReplayError, Session, Tool
from firstfault.tools.base import describe
from firstfault.training.build import build_agent, build_session, complete_tasks
from firstfault.training.cold_start import start_model
from firstfault.tree import Node, Task, Tree
from firstfault.writers.base import Message, Refused, Writer
from firstfault.writers.endpoint import ServerFailed
from firstfault.writers.step import take_step

Run = tuple[Node, int | None]  # where it ended, and the tokens that the agent wrote, where they are known
Done = Callable[[], None]


class Unfinished(Exception):
    """A run could not be brought to its end, through no fault of the agent: it is none to count."""


class Evaluated(Protocol):
    """An agent whose runs are counted."""

    together: int | None  # tasks to run side by side, group by group; None for all

    async def runs(self, number: int, task: Task, samples: int, done: Done) -> list[Run]:
        """`samples` sampled runs and a greedy one, in this order; `done` is called after each.

        Raises:
            Unfinished: if one of them can't be brought to its end, and those of other tasks may.
            UserError: if none can.
        """
        ...

    async def close(self) -> None:
        """Free what the agent holds."""
        ...


def local_agent(config: RunConfig, source: TaskSource, tools: Sequence[Tool], console: Console) -> Agent:
    """The model of `config` with its engine and tools.

    Raises:
        UserError: if any of them can't be had.
    """
    use_threads(config.threads)
    start = start_model(config, source, console, tools)
    model, tokenizer = load_policy(start, pick_device(config.device))
    engine = TransformersEngine(model, tokenizer, **config.engine.model_dump())
    return build_agent(config.agent, engine, tokenizer, source, tools)


def local_settings(config: RunConfig, source: TaskSource) -> dict[str, Any]:
    """The settings that the runs of a local agent follow from."""
    tasks = complete_tasks(config.tasks, source)
    own = config.model_dump(mode="json", include={"functions", "mcp", "search", "agent"})
    taught = {
        "cold_start": config.cold_start.model_dump(mode="json"),
        "threads": config.threads,
        "torch": torch.__version__,
    }
    return {
        "model": version(config.model),
        "tasks": tasks,
        **own,
        **(taught if config.model == "tiny" else {}),
        "files": files_of({"tasks": tasks, **own}),
    }


class LocalAgent:
    """The model of `config`, by the engine of this machine.

    Tasks are run in groups of about twice as many runs as are decoded together. So records are kept all along; and
    which runs are in company, on which rounding depends, follows from the settings and from where it went on.
    """

    def __init__(self, config: RunConfig, source: TaskSource, tools: Sequence[Tool], console: Console):
        self._agent = local_agent(config, source, tools, console)
        self._greedy = self._agent.greedy()
        self._seed = config.seed
        self.together = -(-2 * config.engine.max_batch // (config.evaluation.last_samples + 1))

    async def runs(self, number: int, task: Task, samples: int, done: Done) -> list[Run]:
        agents = [(self._agent, samples), (self._greedy, 1)]
        groups = await side_by_side([self._grow(agent, task, number, n, done) for agent, n in agents])
        return [(leaf, sum(len(step.action_tokens) for step in leaf.steps)) for leaves in groups for leaf in leaves]

    async def _grow(self, agent: Agent, task: Task, number: int, n: int, done: Done) -> list[Node]:
        tree = await agent.run(task, (self._seed, 0, number), n)  # training counts from 1
        if len(tree.leaves) < n:
            raise Unfinished("the state of its tools could not be brought back")
        for _ in tree.leaves:
            done()
        return tree.leaves

    async def close(self) -> None:
        await self._agent.session.close()


class RemoteAgent:
    """A model that is asked for messages, with the tools of this machine live. It keeps the limits of `config.agent`.

    What the model takes no more, because it got too long or is not well formed, has ended at its context.

    Args:
        sampled, greedy: write the messages of sampled and of greedy runs.
        parallel: most runs at a time.
    """

    together = None  # `parallel` bounds the runs

    def __init__(
        self,
        config: RunConfig,
        source: TaskSource,
        tools: Sequence[Tool],
        sampled: Writer,
        greedy: Writer,
        parallel: int,
    ):
        self._config, self._source = config, source
        self._session = build_session(config.agent, tools)
        self._sampled, self._greedy = sampled, greedy
        self._turns = asyncio.Semaphore(parallel)

    async def runs(self, number: int, task: Task, samples: int, done: Done) -> list[Run]:
        tree = Tree(task, prompt=[])
        writers = [self._sampled] * samples + [self._greedy]
        return await side_by_side([self._run(tree, writer, (number, i), done) for i, writer in enumerate(writers)])

    async def _run(self, tree: Tree, writer: Writer, sample: tuple[int, int], done: Done) -> Run:
        async with self._turns:
            session = self._session.fork()
            try:
                await session.ready()
                run = await self._to_the_end(tree, writer, session, (self._config.seed, *sample))
            except ServerFailed as error:
                raise Unfinished(f"the endpoint fails with {describe(error.__cause__)}") from error
            except ReplayError as error:
                raise Unfinished(f"the state of its tools could not be brought back: {error}") from error
            finally:
                await session.close()
        done()
        return run

    async def _to_the_end(self, tree: Tree, writer: Writer, session: Session, sample: tuple[int, ...]) -> Run:
        system = self._source.system
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": tree.task.question})
        node, tokens = tree.root, []
        while not node.is_leaf:
            try:
                written = await writer.complete(messages, session.schemas, sample)
            except Refused as reason:
                if node is tree.root:
                    raise UserError(f"{reason}; give a model that takes such tasks and tools.") from reason
                node.end = "context"
                break
            tokens.append(written.get("tokens"))
            node, said = await take_step(
                tree, node, written, session, rollout=sample[-1], max_steps=self._config.agent.max_steps
            )
            messages += said
        node.success, node.reward = False, 0.0
        if node.answer is not None:
            node.success, node.reward = await self._source.judge(tree.task, node.answer, session)
        return node, None if None in tokens else sum(tokens)

    async def close(self) -> None:
        await self._session.close()
        await self._sampled.close()
        await self._greedy.close()
