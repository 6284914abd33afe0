"""What all searches share: questions and evidence on one failed run, and an answer at any time."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from firstfault.agent.base import Rollouts
from firstfault.tree import Node, Probe, Verdict


class Search(ABC):
    """A search for the first irrecoverable step of a failed run of `steps` (K) tool-call steps.

    `ask` says after which step to sample how many completions next, `tell` hears what came of it. It knows no run and
    no engine: what it asks may be an agent, an endpoint or a simulation.
    """

    asks_ahead: ClassVar[bool] = False  # whether it may be told of questions that it asked as if others had failed

    def __init__(self, steps: int):
        self.steps = steps
        self.probes: list[Probe] = []

    @abstractmethod
    def ask(self, remaining: int) -> tuple[int, int] | None:
        """The next step, 1 to K (0: the start), and how many completions after it, `remaining` at most; None to end."""

    def tell(self, step: int, outcomes: Sequence[bool], agreed: Sequence[int | None] = ()) -> None:
        """The successes of what was sampled after a step; fewer than asked for, or none, if rollouts were discarded.

        `agreed` says up to which step of the failed run each of them repeated it (see `agreement`), where that is
        known.
        """
        if outcomes:
            self.probes.append(Probe(step, len(outcomes), sum(outcomes)))

    def learn(self, step: int, success: bool, agreed: int) -> None:
        """Evidence that it did not ask for; most searches have no use for it.

        A run that the agent went on with by itself after `step` steps of the failed run, and that repeated it up to
        step `agreed`.
        """
        return None

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


def agreement(run: Node, other: Node) -> int:
    """How many tool-call steps of a failed run another one repeats from the start: the same calls, the same outputs.

    Equal calls from equal states leave the tools in equal states, so that the other run is a completion after all of
    these steps as well. Steps without calls must be the same to the token.
    """
    pairs = zip(run.steps[:-1], other.steps[:-1], strict=False)  # the last step has nothing after it
    same = [ours is theirs or (action_of(ours) and action_of(ours) == action_of(theirs)) for ours, theirs in pairs]
    return next((m for m, agrees in enumerate(same) if not agrees), len(same))


def action_of(step: Node) -> list[Any]:
    """What a step did: its calls and what came of them, or else its tokens."""
    return [(call.name, call.arguments, call.output) for call in step.calls] or step.action_tokens


async def localize(searches: Mapping[Node, Search], rollouts: Rollouts, together: int = 1) -> list[Verdict]:
    """Search the runs that ended at these leaves side by side: in each round, every search asks once.

    What is left of the budget is shared evenly among those that go on, but each may plan with its `cost`. With
    `together`, a search that can asks so often in a round, as if what it has asked had failed. Every search also hears
    of the other runs of the tree that passed where its own did: those that stand there, and what the others ask for.
    """
    going = dict(searches)
    for run, search in searches.items():
        _learn(search, run, [leaf for leaf in rollouts.tree.leaves if leaf is not run])
    while going and rollouts.remaining:
        share, left = -(-rollouts.remaining // len(going)), rollouts.remaining
        asked: dict[Node, list[Node]] = {}  # by run, a step for each completion
        for run, search in list(going.items()):
            questions = _questions(search, min(left, max(share, search.cost)), together)
            if not questions:
                del going[run]
            asked[run] = [run.path[step] for step, tries in questions for _ in range(tries)]
            left -= len(asked[run])
        probes = await rollouts.continue_all([anchor for anchors in asked.values() for anchor in anchors])
        for run, search in searches.items():
            anchors = dict.fromkeys(asked.get(run, ()))
            for anchor in anchors:
                mine = [probe for probe in probes if probe.anchor is anchor]
                search.tell(anchor.depth, [p.success for p in mine], [agreement(run, p) for p in mine])
            _learn(search, run, [probe for probe in probes if probe.anchor not in anchors])
    return [search.verdict(run.index) for run, search in searches.items()]


def _learn(search: Search, run: Node, leaves: Sequence[Node]) -> None:
    """Tell the search of a run about others, where these went on by themselves after one of its steps."""
    for leaf in leaves:
        start, agreed = leaf.anchor.depth, agreement(run, leaf)
        if start <= agreed:
            search.learn(start, leaf.success, agreed)


def _questions(search: Search, remaining: int, together: int) -> list[tuple[int, int]]:
    asked: list[tuple[int, int]] = []
    together = together if search.asks_ahead else 1
    while remaining and len(asked) < together and (question := search.ask(remaining)) is not None:
        asked.append(question)
        remaining -= question[1]
        if len(asked) < together:
            search = copy.deepcopy(search)
            search.tell(question[0], [False] * question[1])
    return asked
