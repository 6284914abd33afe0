"""AEPO: ARPO with a balance between whole runs and branches, and entropy in its credit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from firstfault.agent.base import Rollouts
from firstfault.credit import logistic, mean, normalize_together
from firstfault.losses import TermBatch, clipped_with_gradient
from firstfault.methods.arpo import ARPO
from firstfault.tree import Node, Tree


class AEPO(ARPO):
    """ARPO with a balance between whole runs and branches, and entropy in its credit.

    1. A first rollout tells how sure the agent is at the start (H_root) and after tool calls (H_tool, their mean).
       m = k σ(β (H_root - H_tool)) of the k rollouts are whole ones, the others branches.
    2. P_t = (α + γ ΔH_t) (1 - P̂(l)) after l branches in a row on the way to a step. Ours: β = 1, γ = 0.2, and P̂(l) =
       min(1, l / 2): a third branch in a row never comes, a second only where the entropy jumps by more than 2.5 nats.
    3. A ← A (1 + 0.2 z(H)) on every token, z over the tokens of the task's runs: where the agent was torn, more is at
       stake. A good token whose ratio is clipped keeps its gradient (`losses.clipped_with_gradient`).

    >>> AEPO(rollouts=16).whole(root=1.0, tools=[1.0, 1.0]), AEPO(rollouts=16).whole(root=0.2, tools=[2.2, 1.8])
    (8, 2)
    """

    paper: ClassVar[str] = "AEPO, arXiv 2510.14545"

    initial: None = Field(None, description="the first rollout says how many are whole")
    branch: Literal["threshold"] = Field("threshold", description="as printed")
    beta: float = Field(0.2, description="γ: how much P_t grows with the entropy")
    beta_root: float = Field(1.0, description="β: how fast whole rollouts grow with H_root - H_tool")
    entropy_weight: float = Field(0.2, ge=0, description="how much the entropy of a token adds to its advantage")

    # 1., 2. Rollouts balanced by entropy

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        first = await rollouts.sample(1)
        entropies = [mean(step.entropies[: self.window]) for leaf in first for step in leaf.steps] or [0.0]
        wanted = self.whole(entropies[0], entropies[1:])
        await rollouts.sample(min(wanted - 1, rollouts.remaining))
        await self.branch_out(tree, rollouts)
        await rollouts.sample(rollouts.remaining)

    def whole(self, root: float, tools: Sequence[float]) -> int:
        """m, at least 1."""
        gap = root - mean(tools) if tools else 0.0
        return max(1, round(self.rollouts * logistic(self.beta_root * gap)))

    def branches(self, tree: Tree, step: Node, chosen: Sequence[Node] = ()) -> bool:
        branched = 0
        for before in reversed(step.parent.path[1:-1]):  # the places on the way here, the last one first
            if len(before.children) == 1 and before not in chosen:
                break
            branched += 1
        return (self.alpha + self.beta * self.gap(step)) * (1 - min(1.0, branched / 2)) > self.threshold

    # 3. Credit and loss aware of entropy

    def credit(self, trees: Sequence[Tree]) -> None:
        super().credit(trees)
        for tree in trees:
            entropies = normalize_together([step.entropies for step in tree.steps])
            for step, torn in zip(tree.steps, entropies, strict=True):
                factors = [1 + self.entropy_weight * h for h in torn]
                step.terms = [
                    replace(term, advantage=[term.advantage * factor for factor in factors]) for term in step.terms
                ]

    def loss(self, batch: TermBatch) -> Tensor:
        return clipped_with_gradient(batch) + self.kl_term(batch)
