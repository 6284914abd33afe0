"""ARPO: branch where the entropy jumps after a tool call."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from firstfault.agent.base import Rollouts
from firstfault.credit import Aggregation, mean, normalize, run_weight
from firstfault.methods.base import Clipped
from firstfault.rewards import RewardName
from firstfault.tree import Node, Term, Tree


class ARPO(Clipped):
    """Branches where the entropy jumps after a tool call.

    1. `initial` (N) whole rollouts. H_init is the mean entropy of the first `window` (k) tokens of a run, H_t that of
       the first k after its tool call t, ΔH_t = H_t - H_init.
    2. Where P_t = α + β ΔH_t > τ, one completion more starts after that call; branches branch in turn, early places
       first. What is left of the budget goes to whole rollouts.
    3. "soft": GRPO over all leaves. "hard": the same scores, but a step that runs share takes the mean of theirs (by
       the weights of the runs). The two have the same gradient while no ratio is clipped.

    Ours: k = 20, α = 0.5, β = 0.2, τ = 0.5, entropies in nats. `branch = "coin"` is what the authors' code does
    instead of 2: a branch with probability clip(0.5 + 0.2 ΔH_t, 0, 1), where ΔH lags one call behind.

    >>> from firstfault.tree import Task
    >>> tree = Tree(Task("q", "a"), prompt=[1])
    >>> first = tree.add(tree.root, rollout=0, entropies=[0.2, 0.4])
    >>> calm, torn = (tree.add(first, rollout=0, entropies=[h, 0.3]) for h in (0.1, 0.9))
    >>> round(ARPO().gap(torn), 3), ARPO().branches(tree, calm), ARPO().branches(tree, torn)
    (0.3, False, True)
    """

    paper: ClassVar[str] = "ARPO, arXiv 2507.19849"

    aggregation: Aggregation = Field("token", description="every run has the same say, or every token")
    reward: RewardName = Field("tools", description="the judge's, or one that is shaped (see docs/rewards.md)")
    initial: int | None = Field(None, ge=1, description="N: whole rollouts before any branch; by default half of all")
    window: int = Field(20, ge=1, description="k: tokens whose entropy counts")
    alpha: float = Field(0.5, description="α: the base of P_t")
    beta: float = Field(0.2, description="β: how much P_t grows with the entropy")
    threshold: float = Field(0.5, description="τ: branch where P_t is above")
    branch: Literal["threshold", "coin"] = Field("threshold", description="coin: as the authors' code has it")
    advantages: Literal["soft", "hard"] = Field("soft", description="how steps that runs share are credited")

    # 1., 2. Adaptive rollouts

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        await rollouts.sample(min(self.initial or -(-self.rollouts // 2), rollouts.remaining))
        await self.branch_out(tree, rollouts)
        await rollouts.sample(rollouts.remaining)

    async def branch_out(self, tree: Tree, rollouts: Rollouts) -> None:
        """Start completions wherever `branches` says so, wave after wave, until there is no place or no budget."""
        looked_at = 0
        while rollouts.remaining:
            # the first step of a branch follows the very call at which it was decided on
            steps = [step for step in tree.steps[looked_at:] if step.parent is not step.anchor]
            looked_at = len(tree.steps)
            places: list[Node] = []
            for step in sorted(steps, key=lambda step: step.depth):
                if len(places) < rollouts.remaining and self.branches(tree, step, places):
                    places.append(step.parent)
            if not places:
                break
            await rollouts.continue_all(places)

    def gap(self, step: Node) -> float:
        """ΔH_t in nats of the step that follows a tool call."""
        return mean(step.entropies[: self.window]) - mean(step.steps[0].entropies[: self.window])

    def branches(self, tree: Tree, step: Node, chosen: Sequence[Node] = ()) -> bool:
        """Whether a completion more starts where this step started, beside those after the nodes `chosen` just now."""
        if self.branch == "threshold":
            return self.alpha + self.beta * self.gap(step) > self.threshold
        draw = random.Random(f"{tree.key} {step.rollout} {step.depth}").random()
        return draw < self.alpha + self.beta * self.gap(step.parent)  # lags one call behind

    # 3. Advantage attribution

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            scores = dict(zip(tree.leaves, normalize([leaf.reward for leaf in tree.leaves]), strict=True))
            if self.advantages == "soft":
                self.credit_runs(tree, list(scores.values()))
                continue
            for step in tree.steps:
                weights = [run_weight(leaf, self.aggregation) for leaf in step.leaves]
                total = sum(weight * scores[leaf] for weight, leaf in zip(weights, step.leaves, strict=True))
                step.terms = [Term(total / sum(weights), sum(weights), self.clip_low, self.clip_high)]
