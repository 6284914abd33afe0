"""Failed runs whose recovery is known after every step: measured once, searched as often as one likes."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from firstfault.agent.base import Rollouts
from firstfault.agent.rollouts import Agent
from firstfault.localize import Search
from firstfault.localize.search import agreement
from firstfault.tasks import TaskSource
from firstfault.tree import Node, Task, Verdict

DIGITS = string.digits + string.ascii_letters + "".join(map(chr, range(192, 1024)))  # of steps, as one character
COMPLETIONS = 64  # after each step, to know which are irrecoverable
LOST = 0.02  # a prefix is lost where no more than this share of its completions succeeds

# A success, and up to which step the completion repeated the failed run (see `localize.search.agreement`), if known.
Completion = tuple[bool, int | None]


def first_irrecoverable(rates: Sequence[float]) -> int:
    """The first step after which hardly any completion succeeds, of success rates p_0 .. p_K; K + 1 if there is none.

    >>> first_irrecoverable([0.5, 0.25, 0.0]), first_irrecoverable([0.5, 0.5, 0.25])
    (2, 3)
    """
    return next((m for m, rate in enumerate(rates) if m and rate <= LOST), len(rates))


@dataclass(frozen=True)
class Failure:
    """A failed run of K tool-call steps, and what completions after 0, 1, .. K of them did.

    `recovered` has a character for each completion, 1 for a success; `agreed` one that says up to which step the
    completion repeated the run (see `localize.search.agreement`). `entropies` are those of the tokens of each step.
    `first_wrong` is the first step that a generator of tasks knows to be wrong.
    """

    family: str
    task: str
    first_wrong: int | None
    recovered: Sequence[str]
    agreed: Sequence[str]
    entropies: Sequence[Sequence[float]] = field(default=())

    @property
    def steps(self) -> int:
        return len(self.recovered) - 1

    @property
    def rates(self) -> list[float]:
        """p_0 .. p_K, the share of completions that succeed."""
        return [outcomes.count("1") / len(outcomes) for outcomes in self.recovered]

    @property
    def step(self) -> int:
        """The first irrecoverable step; K + 1 if there is none.

        >>> Failure("", "", None, ["0101", "0100", "0000"], ["0000", "1111", "2222"]).step
        2
        """
        return first_irrecoverable(self.rates)

    def shuffled(self, seed: int) -> list[list[Completion]]:
        """The completions after each step, in an order that `seed` draws."""
        draw = Random(f"{self.family} {self.task} {seed}")
        pairs = [
            [(outcome == "1", DIGITS.index(upto)) for outcome, upto in zip(outcomes, agreed, strict=True)]
            for outcomes, agreed in zip(self.recovered, self.agreed, strict=True)
        ]
        return [draw.sample(completions, len(completions)) for completions in pairs]


def search_again(search: Search, completions: Sequence[Sequence[Completion]], budget: int, others: int = 0) -> Verdict:
    """What a search says of a failed run, given `budget` of its completions after 0, 1, .. K steps, in their order.

    `others` whole runs of the task stand there before it begins, the first of those after 0 steps.
    """
    left = [iter(after) for after in completions]
    for success, agreed in islice(left[0], others):
        search.learn(0, success, agreed)
    while budget and (question := search.ask(budget)) is not None:
        step, tries = question
        seen = list(islice(left[step], tries))  # where there are no more, it is told of as many as there are
        search.tell(step, [success for success, _ in seen], [agreed for _, agreed in seen])
        budget -= tries
    return search.verdict()


async def measure(agent: Agent, source: TaskSource, family: str, task: Task, key: tuple[int, ...]) -> Failure | None:
    """A run of a task, and completions after each of its steps.

    None if it did not fail, or called no tool, or if the state of its tools could not be brought back.
    """
    tree = agent.tree(task, key)
    async with agent.rollouts(tree, 10**9) as rollouts:
        leaves = await rollouts.sample(1)
        if not leaves or leaves[0].success or leaves[0].depth < 2:
            return None
        [failed] = leaves
        if (outcomes := await recoveries(rollouts, failed, COMPLETIONS)) is None:
            return None
        entropies = [[round(h, 3) for h in step.entropies] for step in failed.steps]
        return Failure(family, task.id, source.first_wrong_step(task, failed), *outcomes, entropies)


async def recoveries(rollouts: Rollouts, failed: Node, completions: int) -> tuple[list[str], list[str]] | None:
    """Outcomes of completions after 0, 1, .. K steps of a failed run, and up to where they agree with it.

    None if a step has none left: they were discarded where the state of the tools could not be brought back.
    """
    prefixes = failed.path[:-1]
    ends = await rollouts.continue_all([node for node in prefixes for _ in range(completions)])
    after = [[leaf for leaf in ends if leaf.anchor is node] for node in prefixes]
    if not all(after):
        return None
    recovered = ["".join(str(int(leaf.success)) for leaf in leaves) for leaves in after]
    return recovered, ["".join(DIGITS[agreement(failed, leaf)] for leaf in leaves) for leaves in after]
