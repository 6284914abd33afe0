"""The examples that the docs point to are run."""

import asyncio
import shlex
import sys
from pathlib import Path

import pytest

from firstfault.cli import main
from firstfault.planted.process import PlantedProcess, traps
from firstfault.planted.quality import learn
from firstfault.planted.tabular import TabularPolicy, grow
from firstfault.run_folder import RunFolder
from firstfault.tools import MCPTool, Session
from firstfault.training.build import build_tasks, method_class
from firstfault.tree import load_trees

EXAMPLES = Path(__file__).parent.parent / "examples"
PAYMENTS = f"{EXAMPLES / 'own_tool_and_tasks.py'}:Payments"
NOTES = shlex.join([sys.executable, str(EXAMPLES / "mcp_server.py")])
SMALL = [
    *("--method.rollouts", "4", "--steps", "1", "--batch", "2", "--learner.mini-batch", "2", "--threads", "1"),
    *("--agent.max-new-tokens", "32", "--agent.max-steps", "3", "--agent.max-context", "512"),
    *("--evaluation.problems", "1", "--evaluation.samples", "1"),
]


@pytest.mark.parametrize(("coins", "success"), [((5, 5), True), ((5, 2, 1, 2), True), ((5, 7), False), ((), False)])
def test_own_tasks_are_judged_by_the_state_of_their_own_tool(coins, success):
    source = build_tasks({"name": PAYMENTS})
    [task] = [task for task in source.train(0, 0, 30) if task.question == "Pay 10."]

    async def run() -> tuple[bool, float]:
        session = Session(source.tools()).fork()
        for coin in coins:
            await session.call("pay", {"amount": coin})
        return await source.judge(task, "done", session)

    assert asyncio.run(run()) == (success, float(success))


def test_own_tasks_with_an_own_tool_train(tiny_policy, tmp_path):
    flags = ["--model", str(tiny_policy), "--tasks", PAYMENTS, "--run-dir", str(tmp_path / "run"), *SMALL]
    assert main(["train", *flags]) == 0
    assert all(len(tree.leaves) == 4 for tree in load_trees(RunFolder(tmp_path / "run").trees(1)))


def test_notes_are_kept():
    async def run() -> list[str]:
        session = Session([MCPTool(NOTES)], timeout=20)
        outputs = [(await session.call("write", {"note": note})).text for note in ("milk", "bread")]
        outputs.append((await session.call("read", {"number": 1})).text)
        await session.close()
        return outputs

    assert asyncio.run(run()) == ["note 1", "note 2", "milk"]


def test_tasks_train_with_an_mcp_server_and_a_file_of_functions(tiny_policy, tmp_path, capsys):
    functions = tmp_path / "mine.py"
    functions.write_text('def shout(text: str) -> str:\n    """Shout.\n\n    Args:\n        text: what\n    """\n')
    fewer = ["--method", "grpo", "--method.rollouts", "2", "--evaluation.problems", "0"]
    flags = ["--model", str(tiny_policy), "--run-dir", str(tmp_path / "run"), *SMALL, *fewer]
    assert main(["train", *flags, "--mcp", NOTES, "--functions", str(functions)]) == 0
    assert RunFolder(tmp_path / "run").read_metrics()[0]["discarded"] == 0


def test_two_tools_with_a_function_of_one_name_are_refused(tmp_path, capsys):
    assert main(["train", "--run-dir", str(tmp_path / "run"), "--mcp", NOTES, "--mcp", NOTES]) == 2
    sentence = "two tools have a function named 'write'; rename it in one of them, or leave one out."
    assert capsys.readouterr().err == f"firstfault: {sentence}\n"


def test_an_own_method_gives_credit_and_learns():
    method = method_class(f"{EXAMPLES / 'own_method.py'}:Regret")(rollouts=16)
    assert len((EXAMPLES / "own_method.py").read_text().splitlines()) < 40
    process = PlantedProcess(traps=traps("silent"), steps_min=4, steps_max=5)
    held_out = process.train(seed=9, first=0, n=20)
    curve = learn(method, process, steps=8, seed=0, prompts=8, step_size=0.4, held_out=held_out)
    assert curve[0].success < 0.4 and curve[-1].success > 0.8 and curve[-1].rollouts == 8 * 8 * 16
    [tree] = grow(method, process, TabularPolicy.first(process), held_out[:1], key=(0,))
    method.credit([tree])
    lost = next(leaf for leaf in tree.leaves if not leaf.success and leaf.anchor is tree.root)
    assert min(step.advantage for step in lost.steps) == pytest.approx(2 * max(step.advantage for step in lost.steps))


def test_an_own_method_trains(tiny_policy, tmp_path):
    method = f"{EXAMPLES / 'own_method.py'}:Regret"
    run = ["train", "--method", method, "--tasks", "arithmetic", "--model", str(tiny_policy)]
    assert main([*run, "--run-dir", str(tmp_path / "run"), *SMALL]) == 0
    assert all(len(tree.leaves) == 4 for tree in load_trees(RunFolder(tmp_path / "run").trees(1)))
