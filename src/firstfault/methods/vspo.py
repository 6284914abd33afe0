"""VSPO: groups that teach nothing give way to tasks that are hard and uncertain."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.agent.batch import Batch
from firstfault.credit import mean, normalize
from firstfault.methods.base import Grouped
from firstfault.rewards import RewardName
from firstfault.tree import Task, Tree


class VSPO(Grouped):
    """Groups that teach nothing give way to tasks that are hard and uncertain; with its progressive reward (PRS).

    1. A group of `group` rollouts for each task. One whose rewards are all equal is replaced by a task of the batch,
       drawn with probability ∝ V(q) = (R_max - μ_q) σ_q: hard, and uncertain.
    2. GRPO's advantages, times n^(-`smoothing`) for a task of which n groups teach (value-smoothing clipping).
       Without it, the paper's own sampler does far worse than GRPO.

    Ours: a replacement gets fresh rollouts, which count; a group has half of the budget, so that all can be replaced;
    R_max = 1; smoothing = 1/2 (with re-used rollouts, 1 would be GRPO again); σ is the population's. A task with one
    success in two that is there twice:

    >>> from firstfault.tree import independent_runs
    >>> trees = [independent_runs(1, 0), independent_runs(1, 0)]
    >>> VSPO().value([1, 0])
    0.25
    >>> VSPO().credit(trees)
    >>> [round(leaf.advantage, 3) for tree in trees for leaf in tree.leaves]
    [0.707, -0.707, 0.707, -0.707]
    """

    paper: ClassVar[str] = "PRS + VSPO, arXiv 2512.07478"

    reward: RewardName = Field("progressive", description="the judge's, or one that is shaped (see docs/rewards.md)")
    kl: float = Field(1e-3, ge=0, description="weight of the divergence from the policy that training began with")
    smoothing: float = Field(0.5, ge=0, description="how fast the advantages of a repeated task decay")

    async def explore_all(self, batch: Batch) -> list[Tree]:
        trees = await batch.grow(batch.draw(batch.size), self.explore, self.size)
        values = [self.value(self.rewards(tree)) for tree in trees]
        empty = min(sum(not teaches(self.rewards(tree)) for tree in trees), batch.remaining // self.size)
        if any(values):
            draw = random.Random(f"{trees[0].key} replacements")
            tasks = draw.choices([tree.task for tree in trees], values, k=empty)
            trees += await batch.grow(tasks, self.explore, self.size)
        return trees

    def value(self, rewards: Sequence[float]) -> float:
        """V(q) of a task by the rewards of its runs."""
        center = mean(rewards)
        return max(0.0, 1 - center) * mean([(reward - center) ** 2 for reward in rewards]) ** 0.5

    def credit(self, trees: Sequence[Tree]) -> None:
        groups = [(tree, [leaf.reward for leaf in tree.leaves]) for tree in trees]
        groups = [(tree, rewards) for tree, rewards in groups if teaches(rewards)]
        times = Counter(_known_by(tree.task) for tree, _ in groups)
        for tree, rewards in groups:
            decay = times[_known_by(tree.task)] ** -self.smoothing
            self.credit_runs(tree, [decay * z for z in normalize(rewards)])


def _known_by(task: Task) -> tuple[str, str, str]:
    return task.id, task.question, task.answer


def teaches(rewards: Sequence[float]) -> bool:
    """Whether some runs did better than others."""
    return len(set(rewards)) > 1
