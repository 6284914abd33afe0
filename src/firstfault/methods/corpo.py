"""CoRPO: a baseline that never praises failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.credit import mean
from firstfault.methods.base import Clipped
from firstfault.tree import Tree


class CoRPO(Clipped):
    """A_i = R_i - max(mean R, R_min) on every token of run i; no standard deviation.

    R_min is the reward of a minimally correct answer. In a group that does worse, whatever is not correct is pushed
    down, however much better than its siblings; above it, this is GRPO centred by the mean.

    Source: CoRPO, arXiv 2511.04439 (v1). Ours: R_min is midway between the judge's 0 and 1, which other rewards may
    not have. One success in four:

    >>> from firstfault.tree import independent_runs
    >>> tree = independent_runs(1, 0.25, 0, 0)
    >>> CoRPO().credit([tree])
    >>> [leaf.advantage for leaf in tree.leaves]
    [0.5, -0.25, -0.5, -0.5]
    """

    paper: ClassVar[str] = "CoRPO, arXiv 2511.04439"

    reward_min: float = Field(0.5, description="R_min: the reward of a minimally correct answer")

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            rewards = [leaf.reward for leaf in tree.leaves]
            baseline = max(mean(rewards), self.reward_min)
            self.credit_runs(tree, [reward - baseline for reward in rewards])
