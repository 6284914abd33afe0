"""Every method trains from the command line: a policy that can hardly speak, real tools, one update."""

import json

import pytest

from firstfault.cli import main
from firstfault.methods import METHODS
from firstfault.training.checkpoint import RunFolder
from firstfault.tree import load_trees


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_from_the_command_line(name, flags, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", *flags, "--method", name, "--method.rollouts", "6", "--run-dir", str(folder)]) == 0
    row = RunFolder(folder).read_metrics()[0]
    trees = list(load_trees(RunFolder(folder).trees(1)))
    assert 0 < row["rollouts"] == sum(len(tree.leaves) for tree in trees) <= 6 * len(trees)
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["iteration"] == 1


def test_the_command_line_lists_them_with_their_papers(capsys):
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert all(name in said and method.paper.split(",")[0] in said for name, method in METHODS.items())
