"""Whole training runs of a tiny policy: what they leave behind, and that they come to the same end again."""

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from firstfault.cli import main
from firstfault.config import ColdStartConfig, LearnerConfig, OptimizerConfig
from firstfault.errors import UserError
from firstfault.files import saving
from firstfault.report.metrics import METRICS
from firstfault.run_folder import RunFolder
from firstfault.tasks import Arithmetic
from firstfault.training.cold_start import cold_start
from firstfault.training.learner import Learner
from firstfault.training.tiny import tiny_tokenizer
from firstfault.tree import load_trees

METHODS = {
    "elpo": ["--method", "elpo", "--method.rollouts", "8"],
    "grpo": ["--method", "grpo", "--method.rollouts", "4"],
    "astarpo": ["--method", "astarpo", "--method.rollouts", "4"],  # which needs a reference
    "ppo": ["--method", "ppo", "--method.rollouts", "4"],  # which needs a critic
}


@pytest.fixture
def train(flags: list[str], tmp_path: Path) -> Callable[..., Path]:
    """`train(name, *more flags)`: a run in a folder of that name."""

    def run(name: str, *more: str, method: str = "elpo") -> Path:
        folder = tmp_path / name
        assert main(["train", *flags, *METHODS[method], "--run-dir", str(folder), *more]) == 0
        return folder

    return run


@pytest.fixture
def start(flags: list[str], tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """`start(name, *more flags)`: such a run in a process of its own, that would never end by itself."""

    def run(name: str, *more: str) -> subprocess.Popen:
        # who starts tests in the background may have interrupts ignored on arrival
        program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
        program += "; from firstfault.cli import main; sys.exit(main())"
        arguments = [*flags, *METHODS["elpo"], "--steps", "100000", "--run-dir", str(tmp_path / name), *more]
        return subprocess.Popen(
            [sys.executable, "-c", program, "train", *arguments], stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip

    return run


def wait_for_row(process: subprocess.Popen, folder: Path, iteration: int) -> None:
    while len(RunFolder(folder).read_metrics()) < iteration:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def rows(folder: Path) -> list[dict]:
    """The metrics that have to be the same again: all but times and memory."""
    return [
        {k: v for k, v in row.items() if "seconds" not in k and "memory" not in k}
        for row in RunFolder(folder).read_metrics()
    ]


def trees(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "trees").iterdir())}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(folder).last_checkpoint()[1] / "model.safetensors")


def assert_same_run(a: Path, b: Path) -> None:
    assert rows(a) == rows(b)
    assert trees(a) == trees(b)
    assert RunFolder(a).read_evaluation() == RunFolder(b).read_evaluation()
    assert weights(a).keys() == weights(b).keys()
    assert all(torch.equal(tensor, weights(b)[name]) for name, tensor in weights(a).items())


# cold start


def test_cold_start_is_taught_once(cache):
    taught = []
    config = ColdStartConfig(steps=2, batch=2, width=32, layers=1)
    folders = [cold_start(Arithmetic(operations_max=4), config, taught.append) for _ in range(2)]
    assert folders[0] == folders[1] and folders[0].parent == cache
    assert len(taught) == 2


@pytest.mark.parametrize("other", [{"seed": 1}, {"lr": 1e-3}, {"layers": 2}, {"steps": 3}])
def test_another_recipe_has_another_folder(cache, other):
    recipe = {"steps": 2, "batch": 2, "width": 32, "layers": 1}
    source = Arithmetic(operations_max=4)
    assert cold_start(source, ColdStartConfig(**recipe)) != cold_start(source, ColdStartConfig(**recipe | other))


def test_other_tasks_have_another_folder(cache):
    config = ColdStartConfig(steps=2, batch=2, width=32, layers=1)
    assert cold_start(Arithmetic(operations_max=4), config) != cold_start(Arithmetic(operations_max=5), config)


