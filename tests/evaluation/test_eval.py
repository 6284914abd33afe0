"""`firstfault eval` of a checkpoint, end to end."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import firstfault.evaluation.agents as agents
from firstfault.cli import main
from firstfault.config import AgentConfig
from firstfault.engines.transformers import TransformersEngine
from firstfault.files import alone
from firstfault.policy import load_policy
from firstfault.tasks import Arithmetic, Lore, Mix, TaskSource
from firstfault.training.build import build_agent
from firstfault.training.validate import validate
from firstfault.tree import Task

LIMITS = ["--agent.max-new-tokens", "32", "--agent.max-steps", "4", "--agent.max-context", "256"]
SHORT = ["--tasks", "arithmetic", "--tasks.operations-min", "1", "--tasks.operations-max", "2"]


@pytest.fixture
def evaluate(tiny_policy, tmp_path, monkeypatch, capsys):
    """`evaluate(*flags)`: the figures of the tiny policy as JSON."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> dict:
        assert main(["eval", "--json", "--model", str(tiny_policy), "--threads", "1", *LIMITS, *flags]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_figures_and_records_of_a_checkpoint(evaluate, tmp_path):
    size = ["--evaluation.problems", "3", "--samples", "4", "--k", "1,2", "--k", "4"]
    found = evaluate(*SHORT, *size, "--records", "r.jsonl")
    kept = records(tmp_path / "r.jsonl")
    assert [(r["number"], r["sample"]) for r in sorted(kept, key=lambda r: (r["number"], r["sample"] is None))] == [
        (number, sample) for number in range(3) for sample in (0, 1, 2, 3, None)
    ]
    sampled = [r for r in kept if r["sample"] is not None]
    figures = found["overall"]["figures"]
    assert found["k"] == [1, 2, 4] and found["problems"] == 3 and found["overall"]["tasks"] == 3
    for name, key in {"success": "success", "steps": "steps", "calls": "calls", "tokens": "tokens"}.items():
        assert figures[name]["value"] == pytest.approx(sum(r[key] for r in sampled) / 12)
        assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]
    assert figures["pass@1"]["value"] <= figures["pass@2"]["value"] <= figures["pass@4"]["value"]
    assert {r["difficulty"] for r in kept} <= {"1", "2"} and {r["family"] for r in kept} == {"arithmetic"}
    assert sum(r["calls"] for r in sampled) > 0 and all(r["tokens"] > 0 for r in kept)


def test_it_says_what_the_evaluations_of_training_say(evaluate, tiny_policy):
    """Same tasks, same draws: the success of a checkpoint is the same."""
    found = evaluate(*SHORT, "--evaluation.problems", "4", "--samples", "3", "--k", "2")["overall"]["figures"]
    source = Arithmetic(operations_min=1, operations_max=2)
    model, tokenizer = load_policy(str(tiny_policy))
    limits = AgentConfig(max_new_tokens=32, max_steps=4, max_context=256)
    agent = build_agent(limits, TransformersEngine(model, tokenizer), tokenizer, source, source.tools())

    async def run():
        try:
            return await validate(agent, source.held_out(4), samples=3, seed=0, ks=[2])
        finally:
            await agent.session.close()

    record = asyncio.run(run())
    assert found["success"]["value"] == pytest.approx(record["sampled"])
    assert found["greedy"]["value"] == pytest.approx(record["greedy"])
    assert found["pass@2"]["value"] == pytest.approx(record["pass@2"])
    assert found["major@2"]["value"] == pytest.approx(record["major@2"])
    assert found["tokens"]["value"] == pytest.approx(record["tokens_per_run"])
    assert found["calls"]["value"] == pytest.approx(record["calls_per_run"])


def test_a_second_command_goes_on_where_the_first_stopped(evaluate, tmp_path, monkeypatch):
    flags = [*SHORT, "--evaluation.problems", "4", "--samples", "2", "--records", "r.jsonl"]
    whole = evaluate(*flags)
    path = tmp_path / "r.jsonl"
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept[:8])[:-30])  # the header, two tasks, and a run that was cut off
    asked = []
    runs = agents.LocalAgent.runs

    async def watched(self, number, *arguments):
        asked.append(number)
        return await runs(self, number, *arguments)

    monkeypatch.setattr(agents.LocalAgent, "runs", watched)
    assert evaluate(*flags) == whole
    assert len(asked) == 2 and sorted(path.read_text().splitlines()) == sorted(line.strip() for line in kept)
    assert evaluate(*flags) == whole and len(asked) == 2  # nothing is left to run, nor is a model loaded
    assert evaluate(*flags, "--k", "2")["k"] == [2] and len(asked) == 2  # other figures of the same runs


def test_records_are_kept_where_none_asked_for_them(evaluate, tiny_policy, tmp_path, capsys):
    flags = [*SHORT, "--evaluation.problems", "2", "--samples", "1"]
    found = evaluate(*flags)
    [path] = (tmp_path / "runs" / "eval").glob("arithmetic-*.jsonl")
    assert found["records"] == str(path.relative_to(tmp_path)) and len(records(path)) == 4
    assert evaluate(*flags) == found
    assert evaluate(*flags, "--seed", "1")["records"] != found["records"]  # other settings are another evaluation
    capsys.readouterr()
    assert main(["eval", "--model", str(tiny_policy), "--threads", "1", *LIMITS, *flags]) == 0
    assert "all were there" in " ".join(capsys.readouterr().out.split())


