"""GRPO-TCR: GRPO with a token-level loss, a higher upper clip and shaped rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.credit import Aggregation, normalize
from firstfault.methods.base import Clipped
from firstfault.methods.overlong import Overlong
from firstfault.rewards import RewardName
from firstfault.tree import Tree


class GRPOTCR(Overlong, Clipped):
    """GRPO over rewards that pay failures for tool use, with a mean over tokens and the clip at 0.2 and 0.28.

    Source: DemyAgent, arXiv 2510.11701. Runs longer than `overlong_limit` less `overlong_buffer` lose up to 1. Ours:
    both lengths, as DAPO has them, since the paper's could not be found. A success, and failures of one and of five
    steps:

    >>> from firstfault.tree import Task, Tree
    >>> tree = Tree(Task("q", "a"), prompt=[1])
    >>> for rollout, (steps, success) in enumerate([(2, True), (1, False), (5, False)]):
    ...     node = tree.root
    ...     for _ in range(steps):
    ...         node = tree.add(node, rollout=rollout, action_tokens=[2])
    ...     node.end, node.success, node.reward = "answer", success, float(success)
    >>> method = GRPOTCR()
    >>> method.shape([tree])
    >>> [leaf.reward for leaf in tree.leaves]
    [1.0, -1.0, -0.6]
    >>> method.credit([tree])
    >>> [round(leaf.advantage, 3) for leaf in tree.leaves]
    [1.389, -0.926, -0.463]
    """

    paper: ClassVar[str] = "DemyAgent, arXiv 2510.11701"

    aggregation: Aggregation = Field("token", description="every run has the same say, or every token")
    reward: RewardName = Field("turns", description="the judge's, or one that is shaped (see docs/rewards.md)")
    clip_high: float = Field(0.28, ge=0, description="and above at 1 + clip_high")

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            self.credit_runs(tree, normalize(self.less_overlong(tree)))
