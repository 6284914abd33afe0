"""RLOO: REINFORCE with the mean of the other runs as a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.credit import Aggregation, mean
from firstfault.methods.base import Clipped
from firstfault.tree import Tree


class RLOO(Clipped):
    """Every token of run i has the advantage A_i = R_i - mean of the other runs' rewards; no standard deviation.

    Source: Ahmadian et al., Back to Basics, arXiv 2402.14740, Eq. 8. A run's log-probability is the sum of its tokens',
    so that tokens count alike. The paper takes one step per batch and has no clip; ours, since a batch is used several
    times. Rewards [1, 1, 0] give:

    >>> from firstfault.tree import independent_runs
    >>> tree = independent_runs(1, 1, 0)
    >>> RLOO().credit([tree])
    >>> [leaf.advantage for leaf in tree.leaves]
    [0.5, 0.5, -1.0]
    """

    paper: ClassVar[str] = "Back to Basics, arXiv 2402.14740"

    aggregation: Aggregation = Field("token", description="every run has the same say, or every token")

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            rewards = [leaf.reward for leaf in tree.leaves]
            others = [[*rewards[:i], *rewards[i + 1 :]] for i in range(len(rewards))]
            self.credit_runs(tree, [reward - mean(rest) for reward, rest in zip(rewards, others, strict=True)])
