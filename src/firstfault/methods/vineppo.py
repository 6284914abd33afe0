"""VinePPO: Monte-Carlo values at every step in the place of a critic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.agent.base import Rollouts
from firstfault.credit import Aggregation, mean, normalize_together
from firstfault.methods.base import Clipped
from firstfault.tree import Node, Tree


class VinePPO(Clipped):
    """A(step i) = r_i + V(s_{i+1}) - V(s_i), where V(s) is the mean reward of K completions that start at s.

    1. A whole rollout; from the start and after each of its steps that goes on, K completions, which only serve to
       know values: they are never trained on. Then the next one, until the budget is spent.
    2. V after the end is 0, and r is the reward there. Advantages are whitened over the batch (of
       an iteration: ours; the paper's, over the mini-batch).

    Source: Kazemnejad et al., VinePPO, arXiv 2410.01679, Eqs. 5-7. K = 9 has a standard error of 0.17 where half of
    the completions succeed. Ours: where the budget does not have K for every state,
    early ones get one more than late ones, and a state without any takes over the value of the one before it.

    >>> from firstfault.tree import Task
    >>> tree = Tree(Task("q", "a"), prompt=[1])
    >>> step = tree.add(tree.root, rollout=0, action_tokens=[2])
    >>> end = tree.add(step, rollout=0, action_tokens=[3], end="answer", success=True, reward=1.0, value=0.0)
    >>> for rollout, (anchor, reward) in enumerate([(tree.root, 0.0), (tree.root, 1.0), (step, 1.0)], start=1):
    ...     _ = tree.add(anchor, rollout=rollout, end="answer", success=reward > 0, reward=reward)
    >>> values = VinePPO().values(tree)
    >>> values[tree.root], values[step], [VinePPO().advantage(node, values) for node in end.steps]
    (0.5, 1.0, [0.5, 0.0])
    """

    paper: ClassVar[str] = "VinePPO, arXiv 2410.01679"

    rollouts: int = Field(82, ge=1, description="rollouts per task; every sampled completion counts")
    aggregation: Aggregation = Field("token", description="every run has the same say, or every token")
    samples: int = Field(9, ge=1, description="K: completions per state")
    kl: float = Field(1e-4, ge=0, description="weight of the divergence from the policy that training began with")

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        known: set[Node] = set()
        while rollouts.remaining:
            for leaf in await rollouts.sample(1):
                leaf.value = 0.0  # V after the end; it marks the runs that are trained on
                states = [state for state in leaf.path[:-1] if state not in known]
                each, rest = divmod(rollouts.remaining, max(1, len(states)))
                counts = [min(self.samples, each + (number < rest)) for number in range(len(states))]
                await rollouts.continue_all([s for s, n in zip(states, counts, strict=True) for _ in range(n)])
                known.update(states)

    def credit(self, trees: Sequence[Tree]) -> None:
        runs, advantages = [], []
        for tree in trees:
            values = self.values(tree)
            for leaf in tree.leaves:
                if leaf.value is not None:
                    runs.append(leaf)
                    advantages.append([self.advantage(step, values) for step in leaf.steps])
        for leaf, whitened in zip(runs, normalize_together(advantages), strict=True):
            self.credit_run(leaf, whitened)

    def values(self, tree: Tree) -> dict[Node, float]:
        """V of every state, from the completions that started there; they are written on the tree for people, too."""
        returns: dict[Node, list[float]] = defaultdict(list)
        for leaf in tree.leaves:
            if leaf.value is None:
                returns[leaf.anchor].append(leaf.reward)
        for node, rewards in returns.items():
            node.value, node.value_samples = mean(rewards), len(rewards)
        values = {tree.root: tree.root.value or 0.0}
        for node in tree.steps:  # parents before children
            values[node] = node.value if node in returns else values[node.parent]
        return values

    def advantage(self, step: Node, values: dict[Node, float]) -> float:
        return (step.reward if step.is_leaf else values[step]) - values[step.parent]
