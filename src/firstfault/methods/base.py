"""What a method is: how to spend the budget of a task, how to give credit, which loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from firstfault.agent.rollouts import Rollouts
from firstfault.credit import Aggregation
from firstfault.losses import TermBatch, clipped_surrogate
from firstfault.tree import Tree


class Method(BaseModel):
    """One published algorithm. The fields are its options; their defaults are its published setting.

    A method knows no engine, no optimizer and no process: it grows trees through `Rollouts` and writes `Term`s on
    their nodes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    paper: ClassVar[str]

    rollouts: int = Field(16, ge=1, description="rollouts per task; every sampled completion counts")
    aggregation: Aggregation = Field("sequence", description="every run has the same say, or every token")

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        """Spend the budget of one task on growing its tree; by default on independent rollouts."""
        await rollouts.sample(rollouts.remaining)

    def credit(self, trees: Sequence[Tree]) -> None:
        """Write terms on the nodes of the trees of one batch."""
        raise NotImplementedError

    def loss(self, batch: TermBatch) -> Tensor:
        """The loss of the terms of a micro-batch."""
        return clipped_surrogate(batch)
