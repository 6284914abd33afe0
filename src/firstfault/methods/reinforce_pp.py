"""REINFORCE++: advantages normalized over the whole batch instead of each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from firstfault.credit import group_advantages, normalize_together
from firstfault.methods.base import Clipped
from firstfault.tree import Tree


class ReinforcePP(Clipped):
    """A'_i = R_i, less the mean of its group with baseline = "group"; then A = (A' - mean) / std over the whole batch.

    Source: Hu et al., REINFORCE++, arXiv 2501.03262v9. Baseline "none" is REINFORCE++ itself, meant for one run a
    prompt; "group" is REINFORCE++-baseline. The KL term (k2) is off. Two groups, with rewards [1, 0] and [1, 1]:

    >>> from firstfault.tree import independent_runs
    >>> trees = [independent_runs(1, 0), independent_runs(1, 1)]
    >>> ReinforcePP().credit(trees)
    >>> [round(leaf.advantage, 3) for tree in trees for leaf in tree.leaves]
    [1.414, -1.414, 0.0, 0.0]
    >>> trees = [independent_runs(1, 0), independent_runs(1, 1)]
    >>> ReinforcePP(baseline="none").credit(trees)
    >>> [round(leaf.advantage, 3) for tree in trees for leaf in tree.leaves]
    [0.577, -1.732, 0.577, 0.577]
    """

    paper: ClassVar[str] = "REINFORCE++, arXiv 2501.03262"

    kl_estimate: Literal["k2", "k3"] = Field("k2", description="how that is estimated (see losses.divergence)")
    baseline: Literal["group", "none"] = Field("group", description="group: subtract the mean of the task's runs first")

    def credit(self, trees: Sequence[Tree]) -> None:
        rewards, center = [[leaf.reward for leaf in tree.leaves] for tree in trees], None
        if self.baseline == "group":  # their mean is then 0, which a rounded sum would miss
            rewards, center = [group_advantages(group, "none") for group in rewards], 0.0
        for tree, advantages in zip(trees, normalize_together(rewards, center=center), strict=True):
            self.credit_runs(tree, advantages)
