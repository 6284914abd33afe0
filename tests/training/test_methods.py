"""Every method trains from the command line: a policy that can hardly speak, real tools, one update."""

import json

import pytest

from firstfault.cli import main
from firstfault.methods import METHODS
from firstfault.run_folder import RunFolder
from firstfault.tree import load_trees


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_from_the_command_line(name, flags, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", *flags, "--method", name, "--method.rollouts", "6", "--run-dir", str(folder)]) == 0
    row = RunFolder(folder).read_metrics()[0]
    trees = list(load_trees(RunFolder(folder).trees(1)))
    assert 0 < row["rollouts"] == sum(len(tree.leaves) for tree in trees) <= 6 * len(trees)
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["iteration"] == 1


@pytest.mark.parametrize("search", ["verified", "filled", "posterior", "random"])
def test_elpo_trains_with_every_search(search, flags, tmp_path):
    folder = tmp_path / "run"
    options = ["--method", "elpo", "--method.rollouts", "12", "--method.search", search]
    assert main(["train", *flags, *options, "--run-dir", str(folder)]) == 0
    trees = [tree for iteration in (1, 2) for tree in load_trees(RunFolder(folder).trees(iteration))]
    verdicts = [verdict for tree in trees for verdict in tree.verdicts]
    assert verdicts and all(len(verdict.weights) == verdict.steps for verdict in verdicts)
    assert all((verdict.probability is None) == (search != "posterior") for verdict in verdicts)


@pytest.mark.parametrize("name", ["grpo", "ppo", "aepo", "vineppo"])
def test_the_kl_term_is_measured_against_the_first_policy(name, flags, tmp_path):
    folder = tmp_path / "run"
    options = ["--method.rollouts", "6", "--method.kl", "0.01", "--steps", "2", "--learner.epochs", "2"]
    assert main(["train", *flags, "--method", name, *options, "--run-dir", str(folder)]) == 0
    first, second = RunFolder(folder).read_metrics()
    assert 0 <= first["kl_reference"] < 1 and second["kl_reference"] > 0


def test_the_error_of_a_critic_is_measured(flags, tmp_path):
    folder = tmp_path / "run"
    assert main(["train", *flags, "--method", "ppo", "--method.rollouts", "6", "--run-dir", str(folder)]) == 0
    assert all(0 < row["value_error"] < 2 for row in RunFolder(folder).read_metrics())


def test_the_command_line_lists_them_with_their_papers(capsys):
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert all(name in said and method.paper.split(",")[0] in said for name, method in METHODS.items())
