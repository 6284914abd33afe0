"""What all searches share: questions and evidence on one failed run, and an answer at any time."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from firstfault.agent.rollouts import Rollouts
from firstfault.tree import Node, Probe, Verdict


class Search(ABC):
    """A search for the first irrecoverable step of a failed run of `steps` (K) tool-call steps.

    `ask` says after which step to sample how many completions next, `tell` hears how many of them succeeded. It knows
    no run and no engine: what it asks may be an agent, an endpoint or a simulation.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.probes: list[Probe] = []

    @abstractmethod
    def ask(self, remaining: int) -> tuple[int, int] | None:
        """The next step, 1 to K (0: the start), and how many completions after it, `remaining` at most; None to end."""

    def tell(self, step: int, tries: int, successes: int) -> None:
        """What was sampled after a step; fewer tries than asked for, or none, if rollouts were discarded."""
        if tries:
            self.probes.append(Probe(step, tries, successes))

    @abstractmethod
    def verdict(self, leaf: int = -1) -> Verdict:
        """What can be said by now of the run that ended at node number `leaf` of its tree."""

    @property
    @abstractmethod
    def cost(self) -> int:
        """How many rollouts it should have from here on."""


def anytime_cost(steps: int, probes: Sequence[Probe] = ()) -> int:
    """What a search that may stop anywhere should have: 2 log2 K + 2 rollouts, less what it took, or one more.

    >>> [anytime_cost(steps) for steps in (1, 2, 8, 9)], anytime_cost(8, [Probe(4, 3, 1)])
    ([2, 4, 8, 10], 5)
    """
    return max(1, 2 * (steps - 1).bit_length() + 2 - sum(probe.tries for probe in probes)) if steps else 0


async def localize(searches: Mapping[Node, Search], rollouts: Rollouts, together: int = 1) -> list[Verdict]:
    """Search the runs that ended at these leaves side by side: in each round, every search asks once.

    What is left of the budget is shared evenly among those that go on, but each may plan with its `cost`. With
    `together`, a search asks so often in a round, as if what it has asked had failed.
    """
    going = dict(searches)
    while going and rollouts.remaining:
        share, left = -(-rollouts.remaining // len(going)), rollouts.remaining
        asked: list[tuple[Search, Node, int]] = []
        for leaf, search in list(going.items()):
            questions = _questions(search, min(left, max(share, search.cost)), together)
            if not questions:
                del going[leaf]
            for step, tries in questions:
                asked.append((search, leaf.path[step], tries))
                left -= tries
        probes = await rollouts.continue_all([anchor for _, anchor, tries in asked for _ in range(tries)])
        told: set[tuple[Search, Node]] = set()
        for search, anchor, _ in asked:
            if (search, anchor) not in told:
                told.add((search, anchor))
                outcomes = [probe.success for probe in probes if probe.anchor is anchor]
                search.tell(anchor.depth, len(outcomes), sum(outcomes))
    return [search.verdict(leaf.index) for leaf, search in searches.items()]


def _questions(search: Search, remaining: int, together: int) -> list[tuple[int, int]]:
    asked: list[tuple[int, int]] = []
    while remaining and len(asked) < together and (question := search.ask(remaining)) is not None:
        asked.append(question)
        remaining -= question[1]
        if len(asked) < together:
            search = copy.deepcopy(search)
            search.tell(*question, 0)
    return asked


def agreement(run: Node, other: Node) -> int:
    """How many steps of a run another one repeats from the start: the same calls with the same outputs."""
    steps = list(zip(run.steps, other.steps, strict=False))
    same = (ours is theirs or (_calls(ours) and _calls(ours) == _calls(theirs)) for ours, theirs in steps)
    return next((m for m, agrees in enumerate(same) if not agrees), len(steps))


def _calls(step: Node) -> list[tuple[str, object, str]]:
    return [(call.name, call.arguments, call.output) for call in step.calls]
