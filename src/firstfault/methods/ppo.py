"""PPO with a critic: a value head on the policy, and generalized advantage estimation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from firstfault.credit import Aggregation, mean, normalize_together
from firstfault.losses import TermBatch, value_error
from firstfault.methods.base import Clipped
from firstfault.tree import Node, Tree


class PPO(Clipped):
    """A_t = Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γ V(s_{t+1}) - V(s_t), and V learns A_t + V(s_t).

    Sources: Schulman et al., PPO, arXiv 1707.06347; GAE, arXiv 1506.02438, Eq. 16. Advantages are whitened over the
    batch. Ours: a step of the agent is one action, so V is asked where a step begins; the critic is a linear head on
    the policy's last hidden state with a learning rate of its own, whose loss reaches into the policy; γ = 1, λ = 0.95,
    its weight 0.1. A run of two
    steps that succeeds, where the critic said 0.2 at its start and 0.6 in its middle:

    >>> from firstfault.tree import independent_runs
    >>> tree = independent_runs(1, steps=2)
    >>> tree.root.value, tree.leaves[0].parent.value = 0.2, 0.6
    >>> [round(advantage, 2) for advantage in PPO(lambda_gae=0.5).advantages(tree.leaves[0])]
    [0.6, 0.4]
    """

    paper: ClassVar[str] = "PPO, arXiv 1707.06347"

    aggregation: Aggregation = Field("token", description="every run has the same say, or every token")
    gamma: float = Field(1.0, gt=0, le=1, description="γ: discount of a step")
    lambda_gae: float = Field(0.95, ge=0, le=1, description="λ: 1 is the return less the value, 0 the next value")
    value_weight: float = Field(0.1, ge=0, description="weight of the critic's loss")
    critic_step: float = Field(0.1, gt=0, description="about how far an update can move a value")

    @property
    def critic(self) -> float:
        return self.critic_step

    def advantages(self, leaf: Node) -> list[float]:
        """A_t of the steps of a run."""
        found, after, value_after = [], 0.0, 0.0
        for step in reversed(leaf.steps):
            delta = (step.reward if step.is_leaf else 0.0) + self.gamma * value_after - step.parent.value
            after = delta + self.gamma * self.lambda_gae * after
            found.append(after)
            value_after = step.parent.value
        return found[::-1]

    def credit(self, trees: Sequence[Tree]) -> None:
        runs = [leaf for tree in trees for leaf in tree.leaves]
        of_runs = [self.advantages(leaf) for leaf in runs]
        targets: dict[Node, list[float]] = defaultdict(list)
        for leaf, advantages, whitened in zip(runs, of_runs, normalize_together(of_runs), strict=True):
            self.credit_run(leaf, whitened)
            for step, advantage in zip(leaf.steps, advantages, strict=True):
                targets[step.parent].append(advantage + step.parent.value)
        for node, wanted in targets.items():  # a state that runs share has one value
            node.value_target = mean(wanted)

    def loss(self, batch: TermBatch) -> Tensor:
        return super().loss(batch) + self.value_weight * value_error(batch)
