"""The mathematics that methods share, where its doctests don't suffice."""

import math

import pytest

from firstfault.credit import mean, normalize, run_weight
from firstfault.tree import Task, Tree

ALIKE = [[], [0.0], [7.5], [0.1] * 3, [0.1] * 10, [-1.1] * 6, [1e300, 1e300], [5e-324] * 3]


@pytest.mark.parametrize("values", ALIKE)
def test_equal_values_score_exactly_zero(values):
    assert normalize(values) == [0.0] * len(values)


def test_scores_are_scale_free_but_for_epsilon():
    assert normalize([1, 0, 0]) == pytest.approx(normalize([1000, 0, 0]), abs=1e-5)
    assert normalize([5, 4, 4]) == pytest.approx(normalize([1, 0, 0]))
    nearly_alike = normalize([1.0, 1.0 + 1e-9])
    assert max(map(abs, nearly_alike)) < 1e-3


def test_scores_have_mean_zero_and_the_populations_variance_one():
    scores = normalize([3.0, 1.0, 4.0, 1.0, 5.0])
    assert sum(scores) == pytest.approx(0, abs=1e-9)
    assert sum(z * z for z in scores) / len(scores) == pytest.approx(1, abs=1e-5)


def test_the_mean_of_nothing_is_zero():
    assert (mean([]), mean([1, 2]), mean((-1.0,))) == (0.0, 1.5, -1.0)
    assert repr(mean([True, True])) == "1.0"  # which JSON would write as true


def test_the_weight_of_a_run_counts_action_tokens_only():
    tree = Tree(Task("q", "a"), prompt=[1] * 100)
    step = tree.add(tree.root, rollout=0, action_tokens=[2] * 3, observation_tokens=[3] * 50)
    leaf = tree.add(step, rollout=0, action_tokens=[2], end="answer", success=True, reward=1.0)
    assert run_weight(leaf, "sequence") == 1 / 4
    assert run_weight(leaf, "token") == 1


def test_a_run_that_wrote_nothing_has_a_finite_weight():
    tree = Tree(Task("q", "a"), prompt=[1])
    leaf = tree.add(tree.root, rollout=0, end="context", success=False, reward=0.0)
    assert math.isfinite(run_weight(leaf, "sequence"))
