"""A process with planted faults in the place of an agent, so that the truth which a search is after is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from firstfault.agent.base import Rollouts
from firstfault.tree import Node, Task, Tree


@dataclass(frozen=True)
class Plan:
    """How a whole run goes: `steps` tool-call steps, then an answer.

    `fault` is the first step after which nothing can be won any more; steps + 1 means that only the answer is wrong,
    and None that the run succeeds. `entropies` has one mean entropy per step, the answer's included.
    """

    steps: int = 4
    fault: int | None = None
    entropies: Sequence[float] = ()


class Planted(Rollouts):
    """Grows the tree of one task by `plans`, in turn, for whole runs.

    A completion after step m of a run succeeds if m < fault and `recovers(m)`, and has as many steps as that run. Where
    it does not recover, it is lost from its own first step on. `requests` keeps (m, n) for every demand.
    """

    def __init__(
        self,
        tree: Tree,
        budget: int,
        plans: Iterable[Plan],
        recovers: Callable[[int], bool] = lambda step: True,
        rewards: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__(tree, budget)
        self.requests: list[tuple[int, int]] = []
        self._plans = itertools.cycle(plans)
        self._recovers = recovers
        self._rewards = rewards
        self._plan: dict[Node, Plan] = {}

    async def _complete_all(self, nodes: Sequence[Node], first: int) -> list[Node]:
        self.requests += [(node.depth, len(list(same))) for node, same in itertools.groupby(nodes)]
        return [self._complete(node, rollout) for rollout, node in enumerate(nodes, first)]

    def fault(self, leaf: Node) -> int:
        """The planted first irrecoverable step of the failed run that ended at `leaf`."""
        assert not leaf.success
        return self._plan[leaf].fault

    def _complete(self, node: Node, rollout: int) -> Node:
        done = node.depth
        if done == 0:
            plan = next(self._plans)
        else:
            old = self._plan[node]
            lost = old.fault if old.fault is not None and done >= old.fault else done + 1
            recovers = done < lost and self._recovers(done)
            plan = Plan(old.steps, None if recovers else lost, old.entropies)
        for step in range(done + 1, plan.steps + 2):
            entropy = plan.entropies[step - 1] if plan.entropies else 1.0
            said = {
                "action_tokens": [rollout],
                "logprobs": [-entropy],
                "entropies": [entropy],
            }  # no run repeats another
            node = self.tree.add(node, rollout=rollout, **said)
            self._plan[node] = plan
        node.end, node.success = "answer", plan.fault is None
        node.reward = self._rewards[node.success]
        return node


def planted(budget: int, plans: Iterable[Plan], **options) -> Planted:
    return Planted(Tree(Task("q", "a"), prompt=[0]), budget, plans, **options)
