"""GRPO: independent rollouts, each scored against its group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.credit import Scale, group_advantages
from firstfault.methods.base import Clipped
from firstfault.tree import Tree


class GRPO(Clipped):
    """Every token of run i has the advantage A_i = (R_i - mean R) / (std R + ε) over the runs of its task.

    Source: Shao et al., DeepSeekMath, arXiv 2402.03300, Eq. 3 and Sec. 4.1.2 (outcome supervision). The KL term
    (k3; 0.04 in the paper) is off. Rewards [1, 1, 0] give:

    >>> from firstfault.tree import independent_runs
    >>> tree = independent_runs(1, 1, 0)
    >>> GRPO().credit([tree])
    >>> [round(leaf.advantage, 3) for leaf in tree.leaves]
    [0.707, 0.707, -1.414]
    """

    paper: ClassVar[str] = "DeepSeekMath, arXiv 2402.03300"

    scale: Scale = Field("std", description="none: not divided by the standard deviation (Dr. GRPO, by token)")

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            self.credit_runs(tree, group_advantages([leaf.reward for leaf in tree.leaves], self.scale))
