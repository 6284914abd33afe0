"""ToRL: GRPO from a base model, with few tool calls and plain rewards."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from firstfault.agent.base import Rollouts
from firstfault.methods.grpo import GRPO
from firstfault.rewards import RewardName
from firstfault.tree import Tree


class ToRL(GRPO):
    """GRPO with a reward of +1 or -1, and at most `calls` tool calls a run; the agent is told when none are left.

    Source: Li et al., ToRL, arXiv 2503.23383, Sec. 3. C = 1; the paper's ablation has 2, at twice the time. No KL term.

    >>> from firstfault.tree import independent_runs
    >>> tree, method = independent_runs(1, 0, 0, 0), ToRL()
    >>> method.shape([tree])
    >>> method.credit([tree])
    >>> [(leaf.reward, round(leaf.advantage, 3)) for leaf in tree.leaves[:2]]
    [(1.0, 1.732), (-1.0, -0.577)]
    """

    paper: ClassVar[str] = "ToRL, arXiv 2503.23383"

    reward: RewardName = Field("signed", description="the judge's, or one that is shaped (see docs/rewards.md)")
    calls: int = Field(1, ge=0, description="C: tool calls of a run")

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        rollouts.limit_calls(self.calls)
        await super().explore(tree, rollouts)
