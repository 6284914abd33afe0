"""ELPO: find the first irrecoverable step by binary search, and give credit along the tree that the search grew."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from firstfault.agent.base import Rollouts
from firstfault.credit import logistic, mean, normalize, run_weight
from firstfault.localize import SEARCHES, Search, localize
from firstfault.methods.base import Clipped
from firstfault.tree import Node, Term, Tree


class ELPO(Clipped):
    """Binary search for the first irrecoverable step, credit along the tree, a relaxed clip from that step on.

    1. Rollouts until `failures` of them failed; on the most suspicious, a binary search for the first step after which
       no completion succeeds; again, until the budget is spent (Algorithm 1).
    2. A(s) = λ A_branch(s) + (1 - λ) A_trajectory(s) on every step s of the tree (Eqs. 6-10).
    3. From the step found on, the lower clip bound is relaxed: what follows a fault is pushed down further (Eq. 11).

    What the paper leaves open, and its example tree shows: standard deviations are the population's; a step without
    siblings inherits its branch advantage from the nearest ancestor that has some; siblings that score alike get 0.

    Ours, unless `literal`: a search that the budget can't finish is not begun (the rollouts go to whole runs), and a
    search that was cut off, or in a tree without a single success, marks no step: it has no evidence for any.

    Source: Error-Localized Policy Optimization, arXiv 2602.09598 (v1).
    """

    paper: ClassVar[str] = "ELPO, arXiv 2602.09598"

    failures: int = Field(3, ge=1, description="B_max: failed runs to choose from before each search")
    tries_min: int = Field(1, ge=1, description="X_min: fewest completions per anchor")
    tries_max: int = Field(3, ge=1, description="X_max: most completions per anchor")
    beta: float = Field(5.0, description="β: how fast completions per anchor grow with its entropy gap")
    choice: Literal["entropy", "random"] = Field("entropy", description="which failed run is searched (Eq. 4)")
    search: Literal["printed", "verified", "filled", "posterior", "random"] = Field("printed", description="which one")
    literal: bool = Field(False, description="begin and believe searches exactly as Algorithm 1 prints them")
    lambda_tree: float = Field(0.5, ge=0, le=1, description="λ_tree: 0 group advantages only, 1 branches only")
    shared: Literal["per-leaf", "once"] = Field("per-leaf", description="how often a step that runs share counts")
    clip_high: float = Field(0.315, ge=0, description="ε_high")
    clip_low_extra: float = Field(0.115, ge=0, description="ε_elc: added to ε_low from the localized step on")

    @model_validator(mode="after")
    def _ordered(self) -> ELPO:
        if self.tries_min > self.tries_max:
            raise ValueError(f"tries_min = {self.tries_min} exceeds tries_max = {self.tries_max}")
        return self

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:  # Algorithm 1
        failed: list[Node] = []
        while rollouts.remaining:
            while len(failed) < self.failures and rollouts.remaining:  # as many as must follow anyway, side by side
                leaves = await rollouts.sample(min(self.failures - len(failed), rollouts.remaining))
                failed += [leaf for leaf in leaves if not leaf.success]
            searches, failed = self.searches(tree, failed, rollouts.remaining), []
            if not searches:
                await rollouts.sample(rollouts.remaining)
            tree.verdicts += await localize(searches, rollouts)

    def searches(self, tree: Tree, failed: Sequence[Node], remaining: int) -> dict[Node, Search]:
        """Of the most suspicious run (Eq. 4); posteriors of as many as there is room for."""
        draw = random.Random(f"{tree.key} {len(tree.nodes)}")
        suspicion = entropy_gap if self.choice == "entropy" else lambda run: draw.random()
        searches: dict[Node, Search] = {}
        for run in sorted(failed, key=suspicion, reverse=True)[: None if self.search == "posterior" else 1]:
            search = SEARCHES[self.search](run.depth - 1, partial(self.tries, [s.entropies for s in run.steps]), draw)
            if self.literal or search.cost <= remaining:
                searches[run], remaining = search, remaining - search.cost
        return searches

    def tries(self, entropies: Sequence[Sequence[float]], step: int) -> int:
        """X_m (Eq. 5), rounded half up: the surer the agent went on after step m, next to its first, the fewer."""
        gap = mean(entropies[step]) - mean(entropies[0])
        return math.floor(self.tries_min + (self.tries_max - self.tries_min) * logistic(self.beta * gap) + 0.5)

    def credit(self, trees: Sequence[Tree]) -> None:  # Eqs. 6-11
        for tree in trees:
            localized = self.mark(tree)
            branch, trajectory = branch_advantages(tree), trajectory_advantages(tree)
            for step in tree.steps:
                advantage = self.lambda_tree * branch[step] + (1 - self.lambda_tree) * trajectory[step]  # Eq. 10
                total = sum if self.shared == "per-leaf" else mean
                weight = total([run_weight(leaf, self.aggregation) for leaf in step.leaves])
                clip_low = self.clip_low + self.clip_low_extra * localized[step]  # Eq. 11
                step.terms = [Term(advantage, weight, clip_low, self.clip_high)]

    def mark(self, tree: Tree) -> dict[Node, float]:
        """Mark the critical steps that were found; returns how surely a step is one or below one (1 by bisection)."""
        localized: dict[Node, float] = defaultdict(float)
        for verdict in tree.verdicts:
            verdict.marked = verdict.names_step and (self.literal or (verdict.finished and tree.has_success))
            if verdict.marked:
                run = tree.nodes[verdict.leaf].steps
                run[verdict.step - 1].critical |= verdict.probability is None or verdict.probability >= 0.7
                for step, weight in zip(run, verdict.weights, strict=False):  # not the answer, which is below
                    localized.update({node: max(localized[node], weight) for node in step.subtree})
        return localized


def entropy_gap(run: Node) -> float:
    """H_tool - H_root, mean entropies (Eq. 4); a run without a tool call has nothing to search and comes last."""
    first, *later = run.steps
    return mean([h for step in later for h in step.entropies]) - mean(first.entropies) if later else -math.inf


def step_rewards(tree: Tree) -> dict[Node, float]:
    """r(leaf) = R, r(s) = mean of r over the direct children of s (Eq. 6)."""
    rewards: dict[Node, float] = {}
    for node in reversed(tree.nodes):  # children before parents
        rewards[node] = node.reward if node.is_leaf else mean([rewards[child] for child in node.children])
    return rewards


def branch_advantages(tree: Tree) -> dict[Node, float]:
    """A_branch(c) = (r(c) - μ) / (σ + ε) over the siblings of c (Eq. 7), inherited where there are none.

    Three runs: the first two share a step and then part, one fails and one succeeds; the third fails alone.

    >>> from firstfault.tree import Task
    >>> tree = Tree(Task("q", "a"), prompt=[1])
    >>> step = tree.add(tree.root, rollout=0)
    >>> lost = tree.add(step, rollout=0, end="answer", success=False, reward=0.0)
    >>> won = tree.add(step, rollout=1, end="answer", success=True, reward=1.0)
    >>> other = tree.add(tree.root, rollout=2, end="answer", success=False, reward=0.0)
    >>> [round(branch_advantages(tree)[node]) for node in (step, lost, won, other)]
    [1, -1, 1, -1]
    """
    rewards, advantages = step_rewards(tree), {tree.root: 0.0}
    for node in tree.nodes:
        if len(node.children) == 1:
            advantages[node.children[0]] = advantages[node]
        else:
            scores = normalize([rewards[child] for child in node.children])
            advantages.update(zip(node.children, scores, strict=True))
    return advantages


def trajectory_advantages(tree: Tree) -> dict[Node, float]:
    """A_trajectory(s): mean of (R - μ) / (σ + ε) over the leaves below s, μ and σ over all leaves (Eqs. 8 and 9)."""
    of_leaf = dict(zip(tree.leaves, normalize([leaf.reward for leaf in tree.leaves]), strict=True))
    return {node: mean([of_leaf[leaf] for leaf in node.leaves]) for node in tree.nodes}
