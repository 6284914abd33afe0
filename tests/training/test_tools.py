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
from firstfault.tools import MCPTool, Session
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
    assert tree.discarded == 1
    [leaf] = tree.leaves  # the run itself stays
    assert leaf.success and leaf.steps[1].calls[0].output == leaf.steps[2].calls[0].output
    [record] = caplog.records
    assert "task go: a branch was discarded" in record.message and "roll({}) gave" in record.message