def test_two_commands_do_not_write_to_one_file(evaluate, tiny_policy, tmp_path, capsys):
    flags = [*SHORT, "--evaluation.problems", "2", "--samples", "1", "--records", "r.jsonl"]
    with alone(tmp_path, "r.jsonl"):
        assert main(["eval", "--model", str(tiny_policy), *LIMITS, *flags]) == 2
        assert "another command is at work in r.jsonl" in capsys.readouterr().err
        assert evaluate(*flags[:-1], "other.jsonl")["problems"] == 2
    assert evaluate(*flags)["problems"] == 2


def test_weights_are_known_by_what_they_are(evaluate, tiny_policy, tmp_path):
    copy = shutil.copytree(tiny_policy, tmp_path / "copy")
    flags = [*SHORT, "--evaluation.problems", "1", "--samples", "1", "--model", str(copy)]
    known = evaluate(*flags)["records"]
    [weights] = copy.glob("*.safetensors")
    os.utime(weights)
    assert evaluate(*flags)["records"] == known
    tensors = load_file(weights)
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    assert evaluate(*flags)["records"] != known


def test_tasks_are_run_in_groups_so_that_records_are_kept_all_along(evaluate, tmp_path, monkeypatch):
    size = ["--evaluation.problems", "5", "--samples", "3", "--engine.max-batch", "4"]  # two tasks at a time
    seen = []
    runs = agents.LocalAgent.runs

    async def watched(self, number, *arguments):
        path = tmp_path / "r.jsonl"
        seen.append(len(records(path)) // 4)
        return await runs(self, number, *arguments)

    monkeypatch.setattr(agents.LocalAgent, "runs", watched)
    evaluate(*SHORT, *size, "--records", "r.jsonl")
    assert seen == [0, 0, 2, 2, 4]


def test_other_settings_are_refused(evaluate, tmp_path, tiny_policy, capsys):
    flags = [*SHORT, "--evaluation.problems", "2", "--samples", "1", "--records", "r.jsonl"]
    evaluate(*flags)
    for other, name in ((["--seed", "1"], "seed = 0, not seed = 1"), (["--tasks.silent", "0.5"], "tasks = ")):
        assert main(["eval", "--model", str(tiny_policy), *LIMITS, *flags, *other]) == 2
        assert f"was made with {name}" in capsys.readouterr().err
    assert evaluate(*flags, "--engine.max-batch", "3")  # only how fast it goes


def test_a_mix_is_measured_family_by_family(evaluate):
    found = evaluate("--tasks", "arithmetic,stateful", "--evaluation.problems", "3", "--samples", "1")
    assert [group["family"] for group in found["families"]] == ["arithmetic", "stateful"]
    scores = [group["figures"]["success"]["value"] for group in found["families"]]
    assert found["overall"]["figures"]["success"]["value"] == pytest.approx((2 * scores[0] + scores[1]) / 3)


def test_a_file_s_own_tasks_and_levels(evaluate, tmp_path):
    lines = [{"question": "Start with 1.\nFirst add 1.", "answer": 2, "level": level} for level in (1, 2, 2)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = evaluate("--tasks", "mine.jsonl", "--samples", "2")
    assert [(group["difficulty"], group["tasks"]) for group in found["difficulties"]] == [("1", 1), ("2", 2)]


LOSSY = """
from pathlib import Path

from firstfault.tasks import Arithmetic
from firstfault.tools import PythonTool, ReplayError


class Lossy(PythonTool):
    async def call(self, name, arguments):
        if Path("lost").exists():
            raise ReplayError("its worker is gone")
        return await super().call(name, arguments)


class Tasks(Arithmetic):
    def tools(self):
        return [Lossy()]
"""


def test_runs_whose_tools_are_lost_are_no_failures(evaluate, tmp_path, tiny_policy, capsys):
    """Their task has no record, and the same command tries it again."""
    (tmp_path / "lossy.py").write_text(LOSSY)
    flags = ["--tasks", "lossy.py:Tasks", *SHORT[2:], "--evaluation.problems", "1", "--samples", "4"]
    flags += ["--records", "r.jsonl"]
    (tmp_path / "lost").touch()
    assert main(["eval", "--model", str(tiny_policy), "--threads", "1", *LIMITS, *flags]) == 2
    said = capsys.readouterr().err
    assert "1 of 1 tasks could not be finished (task held-out-0: the state of its tools" in said
    assert records(tmp_path / "r.jsonl") == []
    (tmp_path / "lost").unlink()
    assert evaluate(*flags)["overall"]["figures"]["calls"]["value"] > 0
    assert len(records(tmp_path / "r.jsonl")) == 5


def test_sources_know_how_hard_their_tasks_are():
    chain, facts = Arithmetic(operations_min=3, operations_max=3), Lore(hops_min=2, hops_max=2)
    mix = Mix(families={"a": chain, "l": facts})
    assert [mix.difficulty(task) for task in mix.held_out(2)] == ["3", "2"]
    known = [{"difficulty": "hard", "level": 1}, {"level": 5}, {}, {"level": ["a"]}]
    assert [TaskSource().difficulty(Task("q", "a", info=info)) for info in known] == ["hard", "5", None, None]
