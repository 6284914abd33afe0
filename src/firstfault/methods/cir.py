"""CIR: REINFORCE++ with a budget of tool calls that grows in stages."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from firstfault.agent.base import Rollouts
from firstfault.methods.reinforce_pp import ReinforcePP
from firstfault.tree import Tree


class CIR(ReinforcePP):
    """REINFORCE++-baseline with the clip at 0.2 and 0.28, where runs may make more tool calls stage by stage.

    Source: Bai et al., Towards Effective Code-Integrated Reasoning, arXiv 2505.24480. Ours, since the paper's numbers
    could not be found: 4 calls in the first 10 iterations, 8 in the next 10, then 16.

    >>> [CIR().budget(iteration) for iteration in (1, 10, 11, 20, 21, 500)]
    [4, 4, 8, 8, 16, 16]
    """

    paper: ClassVar[str] = "Code-Integrated Reasoning, arXiv 2505.24480"

    clip_high: float = Field(0.28, ge=0, description="and above at 1 + clip_high")
    calls: list[int] = Field([4, 8, 16], min_length=1, description="tool calls of a run, by stages")
    stage: int = Field(10, ge=1, description="iterations of a stage")

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        rollouts.limit_calls(self.budget(tree.key[1]))  # (seed, iteration, task)
        await super().explore(tree, rollouts)

    def budget(self, iteration: int) -> int:
        return self.calls[min(max(0, iteration - 1) // self.stage, len(self.calls) - 1)]