def test_another_number_of_threads_has_another_folder(cache):
    config, threads = ColdStartConfig(steps=2, batch=2, width=32, layers=1), torch.get_num_threads()
    folder = cold_start(Arithmetic(operations_max=4), config)
    try:
        torch.set_num_threads(threads + 1)
        assert cold_start(Arithmetic(operations_max=4), config) != folder
    finally:
        torch.set_num_threads(threads)


def test_cold_start_leaves_nothing_half_done(tiny_policy):
    assert not list(tiny_policy.parent.glob("*.part"))


# the same again


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_run(train, method):
    first = train("first", "--steps", "3", method=method)
    assert any(row["updates"] and row["gradient_norm"] for row in rows(first))  # there was something to compare
    assert sum(row["tool_calls"] for row in rows(first))
    assert_same_run(first, train("second", "--steps", "3", method=method))


def test_elpo_probes_in_these_runs(train):
    assert sum(row["probes"] for row in rows(train("run", "--steps", "3")))


def test_another_seed_is_another_run(train):
    first, second = train("first", "--seed", "1"), train("second", "--seed", "2")
    assert trees(first) != trees(second)
    assert not torch.equal(*(weights(f)["model.embed_tokens.weight"] for f in (first, second)))


def test_config_toml_gives_the_run_again(train, tmp_path):
    first, again = train("first"), tmp_path / "again"
    assert main(["train", "--config", str(first / "config.toml"), "--run-dir", str(again)]) == 0
    assert_same_run(first, again)


# interrupted and resumed


RESUMED = {
    "reference": ["--checkpoint-every", "1", "--method", "astarpo"],
    "critic": ["--checkpoint-every", "1", "--method", "ppo"],
    "Muon": ["--checkpoint-every", "1", "--optimizer.name", "muon"],
    "evaluated each": ["--checkpoint-every", "1", "--evaluation.every", "1"],
    "several passes": ["--checkpoint-every", "1", "--learner.epochs", "2", "--method", "grpo"],
}


@pytest.mark.parametrize("settings", RESUMED.values(), ids=RESUMED)
def test_resumed_run_ends_like_an_uninterrupted_one(train, settings):
    whole = train("whole", "--steps", "3", *settings)
    resumed = train("resumed", "--steps", "1", *settings)
    train("resumed", "--steps", "3", "--resume", *settings)
    records = RunFolder(resumed).read_evaluation()
    records = [r for r in records if r["iteration"] != 1 or "--evaluation.every" in settings]  # the end of the first
    RunFolder(resumed).evaluation.write_text(json.dumps(records))
    assert_same_run(whole, resumed)


def test_killed_run_goes_on_to_the_same_end(train, start, tmp_path):
    folder = tmp_path / "killed"
    process = start("killed", "--checkpoint-every", "2")
    wait_for_row(process, folder, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    steps = str(RunFolder(folder).last_checkpoint()[0] + 3)
    assert_same_run(train("whole", "--steps", steps), train("killed", "--steps", steps, "--resume"))


def test_what_a_crash_leaves_is_survived(train):
    whole, torn = (train(name, "--steps", "3", "--checkpoint-every", "2") for name in ("whole", "torn"))
    (torn / "checkpoints" / "step-0003").rename(torn / "checkpoints" / "step-0003.part")
    (torn / "trees" / ".step-0004.jsonl.gz.7.part").touch()
    with (torn / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "succ')
    assert_same_run(whole, train("torn", "--steps", "3", "--checkpoint-every", "2", "--resume"))


def test_run_resumed_before_its_first_iteration_is_evaluated_once(train):
    train("run", "--steps", "0")
    folder = train("run", "--steps", "1", "--resume")
    assert [record["iteration"] for record in RunFolder(folder).read_evaluation()] == [0, 1]


def test_finished_run_stays_as_it_is(train):
    folder = train("run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    train("run", "--resume")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_resume_of_nothing_starts_from_scratch(train, tmp_path, capsys):
    assert_same_run(train("first"), train("second", "--resume"))
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "typo")]) == 2  # but for one that says nothing else
    assert "there is no run to go on with" in capsys.readouterr().err


