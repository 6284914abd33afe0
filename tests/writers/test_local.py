"""`locate` with a model of this machine: a tiny policy's own failed run, searched from the command line."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from firstfault.agent.rollouts import Agent
from firstfault.cli import main
from firstfault.config import AgentConfig
from firstfault.engines.transformers import TransformersEngine
from firstfault.locate import LocalModel
from firstfault.policy import load_policy
from firstfault.tasks import Arithmetic
from firstfault.training.build import build_agent
from firstfault.tree import Tree, load_trees, save_trees
from firstfault.writers.base import Refused

SOURCE = Arithmetic(operations_min=1, operations_max=2)
HI = [{"role": "user", "content": "Start with 8.\nFirst add 3."}]


@pytest.fixture(scope="module")
def agent(tiny_policy) -> Agent:
    model, tokenizer = load_policy(str(tiny_policy))
    limits = AgentConfig(max_new_tokens=32, max_steps=4, max_context=256)
    return build_agent(limits, TransformersEngine(model, tokenizer), tokenizer, SOURCE, SOURCE.tools())


@pytest.fixture(scope="module")
def failed(agent) -> Tree:
    """A tree of a failed run of the policy that called its tool, and read what it gave."""

    async def run() -> Tree:
        try:
            for number, task in enumerate(SOURCE.train(seed=0, first=0, n=50)):
                tree = Tree(task, agent.chat.prompt(task.question), key=(0, 0, number))
                async with agent.rollouts(tree, 1) as rollouts:
                    [leaf] = await rollouts.sample(1)
                if not leaf.success and leaf.depth > 1 and not any(c.failed for n in tree.steps for c in n.calls):
                    return tree
            raise AssertionError("no run failed so")
        finally:
            await agent.session.close()

    return asyncio.run(run())


def complete(model: LocalModel, messages, tools=(), sample=(0, 0)):
    return asyncio.run(model.complete(messages, tools, sample))


def test_a_failed_run_of_a_local_model_is_searched_and_paid_for_once(
    failed, tiny_policy, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    save_trees([failed], tmp_path / "trees.jsonl.gz")
    (tmp_path / "tools.py").write_text("from firstfault.tools import PythonTool\n")
    command = [
        *("locate", "trees.jsonl.gz", "--model", str(tiny_policy), "--endpoint", "local", "--cache", "cache"),
        *("--tools", "tools.py:PythonTool", "--max-tokens", "32", "--budget", "6", "--json", "--trees", "out"),
    ]
    assert main(command) == 0  # it costs no money, so it does not ask
    first = capsys.readouterr()
    found = json.loads(first.out)
    assert found["steps"] == failed.leaves[0].depth - 1 and 1 <= sum(point["tries"] for point in found["curve"]) <= 6
    [tree] = load_trees(tmp_path / "out" / "located.jsonl.gz")
    called = [call for leaf in tree.leaves if leaf.rollout for node in leaf.steps for call in node.calls]
    assert any(call.name == "python" and not call.failed and call.output.strip("-").isdigit() for call in called)
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out == first.out and "paid for 0 calls" in " ".join(again.err.split())


def test_it_reads_a_record_as_the_policy_read_it(failed, agent, tiny_policy, tmp_path):
    """The policy's own run, told in messages, comes to the very tokens that it saw."""
    model = LocalModel(str(tiny_policy), cache=tmp_path)
    messages = [{"role": "user", "content": failed.task.question}]
    node = failed.leaves[0].steps[0]
    [call] = node.calls
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    content = node.text.partition("<tool_call>")[0]
    messages.append({"role": "assistant", "content": content, "tool_calls": [{"id": "a", "function": function}]})
    messages.append({"role": "tool", "tool_call_id": "a", "content": call.output})
    chat = model._chat([schema for tool in SOURCE.tools() for schema in tool.schemas])
    tokenizer = agent.chat._tokenizer
    assert tokenizer.decode(chat.conversation(messages)) == tokenizer.decode(node.tokens)


def test_samples_differ_and_repeat_whatever_is_asked_beside_them(tiny_policy, tmp_path):
    model, other = (LocalModel(str(tiny_policy), cache=tmp_path / name, max_tokens=24) for name in "ab")

    async def together(model, samples):
        return await asyncio.gather(*(model.complete(HI, [], (0, sample)) for sample in samples))

    drawn = asyncio.run(together(model, range(12)))
    assert len({message["content"] for message in drawn}) > 1
    assert asyncio.run(together(other, [11, 3])) == [drawn[11], drawn[3]]
    assert model.spent.calls == 12 and other.spent.completion_tokens <= 48


def test_weights_that_change_under_a_name_are_another_model(tiny_policy, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_policy, folder)
    first = LocalModel(str(folder), cache=tmp_path / "cache", max_tokens=8)
    complete(first, HI)
    weights = next(folder.glob("*.safetensors"))
    weights.touch()  # the same are the same, whenever they were written
    assert LocalModel(str(folder), cache=tmp_path / "cache").model == first.model
    tensors = {name: 1.01 * tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    second = LocalModel(str(folder), cache=tmp_path / "cache", max_tokens=8)
    complete(second, HI)
    assert second.model != first.model and second.spent.known == 0


def test_a_run_that_leaves_no_room_is_refused(tiny_policy, tmp_path):
    model = LocalModel(str(tiny_policy), cache=tmp_path)
    with pytest.raises(Refused, match=r"has room for \d+ tokens, and the run has"):
        complete(model, [{"role": "user", "content": "add 3. " * 40_000}])


def test_a_judge_is_the_same_model_at_temperature_zero(tiny_policy, tmp_path):
    model = LocalModel(str(tiny_policy), cache=tmp_path, max_tokens=8)
    judge = model.at(0.0)
    assert complete(judge, HI, sample=(0, 0)) == complete(judge, HI, sample=(0, 1))
    assert (judge.spent.calls, model.spent.calls) == (2, 0)
    assert judge._engine is model._engine and torch.equal(*(m._engine.model.lm_head.weight for m in (judge, model)))


def test_no_such_model_is_said_in_a_sentence(capsys, tmp_path):
    trace = str(Path(__file__).parents[2] / "examples" / "locate" / "trace.json")
    assert main(["locate", trace, "--model", str(tmp_path / "nowhere"), "--endpoint", "local", "--answer", "38"]) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}; give one" in capsys.readouterr().err
