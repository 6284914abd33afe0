"""Rollout trees over few tokens: hand-drawn, and random ones of all shapes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from firstfault.tree import Node, Task, Tree

# A drawing: a step is [action, observation, steps below], a leaf is [action, reward]. Each is a string of digits, a
# token each.
DRAWINGS = {
    # three levels of branching, a chain inside, an empty observation, a branch of a single token
    "three levels": ("123", [
        ["41", "55", [
            ["6", "", [["789", 1.0], ["7", 0.0], ["01", "2", [["31", 0.0], ["32", 1.0]]]]],
            ["85", "9", [["4", 0.0]]],
        ]],
        ["22", "1", [["3", "1", [["444", 1.0]]], ["3", 0.0]]],
    ]),
    "forks at the root": ("12", [["3", 1.0], ["456", 0.0], ["7", 0.0], ["3", 1.0]]),
    "a chain": ("1", [["23", "4", [["5", "", [["6", "7", [["89", 1.0]]]]]]]]),
    "a fork behind an empty observation": ("9", [["1", "", [["2", 1.0], ["3", 0.5], ["456", 0.0]]], ["77", 0.0]]),
}  # fmt: skip


def draw(drawing: tuple) -> Tree:
    prompt, steps = drawing
    tree = Tree(Task("", ""), prompt=[int(c) for c in prompt])

    def add(parent: Node, step: list) -> None:
        action = [int(c) for c in step[0]]
        fields = {"action_tokens": action, "logprobs": [-1.0] * len(action)}
        if len(step) == 2:
            tree.add(parent, rollout=0, **fields, end="answer", reward=step[1], success=step[1] == 1)
        else:
            node = tree.add(parent, rollout=0, **fields, observation_tokens=[int(c) for c in step[1]])
            for below in step[2]:
                add(node, below)

    for step in steps:
        add(tree.root, step)
    return tree


def scatter(seed: int, nodes: int = 14) -> Tree:
    """A random tree: any number of children anywhere, observations of 0 to 6 tokens, actions of 1 to 12."""
    rng = random.Random(seed)
    some = lambda low, high: [rng.randrange(10) for _ in range(rng.randint(low, high))]  # noqa: E731
    tree = Tree(Task("", ""), prompt=some(1, 10))
    for _ in range(nodes):
        action = some(1, rng.choice([1, 3, 12]))
        parent = rng.choice(tree.nodes[-rng.randint(1, len(tree.nodes)) :])
        tree.add(parent, rollout=0, action_tokens=action, logprobs=[-1.0] * len(action),
                 observation_tokens=some(0, rng.choice([0, 2, 6])))  # fmt: skip
    for node in tree.steps:
        if not node.children:
            node.observation_tokens = []
            node.end, node.reward = "answer", float(rng.randrange(2))
            node.success = node.reward == 1
    return tree


@pytest.fixture(scope="session")
def make_tree() -> Callable[[str | int], Tree]:
    """`make_tree(name)` of `DRAWINGS`, or `make_tree(seed)` for a random one."""
    return lambda which: draw(DRAWINGS[which]) if isinstance(which, str) else scatter(which)


@pytest.fixture(scope="session")
def forest(make_tree: Callable[[str | int], Tree]) -> Callable[[], list[Tree]]:
    """All drawings and some random trees."""
    return lambda: [make_tree(which) for which in [*DRAWINGS, 0, 1, 2]]
