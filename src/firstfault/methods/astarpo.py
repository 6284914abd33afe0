"""A*-PO: regress the log-ratio onto the optimal advantage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from firstfault.agent.batch import Batch
from firstfault.credit import UNCLIPPED, credit_run, mean
from firstfault.losses import TermBatch, by_run
from firstfault.methods.base import Method
from firstfault.tree import Tree


class AStarPO(Method):
    """Minimize (β₂ ln π(run) / π_ref(run) - (R - V*))² over runs of the policy; no clip, no ratio, no critic.

    1. V*(x) = β₁ ln mean exp(R / β₁) over `offline` (N) runs of the reference policy: what the best policy close to it
       would get. The reference is the policy that training began with.
    2. The other rollouts are of the present policy, and trained on.

    Source: Brantley et al., A*-PO, arXiv 2505.20686, Eqs. 4-6. N = 8, β₁ = 0.5, β₂ = 0.001, one run a task. Ours: the
    first stage is made task by task, when a task is due, from the reference's weights, which changes nothing in what it
    estimates.

    >>> round(AStarPO().optimal_value([0.0] * 7 + [1.0]), 3), AStarPO(beta_1=0.05).optimal_value([0, 0]) == 0
    (0.294, True)
    """

    paper: ClassVar[str] = "A*-PO, arXiv 2505.20686"

    rollouts: int = Field(9, ge=2, description="rollouts per task, those of the reference included")
    aggregation: Literal["sequence"] = Field("sequence", description="every run has the same say")
    offline: int = Field(8, ge=1, description="N: rollouts of the reference policy; one less than all at most")
    beta_1: float = Field(0.5, gt=0, description="β₁: temperature of V*")
    beta_2: float = Field(1e-3, gt=0, description="β₂: how far the policy may go from the reference")
    drop_hopeless: bool = Field(False, description="leave out tasks that the reference never solves")

    @property
    def needs_reference(self) -> bool:
        return True

    async def explore_all(self, batch: Batch) -> list[Tree]:
        tasks, offline = batch.draw(batch.size), min(self.offline, self.rollouts - 1)
        with batch.reference():
            earlier = await batch.grow(tasks, self.explore, offline)
        trees = await batch.grow(tasks, self.explore, self.rollouts - offline)
        for tree, before in zip(trees, earlier, strict=True):
            if before.leaves and (not self.drop_hopeless or before.has_success):
                tree.root.value = self.optimal_value(self.rewards(before))
        return [*trees, *earlier]

    def optimal_value(self, rewards: Sequence[float]) -> float:
        """V* (Eq. 5)."""
        best = max(rewards)
        return best + self.beta_1 * math.log(mean([math.exp((reward - best) / self.beta_1) for reward in rewards]))

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            for leaf in tree.leaves if tree.root.value is not None else []:
                credit_run(leaf, leaf.reward - tree.root.value, aggregation="sequence", **UNCLIPPED)

    def loss(self, batch: TermBatch) -> Tensor:
        runs = by_run(batch, batch.reference_logprobs)
        return (self.beta_2 * runs.logratios - runs.advantages).square().sum() / batch.total_weight
