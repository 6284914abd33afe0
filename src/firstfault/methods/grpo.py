"""GRPO: independent rollouts, each scored against its group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.credit import credit_run, normalize
from firstfault.methods.base import Method
from firstfault.tree import Tree


class GRPO(Method):
    """Every token of run i has the advantage A_i = (R_i - mean R) / (std R + ε) over the runs of its task.

    Source: Shao et al., DeepSeekMath, arXiv 2402.03300, Eq. 3 and Sec. 4.1.2 (outcome supervision). The KL term is
    off. Rewards [1, 1, 0] give:

    >>> from firstfault.tree import Task
    >>> tree = Tree(Task("q", "a"), prompt=[1])
    >>> for i, reward in enumerate([1.0, 1.0, 0.0]):
    ...     _ = tree.add(tree.root, rollout=i, action_tokens=[2, 3], end="answer", success=reward > 0, reward=reward)
    >>> GRPO().credit([tree])
    >>> [round(leaf.advantage, 3) for leaf in tree.leaves]
    [0.707, 0.707, -1.414]
    """

    paper: ClassVar[str] = "DeepSeekMath, arXiv 2402.03300"

    clip_low: float = Field(0.2, ge=0, lt=1, description="the ratio is clipped below at 1 - clip_low")
    clip_high: float = Field(0.2, ge=0, description="and above at 1 + clip_high")

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            advantages = normalize([leaf.reward for leaf in tree.leaves])
            for step in tree.steps:
                step.terms = []
            for leaf, advantage in zip(tree.leaves, advantages, strict=True):
                credit_run(leaf, advantage, aggregation=self.aggregation,
                           clip_low=self.clip_low, clip_high=self.clip_high)  # fmt: skip
