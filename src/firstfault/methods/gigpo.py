"""GiGPO: steps that started from the same state are compared with each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.credit import Scale, group_advantages
from firstfault.methods.base import Clipped
from firstfault.tree import Node, Tree


class GiGPO(Clipped):
    """A = A_E + ω A_S on every step: a run against its group, and a step against those from the same state.

    A_E is GRPO's. For A_S, the steps of a task's runs that started from an identical state form a cluster, and each is
    scored by its discounted return γ^(steps to go) R within it. Without repeated states, A_S is 0 on all but the
    first steps, which all started from the prompt.

    Source: Feng et al., Group-in-Group Policy Optimization, arXiv 2505.10978, Eqs. 3-8. A state is known by what the
    agent has just read: the prompt, or the outputs of its last calls (their text); γ = 0.95. Ours: no more than that,
    so that states with another history can meet in a cluster, as the paper has it. Two runs that read the same in their
    second step, where one goes on to win:

    >>> from firstfault.tree import Task
    >>> tree = Tree(Task("q", "a"), prompt=[1])
    >>> for rollout, reward in enumerate([1.0, 0.0]):
    ...     step = tree.add(tree.root, rollout=rollout, action_tokens=[2], observation_tokens=[7])
    ...     _ = tree.add(step, rollout=rollout, action_tokens=[3], end="answer", success=reward > 0, reward=reward)
    >>> GiGPO().credit([tree])
    >>> [[round(step.advantage, 3) for step in leaf.steps] for leaf in tree.leaves]
    [[2.0, 2.0], [-2.0, -2.0]]
    """

    paper: ClassVar[str] = "GiGPO, arXiv 2505.10978"

    omega: float = Field(1.0, ge=0, description="ω: the weight of the step's advantage")
    gamma: float = Field(0.95, gt=0, le=1, description="γ: discount of a step")
    scale: Scale = Field("std", description="none: groups and clusters are centred by their mean only")

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            leaves = tree.leaves
            episode = group_advantages([leaf.reward for leaf in leaves], self.scale)
            clusters: dict[Hashable, list[tuple[Node, Node]]] = defaultdict(list)  # of steps of runs
            for leaf in leaves:
                for step in leaf.steps:
                    clusters[state(step)].append((leaf, step))
            relative: dict[tuple[Node, Node], float] = {}
            for cluster in clusters.values():
                returns = [self.gamma ** (leaf.depth - step.depth) * leaf.reward for leaf, step in cluster]
                relative.update(zip(cluster, group_advantages(returns, self.scale), strict=True))
            for leaf, score in zip(leaves, episode, strict=True):
                self.credit_run(leaf, [score + self.omega * relative[leaf, step] for step in leaf.steps])


def state(step: Node) -> Hashable:
    """What the agent had just read when it took the step."""
    before = step.parent
    return tuple(call.output for call in before.calls) or tuple(before.observation_tokens)
