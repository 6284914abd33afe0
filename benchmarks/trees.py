"""Made-up rollout trees of a given shape, for measuring."""

from __future__ import annotations

import random

from firstfault.credit import credit_run
from firstfault.tree import Node, Task, Tree

STEP = (16, 48)  # tokens of an action and the observation behind it, a half each


def make_tree(seed: int, *, depth: int, ratio: float, leaves: int = 16, vocab: int = 384) -> Tree:
    """Runs of `depth` steps that together have about `ratio` times the unique tokens of their tree.

    The runs part two by two, evenly spread over the steps; where they would share too much in this way, all part at
    once behind the prompt. The length of the prompt does the rest. Every other run succeeds.
    """
    rng = random.Random(str((seed, depth, ratio)))
    tokens = lambda n: [rng.randrange(8, vocab) for _ in range(n)]  # noqa: E731
    splits = leaves.bit_length() - 1
    for at in ([i * depth // splits for i in range(splits)], [0] * splits):
        widths = [2 ** sum(split <= step for split in at) for step in range(depth)]
        steps, flat_steps = sum(widths) - leaves / 2, leaves * (depth - 0.5)  # the last one is only half a step
        prompt = round(sum(STEP) / 2 * (ratio * steps - flat_steps) / (leaves - ratio)) if ratio < leaves else 0
        if prompt > 0:
            break
    tree = Tree(Task("", ""), prompt=tokens(max(1, prompt)))
    layer: list[Node] = [tree.root]
    for step, width in enumerate(widths):
        parents, layer = layer, []
        for parent in parents:
            for _ in range(width // len(parents)):
                half = rng.randint(*STEP) // 2
                last = {"end": "answer", "success": len(layer) % 2 == 0, "reward": float(len(layer) % 2 == 0)}
                layer.append(tree.add(
                    parent, rollout=0, action_tokens=tokens(half), logprobs=[-6.0] * half,
                    observation_tokens=[] if step == depth - 1 else tokens(half), **(last if step == depth - 1 else {}),
                ))  # fmt: skip
    for number, leaf in enumerate(tree.leaves):  # as GRPO gives it, where half of the runs succeed
        credit_run(leaf, 1.0 if number % 2 == 0 else -1.0, aggregation="sequence", clip_low=0.2, clip_high=0.2)
    return tree


def flat_tokens(tree: Tree) -> int:
    """How many tokens the runs have, one by one."""
    return sum(len(leaf.tokens) for leaf in tree.leaves)
