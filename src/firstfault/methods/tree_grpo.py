"""Tree-GRPO: some chains, branches at random steps, and advantages within and across them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.agent.base import Rollouts
from firstfault.credit import normalize
from firstfault.methods.base import Clipped
from firstfault.tree import Tree


class TreeGRPO(Clipped):
    """A leaf's advantage is its z-score within its own chain's branches plus that among all leaves of the task.

    1. `chains` (M) whole rollouts; then `rounds` (L) times, from `expansions` (N) random steps of each that are not
       its end, a completion: M (L N + 1) leaves.
    2. A = z within the tree of a chain + z over all trees of the task.

    Source: Ji et al., Tree Search for LLM Agent RL, arXiv 2509.21240. Ours: N = 3 and L = 1, and as many
    chains as the budget has room for; steps are drawn with replacement; what is left of the budget (a chain of a single
    step can't be branched) goes to whole rollouts. Two chains of two steps, each with one branch after its first step:

    >>> from firstfault.tree import Task
    >>> tree = Tree(Task("q", "a"), prompt=[1])
    >>> for chain, rewards in enumerate([(1, 0), (0, 0)]):
    ...     step = tree.add(tree.root, rollout=chain, action_tokens=[2])
    ...     for rollout, reward in zip((chain, 2 + chain), rewards):
    ...         _ = tree.add(step, rollout=rollout, action_tokens=[2], end="answer", success=reward > 0, reward=reward)
    >>> TreeGRPO().credit([tree])
    >>> [round(leaf.advantage, 3) for leaf in tree.leaves]  # z within is 1, -1, 0, 0; z of all is 1.732 and -0.577
    [2.732, -1.577, -0.577, -0.577]
    """

    paper: ClassVar[str] = "Tree-GRPO, arXiv 2509.21240"

    chains: int | None = Field(None, ge=1, description="M: whole rollouts per task; by default rollouts / (L N + 1)")
    rounds: int = Field(1, ge=0, description="L: rounds of branching")
    expansions: int = Field(3, ge=1, description="N: branches of each chain in a round")

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        chains = self.chains or max(1, self.rollouts // (self.rounds * self.expansions + 1))
        await rollouts.sample(min(chains, rollouts.remaining))
        draw = random.Random(f"{tree.key} branches")
        for _ in range(self.rounds):
            inner = [[step for step in chain.subtree if not step.is_leaf] for chain in tree.root.children]
            places = [draw.choice(steps) for _ in range(self.expansions) for steps in inner if steps]
            await rollouts.continue_all(places[: rollouts.remaining])
        await rollouts.sample(rollouts.remaining)

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            leaves = tree.leaves
            across = dict(zip(leaves, normalize([leaf.reward for leaf in leaves]), strict=True))
            for chain in tree.root.children:
                within = normalize([leaf.reward for leaf in chain.leaves])
                for leaf, score in zip(chain.leaves, within, strict=True):
                    self.credit_run(leaf, score + across[leaf])
