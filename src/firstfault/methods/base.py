"""What a method is: how to spend the budget of a task, how to give credit, which loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from firstfault.agent.base import Rollouts
from firstfault.agent.batch import Batch
from firstfault.config import Settings
from firstfault.credit import Aggregation, credit_run
from firstfault.losses import TermBatch, clipped_surrogate, divergence
from firstfault.rewards import REWARDS, RewardName
from firstfault.tree import Node, Tree


class Method(Settings):
    """One published algorithm. The fields are its options; their defaults are its published setting.

    A method knows no engine, no optimizer and no process: it grows trees through `Rollouts` and writes `Term`s on
    their nodes.
    """

    paper: ClassVar[str]

    rollouts: int = Field(16, ge=1, description="rollouts per task; every sampled completion counts")
    aggregation: Aggregation = Field("sequence", description="every run has the same say, or every token")
    reward: RewardName = Field("judge", description="the judge's, or one that is shaped (see docs/rewards.md)")

    @property
    def critic(self) -> float | None:
        """Of a method that needs a critic's values of all states, how far an update can move one."""
        return None

    @property
    def needs_reference(self) -> bool:
        """Whether its loss reads the log-probabilities of the policy that training began with."""
        return False

    @property
    def learns_from_ties(self) -> bool:
        """Whether its loss has a gradient where all advantages of a tree are 0."""
        return self.needs_reference

    async def explore_all(self, batch: Batch) -> list[Tree]:
        """Spend the budget of an iteration; by default the same on each of its tasks."""
        return await batch.grow(batch.draw(batch.size), self.explore, self.rollouts)

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        """Spend the budget of one task on growing its tree; by default on independent rollouts."""
        await rollouts.sample(rollouts.remaining)

    def rewards(self, tree: Tree) -> list[float]:
        """What the leaves are worth by `reward`."""
        return [REWARDS[self.reward](leaf) for leaf in tree.leaves]

    def shape(self, trees: Sequence[Tree]) -> None:
        """Put the rewards that `credit` reads in the place of the judge's, and take back what earlier credit wrote."""
        for tree in trees:
            for leaf, reward in zip(tree.leaves, self.rewards(tree), strict=True):
                leaf.judged = leaf.reward if leaf.judged is None else leaf.judged
                leaf.reward = reward
            for node in tree.nodes:
                node.terms, node.critical, node.value_target = [], False, None
            for verdict in tree.verdicts:
                verdict.marked = False

    def credit(self, trees: Sequence[Tree]) -> None:
        """Write terms on the nodes of the trees of one batch."""
        raise NotImplementedError

    def loss(self, batch: TermBatch) -> Tensor:
        """The loss of the terms of a micro-batch."""
        return clipped_surrogate(batch)


class Clipped(Method):
    """A method whose loss is the clipped surrogate, with a KL term where `kl` is above 0."""

    clip_low: float = Field(0.2, ge=0, lt=1, description="the ratio is clipped below at 1 - clip_low")
    clip_high: float = Field(0.2, ge=0, description="and above at 1 + clip_high")
    kl: float = Field(0.0, ge=0, description="weight of the divergence from the policy that training began with")
    kl_estimate: Literal["k2", "k3"] = Field("k3", description="how that is estimated (see losses.divergence)")

    @property
    def needs_reference(self) -> bool:
        return self.kl > 0

    def loss(self, batch: TermBatch) -> Tensor:
        return clipped_surrogate(batch) + self.kl_term(batch)

    def kl_term(self, batch: TermBatch) -> Tensor | float:
        """What the KL term adds to the loss."""
        return self.kl * divergence(batch, self.kl_estimate) if self.kl else 0.0

    def credit_run(self, leaf: Node, advantage: float | Sequence[float | list[float]]) -> None:
        """See `credit.credit_run`."""
        credit_run(leaf, advantage, aggregation=self.aggregation, clip_low=self.clip_low, clip_high=self.clip_high)

    def credit_runs(self, tree: Tree, advantages: Sequence[float]) -> None:
        """One advantage for each run of the tree."""
        for leaf, advantage in zip(tree.leaves, advantages, strict=True):
            self.credit_run(leaf, advantage)


class Grouped(Clipped):
    """A clipped method that draws other tasks with what it saves on each: a group is a part of the budget."""

    rollouts: int = Field(16, ge=2, description="rollouts for each task that is due; every sampled completion counts")
    group: int | None = Field(None, ge=2, description="rollouts of a task; by default half of the budget")

    @property
    def size(self) -> int:
        """Rollouts of a group, two at least."""
        return min(self.group or max(2, self.rollouts // 2), self.rollouts)
