"""Trees over tools whose state comes back by replay: branches that come back as they were, and branches that don't."""

import asyncio
import logging
import shlex
import sys
from pathlib import Path

from scripted import Scripted, call

from firstfault.agent.chat import Chat
from firstfault.agent.rollouts import Agent
from firstfault.engines.base import Sampling
from firstfault.methods import GRPO
from firstfault.tools import FunctionTool, MCPTool, ReplayError, Session
from firstfault.training.loop import grow
from firstfault.tree import Task, Tree

SERVER = shlex.join([sys.executable, str(Path(__file__).parent.parent / "mcp_server.py")])


class Branching(GRPO):
    """One run, and two more from where its second step leads to."""

    async def explore(self, tree, rollouts):
        [leaf] = await rollouts.sample(1)
        await rollouts.continue_from(leaf.steps[1], 2)


def grown(make_tokenizer, second_call: str) -> Tree:
    """A tree of runs that push 1, make a second call, pop, and answer."""
    turns = [call("push", number=1), second_call, call("pop"), "Done."]
    tokenizer = make_tokenizer("qwen", "qwen2_5")

    async def judge(task: Task, answer: str, session: Session) -> tuple[bool, float]:
        return True, 1.0

    async def main() -> Tree:
        session = Session([MCPTool(SERVER)], timeout=30)
        chat = Chat(tokenizer, session.schemas)
        engine = Scripted(tokenizer, lambda key: turns[key[-1]])
        agent = Agent(engine, chat, session, judge, Sampling(1.0, 1.0, 400, chat.stop_tokens), max_context=10_000)
        [tree] = await grow(Branching(rollouts=3), agent, [Task("Go.", "", id="go")], (0, 1))
        await session.close()
        return tree

    return asyncio.run(main())


def test_branches_go_on_from_a_replay(make_tokenizer, caplog):
    tree = grown(make_tokenizer, call("push", number=2))
    assert tree.discarded == 0 and not caplog.records
    assert len(tree.leaves) == 3
    assert [[c.output for node in leaf.steps for c in node.calls] for leaf in tree.leaves] == [
        ["1 numbers, sum 1", "2 numbers, sum 3", "2"]
    ] * 3


def test_a_branch_whose_replay_differs_is_discarded(make_tokenizer, caplog):
    caplog.set_level(logging.WARNING)
    tree = grown(make_tokenizer, call("roll"))
    assert tree.discarded == 2
    [leaf] = tree.leaves  # the run itself stays
    assert leaf.success and leaf.steps[1].calls[0].output == leaf.steps[2].calls[0].output
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert "task go: a rollout was discarded" in record.message and "roll({}) gave" in record.message


def count() -> int:
    """Count."""


def test_a_run_whose_tools_are_lost_on_its_way_is_discarded(make_tokenizer, caplog):
    tokenizer = make_tokenizer("qwen", "qwen2_5")

    class Lossy(FunctionTool):
        def __init__(self):
            super().__init__(count)
            self.calls = 0

        def fork(self):
            forked = Lossy()
            forked.calls = self.calls
            return forked

        async def ready(self):
            if self.calls == 2 and "lost" in names:
                names.remove("lost")  # the first to come so far
                raise ReplayError("nobody knows any more")

        async def call(self, name, arguments):
            self.calls += 1
            return str(self.calls)

    async def judge(task: Task, answer: str, session: Session) -> tuple[bool, float]:
        return True, 1.0

    async def main() -> Tree:
        session = Session([Lossy()])
        chat = Chat(tokenizer, session.schemas)
        engine = Scripted(tokenizer, lambda key: "Done." if key[-1] == 3 else call("count"))
        agent = Agent(engine, chat, session, judge, Sampling(1.0, 1.0, 400, chat.stop_tokens), max_context=10_000)
        [tree] = await grow(GRPO(rollouts=3), agent, [Task("Go.", "", id="go")], (0, 1))
        return tree

    names = ["lost"]
    tree = asyncio.run(main())
    assert tree.discarded == 1 and len(tree.leaves) == 2 and len(tree.steps) == 8
    assert [node.index for node in tree.nodes] == list(range(9))
    assert all(child in tree.nodes for node in tree.nodes for child in node.children)
    assert Tree.from_json(tree.to_json()) == tree
    [record] = caplog.records
    assert record.message == "task go: a rollout was discarded: nobody knows any more"
