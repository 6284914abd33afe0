"""REBEL: regress differences of log-ratios onto differences of rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from firstfault.credit import UNCLIPPED, credit_run, mean
from firstfault.losses import TermBatch, by_run
from firstfault.methods.base import Method
from firstfault.tree import Tree


class REBEL(Method):
    """For two runs x, y of a task: minimize ((ln ρ(x) - ln ρ(y)) / η - (R(x) - R(y)))², ρ = π / π_sampler of a run.

    Half its mean over all ordered pairs of a group is the variance of ln ρ / η - R, and so is computed. A pair with the
    same reward counts as well: its ratios are held together. No clip, no critic.

    Source: Gao et al., REBEL, arXiv 2404.16767, Eq. 9. Ours: all pairs of a group of 16 instead of two samples, and
    η = 8. Two runs with R = 1 and 0, where the first has become e times as likely: (1 - 1)² / 4, (1/2 - 1)² / 4

    >>> import torch
    >>> from firstfault.losses import TermBatch
    >>> zero, runs = torch.zeros(2), torch.tensor([0, 1])
    >>> ln = torch.tensor([1.0, 0.0])
    >>> batch = TermBatch(ln, zero, torch.tensor([0.5, -0.5]), zero + 1, zero, zero, 2.0, runs, zero.long())
    >>> REBEL(eta=1.0).loss(batch).item(), REBEL(eta=2.0).loss(batch).item()
    (0.0, 0.0625)
    """

    paper: ClassVar[str] = "REBEL, arXiv 2404.16767"

    aggregation: Literal["sequence"] = Field("sequence", description="every run has the same say")
    eta: float = Field(8.0, gt=0, description="η: how far the policy may go for a reward")

    @property
    def learns_from_ties(self) -> bool:
        return True

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            center = mean([leaf.reward for leaf in tree.leaves])  # differences do not notice
            for leaf in tree.leaves:
                credit_run(leaf, leaf.reward - center, aggregation="sequence", **UNCLIPPED)

    def loss(self, batch: TermBatch) -> Tensor:
        runs = by_run(batch, batch.old_logprobs)
        errors = runs.logratios / self.eta - runs.advantages
        _, tree = runs.trees.unique(return_inverse=True)
        sums = errors.new_zeros(int(tree.max()) + 1)
        center = sums.index_add(0, tree, errors) / sums.index_add(0, tree, errors.new_ones(len(errors)))
        return (errors - center[tree]).square().sum() / batch.total_weight
