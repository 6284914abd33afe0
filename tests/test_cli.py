"""The command line: what it accepts, and one sentence for what it can't."""

import gzip
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from hostile import grow

from firstfault.cli import main
from firstfault.methods import ELPO, GRPO
from firstfault.tree import Task, Tree, save_trees


@pytest.fixture
def files(tmp_path: Path, tiny_policy: Path) -> Path:
    """A folder of all kinds of input that is no good."""

    def model(name: str, *without: str) -> Path:
        return shutil.copytree(tiny_policy, tmp_path / name, ignore=shutil.ignore_patterns(*without))

    model("no-tokenizer", "tokenizer*", "chat_template*")
    model("no-template", "chat_template*")
    (model("no-tools") / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}")
    (model("torn") / "model.safetensors").write_bytes(b"1234567890")
    (model("torn-pickle", "model.safetensors") / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    (model("bad-json") / "config.json").write_text("{")
    odd = {"version": "1.0", "added_tokens": [], "model": {"type": "odd"}}
    (model("odd-tokenizer") / "tokenizer.json").write_text(json.dumps(odd))
    (tmp_path / "empty").mkdir()
    (tmp_path / "used" / "checkpoints").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name, text in {
        "broken.toml": "steps = = 3",
        "unknown.toml": "[learner]\nmini_bach = 3",
        "nameless.toml": "[method]\nrollouts = 3",
        "numbered.toml": "[method]\nname = 3",
        "option.toml": '[method]\nname = "elpo"\nbetta = 3',
        "empty.jsonl": "",
        "no-answer.jsonl": '{"question": "1 + 1?"}',
        "no-json.jsonl": "1 + 1?",
        "good.jsonl": '{"question": "1 + 1?", "answer": "2"}',
        "plain.jsonl.gz": "no gzip",
        "method.py": "class Mine: pass",
    }.items():
        (tmp_path / name).write_text(text)
    trees = {name: grow() for name in ("good-tree", "no-run", "no-question")}
    trees["no-run"].verdicts[0].leaf = 999
    trees["no-question"].task.question = None
    for name, tree in trees.items():
        (tmp_path / f"{name}.jsonl").write_text(tree.to_json() + "\n")
    packed = gzip.compress(json.dumps({"key": [], "nodes": []}).encode())
    (tmp_path / "foreign.jsonl.gz").write_bytes(packed)
    (tmp_path / "list.jsonl.gz").write_bytes(gzip.compress(b"[1]"))
    (tmp_path / "torn.jsonl.gz").write_bytes(packed[:-12])
    (tmp_path / "corrupt.jsonl.gz").write_bytes(packed[:10] + b"\xff" * 20)
    return tmp_path


# arguments, and words of the sentence; {d} is the folder of files, {tiny} a good model
REFUSED = {
    "no verb": ("", "VERB"),
    "unknown verb": ("trian", "invalid choice: 'trian'"),
    "unknown flag": ("train --lerner.mini-batch 3", "did you mean --learner.mini-batch"),
    "flag of another verb": ("methods --steps 3", "unrecognized arguments"),
    "flag without a value": ("train --steps", "expected one argument"),
    "shortened flag": ("train --step 3", "did you mean --steps"),
    "zero mini-batch": ("train --learner.mini-batch 0", "learner.mini_batch = '0'"),
    "negative steps": ("train --steps -1", "steps = '-1'"),
    "NaN learning rate": ("train --optimizer.lr nan", "optimizer.lr = 'nan'"),
    "infinite temperature": ("train --agent.temperature inf", "agent.temperature = 'inf'"),
    "wrong type": ("train --batch many", "batch = 'many'"),
    "unknown method": ("train --method epo", "did you mean 'elpo'?"),
    "unknown tasks": ("train --tasks algebra", "there is no task family 'algebra'"),
    "no such method file": ("train --method {d}/none.py:Mine", "there is no Python file"),
    "no such method class": ("train --method {d}/method.py:Mine", "has no class 'Mine' derived from Method"),
    "impossible option": ("train --method.clip-low 1", "clip_low = '1'"),
    "impossible tasks": ("train --tasks.operations-min 9 --tasks.operations-max 3", "exceeds operations_max 3"),
    "missing recipe": ("train --config {d}/none.toml", "can't be read"),
    "recipe that is a folder": ("train --config {d}/empty", "can't be read"),
    "malformed TOML": ("train --config {d}/broken.toml", "is not TOML"),
    "unknown key": ("train --config {d}/unknown.toml", "did you mean 'mini_batch'"),
    "unknown option": ("train --config {d}/option.toml", "did you mean 'beta'"),
    "method without a name": ("train --config {d}/nameless.toml", "[method] needs a name"),
    "method with a number for a name": ("train --config {d}/numbered.toml", "there is no method '3'"),
    "missing model": ("train --model {d}/none", "there is no folder"),
    "empty model folder": ("train --model {d}/empty", "can't be loaded"),
    "model without a tokenizer": ("train --model {d}/no-tokenizer", "no chat template"),
    "model without a template": ("train --model {d}/no-template", "no chat template"),
    "template without tools": ("train --model {d}/no-tools", "ignores tools"),
    "torn weights": ("train --model {d}/torn", "can't be loaded"),
    "torn weights, pickled": ("train --model {d}/torn-pickle", "can't be loaded"),
    "a tokenizer of an unknown form": ("train --model {d}/odd-tokenizer", "can't be loaded"),
    "torn settings of a model": ("train --model {d}/bad-json", "can't be loaded"),
    "used run folder": ("train --model {tiny} --run-dir {d}/used", "holds a run already; go on with --resume"),
    "run folder below a file": ("train --model {tiny} --run-dir {d}/file/run", "can't be written"),
    "run folder that is a file": ("train --model {tiny} --run-dir {d}/file", "can't be written"),
    "missing tasks": ("train --model {tiny} --tasks {d}/none.jsonl", "can't be read"),
    "empty tasks": ("train --model {tiny} --tasks {d}/empty.jsonl", "holds no tasks"),
    "tasks without an answer": ("train --model {tiny} --tasks {d}/no-answer.jsonl", "line 1 has no 'answer'"),
    "tasks that are not JSON": ("train --model {tiny} --tasks {d}/no-json.jsonl", "line 1 is not JSON"),
    "tasks without demonstrations": ("train --tasks {d}/good.jsonl", "has no demonstrations"),
    "question longer than the context": (
        "train --model {tiny} --agent.max-context 17 --agent.max-new-tokens 4 --evaluation.problems 2",
        "leaves no room in agent.max_context = 17",
    ),
    "eval without tasks": ("eval --model {tiny} --evaluation.problems 0", "nothing to evaluate on"),
    "eval of a missing model": ("eval --model {d}/none", "there is no folder"),
    "eval of no runs": ("eval --model {tiny} --k 0", "0 runs have no majority"),
    "eval of K that is no number": ("eval --model {tiny} --k 1,many", "evaluation.k.1 = 'many'"),
    "eval with records in a folder": ("eval --model {tiny} --records {d}/empty", "can't be kept"),
    "eval with records below a file": ("eval --model {tiny} --records {d}/file/records.jsonl", "can't be written"),
    "eval with records that are none": ("eval --model {tiny} --records {d}/good.jsonl", "good.jsonl holds no settings"),
    "eval of an endpoint without a model": ("eval --endpoint http://127.0.0.1:9/v1", "give the name with --model"),
    "eval of an endpoint with a nucleus": (
        "eval --model m --endpoint http://127.0.0.1:9/v1 --agent.top-p 0.9",
        "leave out agent.top_p",
    ),
    "eval of a model here, many at a time": ("eval --model {tiny} --parallel 4", "give --endpoint"),
    "report of an empty folder": ("report {d}/empty", "holds no metrics.jsonl"),
    "report of no folder": ("report {d}/none", "holds no metrics.jsonl"),
    "show nothing": ("show {d}/none", "none can't be read (No such file"),
    "show a folder": ("show {d}/empty", "empty can't be read (Is a directory"),
    "show a text": ("show {d}/plain.jsonl.gz", "holds no trees"),
    "show other JSON": ("show {d}/foreign.jsonl.gz", "holds no trees"),
    "show a list": ("show {d}/list.jsonl.gz", "holds no trees"),
    "show an empty file": ("show {d}/empty.jsonl", "empty.jsonl holds no trees; give a file"),
    "show a search of no run": ("show {d}/no-run.jsonl", "(line 1: a search is of node 999, which is not there)"),
    "show a question that is none": ("show {d}/no-question.jsonl", "(line 1: task.question = None: input should be"),
    "show fewer than one": ("show {d}/good-tree.jsonl --first -1", "--first -1 is no number of trees; give 1 or more"),
    "show a torn file": ("show {d}/torn.jsonl.gz", "holds no trees"),
    "show a corrupt file": ("show {d}/corrupt.jsonl.gz", "holds no trees"),
}


BAR = ("left -:--:--", "0:00:00", "/s")  # how the lines of a progress bar end


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_sentence(files, tiny_policy, capfd, monkeypatch, arguments, words):
    monkeypatch.chdir(files)  # where a run would go that should have been refused
    assert main(arguments.format(d=files, tiny=tiny_policy).split()) == 2
    lines = [line for line in map(str.strip, capfd.readouterr().err.splitlines()) if line and not line.endswith(BAR)]
    assert len(lines) == 1
    assert lines[0].startswith("firstfault: ") and words in lines[0]


def test_tracker_that_is_not_installed_is_refused(tiny_policy, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["train", "--model", str(tiny_policy), "--tracker", "wandb", "--run-dir", str(tmp_path / "run")]) == 2
    assert "pip install 'firstfault[wandb]'" in capsys.readouterr().err


def shown(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """What a verb that ends well prints, without line breaks."""
    try:
        code = main(arguments)
    except SystemExit as end:  # what argparse does after help
        code = end.code
    assert code == 0
    return " ".join(capsys.readouterr().out.split())


def test_methods_are_listed_with_their_papers(capsys):
    listed = shown(capsys, "methods")
    assert "elpo" in listed and "2602.09598" in listed and "grpo" in listed


def test_tasks_are_listed(capsys):
    assert "arithmetic" in shown(capsys, "tasks")


def test_version(capsys):
    assert shown(capsys, "--version")[0].isdigit()


def test_help_lists_the_verbs(capsys):
    listed = shown(capsys, "--help")
    assert all(verb in listed for verb in ("train", "eval", "methods", "tasks", "report", "show", "view"))


@pytest.mark.parametrize(("method", "has"), [("elpo", True), ("grpo", False)])
def test_help_lists_the_options_of_the_chosen_method(capsys, method, has):
    listed = shown(capsys, "train", "--method", method, "--help")
    assert ("--method.lambda-tree" in listed) == has
    assert "--learner.mini-batch" in listed and "--tasks.operations-max" in listed


def test_help_lists_the_options_of_a_recipes_method(capsys, tmp_path):
    (tmp_path / "recipe.toml").write_text('method = "grpo"')
    listed = shown(capsys, "train", "--config", str(tmp_path / "recipe.toml"), "--help")
    assert "--method.clip-high" in listed and "--method.lambda-tree" not in listed


def test_show_prints_the_first_trees(capsys, tmp_path):
    trees = [Tree(Task(f"question {i}", "2"), prompt=[1]) for i in range(3)]
    save_trees(trees, tmp_path / "step-0001.jsonl.gz")
    printed = shown(capsys, "show", str(tmp_path / "step-0001.jsonl.gz"), "--first", "2")
    assert "question 1" in printed and "question 2" not in printed
    printed = shown(capsys, "show", str(tmp_path / "step-0001.jsonl.gz"), "--tree", "3")
    assert "question 2" in printed and "question 1" not in printed
    assert main(["show", str(tmp_path / "step-0001.jsonl.gz"), "--tree", "4"]) == 2
    assert "has no tree 4" in capsys.readouterr().err


def test_show_tells_what_searches_found(capsys, tmp_path):
    save_trees([grow()], tmp_path / "step-0001.jsonl.gz")
    printed = shown(capsys, "show", str(tmp_path / "step-0001.jsonl.gz"))
    assert "search on run 0: after step 1 1/1, after step 2 0/2, → first fault at step 2" in printed


def settings(folder: Path) -> dict:
    return tomllib.loads((folder / "config.toml").read_text())


@pytest.fixture
def prepare(tmp_path, tiny_policy):
    """`prepare(recipe, *flags)`: the settings that a run of no steps says it has."""

    def run(recipe: str, *more: str) -> dict:
        (tmp_path / "recipe.toml").write_text(recipe)
        common = ["--model", str(tiny_policy), "--steps", "0", "--evaluation.problems", "0"]
        run_dir = ["--config", str(tmp_path / "recipe.toml"), "--run-dir", str(tmp_path / "run")]
        assert main(["train", *common, *run_dir, *more]) == 0
        return settings(tmp_path / "run")

    return run


def test_flags_override_the_recipe(prepare):
    config = prepare("batch = 8\nseed = 3\n[learner]\nepochs = 2", "--batch", "6", "--learner.mini-batch", "2")
    assert (config["batch"], config["seed"]) == (6, 3)
    assert (config["learner"]["mini_batch"], config["learner"]["epochs"]) == (2, 2)


def test_another_method_drops_the_options_of_the_recipes(prepare):
    method = prepare('[method]\nname = "elpo"\nbeta = 2.0', "--method", "grpo")["method"]
    assert method == {"name": "grpo", **GRPO().model_dump()}


def test_options_of_the_default_method_need_no_name(prepare):
    assert prepare("", "--method.beta", "2")["method"] == {"name": "elpo", **ELPO(beta=2).model_dump()}


@pytest.mark.parametrize("flag", ["--agent.max-steps", "--agent.max_steps"])
def test_underscores_are_dashes(prepare, flag):
    assert prepare("", flag, "5")["agent"]["max_steps"] == 5


def test_equals_sign_keeps_the_underscores_of_a_value(prepare, tmp_path):
    data = tmp_path / "my_tasks.jsonl"
    data.write_text('{"question": "1 + 1?", "answer": "2"}')
    assert prepare("", f"--tasks={data}")["tasks"]["name"] == str(data)


def test_stop_string_can_be_given_as_a_flag(prepare):
    assert prepare("", "--agent.stop", "Observation:")["agent"]["stop"] == ["Observation:"]


@pytest.mark.parametrize(("recipe", "flags", "functions"), [
    ("", ["--functions", "one.py", "--functions=two.py"], ["one.py", "two.py"]),
    ('functions = "one.py"', [], ["one.py"]),
    ('functions = ["one.py"]', ["--functions", "two.py"], ["two.py"]),
])  # fmt: skip
def test_lists_are_flags_that_may_be_repeated(prepare, tmp_path, monkeypatch, recipe, flags, functions):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(f'def {name}() -> str:\n    """{name}"""\n')
    assert prepare(recipe, *flags)["functions"] == functions


def test_lists_of_numbers_are_flags_that_may_be_repeated(prepare):
    flags = ["--method", "cir", "--method.calls", "8", "--method.calls", "12"]
    assert prepare("", *flags)["method"]["calls"] == [8, 12]
