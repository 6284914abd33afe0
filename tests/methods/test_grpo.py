"""GRPO on hand-drawn groups."""

import math

import pytest

from firstfault.methods import GRPO
from firstfault.tree import Task, Tree


def group(*rewards: float, lengths: list[list[int]] | None = None) -> Tree:
    """Independent runs with these rewards; `lengths` has the action tokens of each run's steps."""
    tree = Tree(Task("q", "a"), prompt=[1])
    for rollout, (reward, steps) in enumerate(zip(rewards, lengths or [[1]] * len(rewards), strict=True)):
        node = tree.root
        for n in steps:
            node = tree.add(node, rollout=rollout, action_tokens=[2] * n, logprobs=[-0.5] * n)
        node.end, node.success, node.reward = "answer", reward > 0, reward
    return tree


def shared() -> Tree:
    """Runs 0 and 1 share their first step of 2 tokens; run 0 goes on for 2 more, run 1 for 6. Run 2 is alone."""
    tree = Tree(Task("q", "a"), prompt=[1])
    step = tree.add(tree.root, rollout=0, action_tokens=[2] * 2)
    tree.add(step, rollout=0, action_tokens=[2] * 2, end="answer", success=True, reward=1.0)
    tree.add(step, rollout=1, action_tokens=[2] * 6, end="answer", success=False, reward=0.0)
    tree.add(tree.root, rollout=2, action_tokens=[2] * 5, end="max_steps", success=False, reward=0.0)
    return tree


GROUPS = [
    ([1, 1, 0, 0], [1, 1, -1, -1]),
    ([1, 0, 0, 0], [math.sqrt(3)] + [-1 / math.sqrt(3)] * 3),
    ([0.0, 0.5, 1.0], [-math.sqrt(1.5), 0, math.sqrt(1.5)]),
    ([-1.1, 1.0], [-1, 1]),
    ([1, 1, 1], [0, 0, 0]),
    ([0.1, 0.1, 0.1], [0, 0, 0]),  # whose mean is not 0.1 in floats
    ([1], [0]),
]


@pytest.mark.parametrize(("rewards", "advantages"), GROUPS)
def test_advantages_are_z_scores_of_the_group_on_every_step(rewards, advantages):
    tree = group(*rewards, lengths=[[1, 2]] * len(rewards))
    GRPO().credit([tree])
    for leaf, advantage in zip(tree.leaves, advantages, strict=True):
        assert [step.advantage for step in leaf.steps] == pytest.approx([advantage] * 2, abs=1e-4)


def test_a_group_that_scores_alike_has_exactly_no_gradient():
    for rewards in ([0, 0, 0], [1.0] * 16, [0.1] * 3, [-1.1] * 7):
        tree = group(*rewards)
        GRPO().credit([tree])
        assert not tree.has_gradient and all(node.terms for node in tree.steps)


def test_groups_do_not_see_each_other():
    trees = [group(1, 0), group(100, 99)]
    GRPO().credit(trees)
    assert [[leaf.advantage for leaf in tree.leaves] for tree in trees] == [pytest.approx([1, -1], abs=1e-4)] * 2


def test_a_shared_step_carries_one_term_per_run():
    tree = shared()
    GRPO(clip_low=0.1, clip_high=0.3).credit([tree])
    won, lost = math.sqrt(2), -1 / math.sqrt(2)
    step, *leaves = tree.steps
    assert [term.advantage for term in step.terms] == pytest.approx([won, lost], abs=1e-4)
    assert [term.advantage for leaf in leaves for term in leaf.terms] == pytest.approx([won, lost, lost], abs=1e-4)
    assert {(term.clip_low, term.clip_high) for node in tree.steps for term in node.terms} == {(0.1, 0.3)}
    assert not tree.root.terms


@pytest.mark.parametrize(
    ("aggregation", "weights"),
    [("sequence", [[1 / 4, 1 / 8], [1 / 4], [1 / 8], [1 / 5]]), ("token", [[1, 1], [1], [1], [1]])],
)
def test_every_run_has_the_same_say_or_every_token(aggregation, weights):
    tree = shared()
    GRPO(aggregation=aggregation).credit([tree])
    assert [[term.weight for term in node.terms] for node in tree.steps] == weights
    total = sum(term.weight * len(node.action_tokens) for node in tree.steps for term in node.terms)
    assert total == pytest.approx({"sequence": 3, "token": 4 + 8 + 5}[aggregation])