def test_a_run_at_work_is_left_alone(train, start, flags, tmp_path, capsys):
    process = start("run", "--checkpoint-every", "1000")
    wait_for_row(process, tmp_path / "run", 2)
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "run")]) == 2
    assert "another command is at work in" in capsys.readouterr().err
    assert len(RunFolder(tmp_path / "run").read_metrics()) >= 2
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(train, flags, capsys):
    folder = train("run")
    shutil.rmtree(folder / "checkpoints")
    rows = RunFolder(folder).metrics.read_text()
    for more, said in (([], "holds a run already"), (["--resume"], "holds a run without a checkpoint to go on from")):
        assert main(["train", *flags, *METHODS["elpo"], "--run-dir", str(folder), *more]) == 2
        assert said in capsys.readouterr().err
    assert RunFolder(folder).metrics.read_text() == rows


def test_a_task_without_room_shows_before_the_run_begins(tiny_policy, tmp_path, capsys):
    tasks = [{"question": "1 + 1?", "answer": "2"}] * 9 + [{"question": "1 + 1? " * 400, "answer": "2"}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    of = ["--model", str(tiny_policy), "--tasks", str(tmp_path / "mine.jsonl"), "--batch", "4", "--device", "cpu"]
    limits = ["--agent.max-context", "512", "--agent.max-new-tokens", "32"]
    assert main(["train", *of, *limits, "--steps", "12", "--run-dir", str(tmp_path / "run")]) == 2
    assert "mine.jsonl, line 10 has" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_from_before_an_option_was_there_goes_on(train):
    config = RunFolder(train("run", "--steps", "1")).config
    lines = config.read_text().splitlines()
    older = [line for line in lines if not line.startswith(("lambda_tree", "recoverable"))]
    assert len(older) == len(lines) - 2
    config.write_text("\n".join(older))
    assert len(rows(train("run", "--steps", "2", "--resume"))) == 2


def test_newest_checkpoint_has_the_largest_number(tmp_path):
    for iteration in (9999, 10000):
        RunFolder(tmp_path).checkpoint(iteration).mkdir(parents=True)
    assert RunFolder(tmp_path).last_checkpoint()[0] == 10000


def test_resumed_learner_takes_the_learning_rate_that_is_asked_for(make_model):
    def learner(lr: float) -> Learner:
        return Learner(make_model(), OptimizerConfig(name="muon", lr=lr, muon_lr=lr), LearnerConfig())

    resumed = learner(0.5)
    resumed.load_state(learner(0.1).state())
    resumed.scale_lr(1.0)
    assert {group["lr"] for optimizer in resumed.optimizers for group in optimizer.param_groups} == {0.5}


def test_resume_with_another_optimizer_is_refused(train, flags, tmp_path, capsys):
    train("run", "--steps", "1")
    arguments = ["--run-dir", str(tmp_path / "run"), "--resume", "--optimizer.name", "muon"]
    capsys.readouterr()
    assert main(["train", *flags, *arguments]) == 2
    assert "another optimizer" in capsys.readouterr().err


def test_interrupted_run_says_so_and_goes_on(train, start, tmp_path):
    folder = tmp_path / "run"
    process = start("run", "--checkpoint-every", "1")
    wait_for_row(process, folder, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers of the tools too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("firstfault: interrupted") and "Traceback" not in errors
    steps = str(RunFolder(folder).last_checkpoint()[0] + 1)
    assert_same_run(train("whole", "--steps", steps), train("run", "--steps", steps, "--resume"))


# a full disk

FULL = {
    "at the first checkpoint's weights": (60_000, ["--method.rollouts", "4"]),
    "at a later checkpoint's optimizer": (200_000, ["--method.rollouts", "4"]),
    "at the trees": (130_000, ["--method.rollouts", "64", "--steps", "1"]),
}


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """No file gets larger than `size` bytes: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:  # before pytest writes its next line, to a file perhaps
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("size", "settings"), FULL.values(), ids=FULL)
def test_full_disk_is_one_sentence_and_the_run_goes_on(train, flags, tmp_path, capsys, size, settings):
    folder = tmp_path / "run"
    settings = ["--method", "grpo", *settings]
    with files_limited_to(size):
        code = main(["train", *flags, *settings, "--run-dir", str(folder)])
    assert code == 2
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1].startswith("firstfault: ") and "Traceback" not in errors
    assert "can't be written" in errors and "--resume" in errors
    for path in folder.rglob("trees/*.gz"):
        assert list(load_trees(path))  # what was saved before is whole
    train("run", "--resume", *settings)
    assert_same_run(train("whole", *settings), folder)


def test_full_disk_at_a_tokenizer_is_a_sentence(tmp_path):
    tokenizer = tiny_tokenizer(["1 + 1"])
    with pytest.raises(UserError, match="can't be written"), files_limited_to(3000), saving(tmp_path):
        tokenizer.save_pretrained(tmp_path)


def test_saving_hides_no_bug(tmp_path):
    with pytest.raises(TypeError), saving(tmp_path):
        len(5)


# the folder


@pytest.fixture(scope="module")
def finished(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two iterations."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", *flags, *METHODS["elpo"], "--run-dir", str(folder)]) == 0
    return folder


def test_metrics_have_the_documented_names(finished):
    for row in RunFolder(finished).read_metrics():
        untold = {"kl_reference", "value_error"} | ({"clip_share_localized"} if row["localized_share"] == 0 else set())
        assert row.keys() == METRICS.keys() - untold


def test_trees_of_each_iteration_can_be_read(finished):
    folder = finished
    for iteration in (1, 2):
        grown = list(load_trees(RunFolder(folder).trees(iteration)))
        assert [tree.key for tree in grown] == [(0, iteration, number) for number in range(4)]
        assert all(len(tree.leaves) == 8 for tree in grown)


def test_times_are_not_in_the_trees(finished):
    text = gzip.decompress((finished / "trees" / "step-0001.jsonl.gz").read_bytes()).decode()
    assert '"calls": [{' in text and '"seconds"' not in text


def test_evaluation_before_and_after(finished):
    records = RunFolder(finished).read_evaluation()
    assert [record["iteration"] for record in records] == [0, 2]
    for record in records:
        for kind in ("sampled", "greedy"):
            assert 0 <= record[f"{kind}_low"] <= record[kind] <= record[f"{kind}_high"] <= 1


def test_report_is_written(finished):
    assert "<svg" in (finished / "report.html").read_text()


def test_nothing_half_done_is_left(finished):
    assert not list(finished.rglob("*.part"))


def test_checkpoint_is_a_model_like_any_other(finished):
    checkpoint = RunFolder(finished).last_checkpoint()[1]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    chat = [{"role": "user", "content": "Start with 1.\nFirst add 2."}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**prompt, max_new_tokens=3, do_sample=False)
    assert model.config._attn_implementation == "sdpa"
    assert written.shape[1] > prompt["input_ids"].shape[1]


def test_tensorboard_writes_events(train):
    assert list(train("run", "--tracker", "tensorboard", "--steps", "1").rglob("events.out.tfevents.*"))


def test_jsonl_tasks_train(tiny_policy, tmp_path):
    data, folder = tmp_path / "sums.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps({"question": f"Start with {i}.", "answer": i}) + "\n" for i in range(3)))
    code = main([
        *("train", "--model", str(tiny_policy), "--run-dir", str(folder), "--steps", "1", "--batch", "4"),
        *("--tasks", str(data), "--tasks.held-out-path", str(data), "--evaluation.samples", "1"),
        *("--method.rollouts", "2", "--agent.max-new-tokens", "32", "--agent.max-context", "512"),
    ])  # fmt: skip
    assert code == 0
    questions = [tree.task.question for tree in load_trees(RunFolder(folder).trees(1))]
    assert len(questions) == 4 and len(set(questions)) == 3
    assert RunFolder(folder).read_evaluation()[0]["problems"] == 3
