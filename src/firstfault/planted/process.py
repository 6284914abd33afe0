"""Runs with planted mistakes: a decision process so small that the truth about every prefix of a run is known.

A task is a chain of contexts. At each step the policy sees one number, its *row*, and takes one of two actions: RIGHT
or WRONG. Mistakes are of three kinds:

- *silent*: nothing shows it, and nothing undoes it. The policy goes on as if all were well.
- *dead end*: the policy sees it (the DEAD row), and can only give up or drag on. It fails either way.
- *recoverable*: the policy sees it (the BROKEN row). For `chances` steps it can repair (RIGHT), which takes a step of
  its own, or go on (WRONG). Later, or after the answer, nothing can be undone.

There is no other randomness than the policy's. So the success probability V of every prefix follows from a table with
the probabilities of RIGHT and WRONG in every row, by dynamic programming over positions and phases (`values`). With
the truth known, estimators of gradients and searches for faults can be judged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from firstfault.tree import Node, Task

RIGHT, WRONG, FILLER = 0, 1, 2  # action tokens; in the BROKEN row, RIGHT repairs; in the DEAD row, it gives up
FIRST_ROW = 3  # rows stand in observations as tokens after those of the actions

Mistake = Literal["silent", "dead end", "recoverable"]
Phase = Literal["good", "broken", "lost", "dead", "won", "failed"]
PHASE_AFTER: dict[Mistake, Phase] = {"silent": "lost", "dead end": "dead", "recoverable": "broken"}


class Trap(NamedTuple):
    """A context in which the first policy is wrong with probability `wrong`, and what being wrong leads to."""

    wrong: float
    mistake: Mistake = "silent"


class State(NamedTuple):
    """All that the future of a run depends on: how much of the chain is done, and in which phase."""

    position: int = 0
    phase: Phase = "good"
    chances: int = 0  # of a broken state: steps in which it can be repaired still

    @property
    def is_over(self) -> bool:
        return self.phase in ("won", "failed")

    @property
    def recoverable(self) -> bool:
        """Whether some policy succeeds from here with positive probability."""
        return self.phase in ("good", "broken", "won")


def traps(mistake: Mistake) -> tuple[Trap, ...]:
    """Four contexts that go wrong with probability .3 and four with .7."""
    return (Trap(0.3, mistake),) * 4 + (Trap(0.7, mistake),) * 4


@dataclass(frozen=True)
class PlantedProcess:
    """Chains of `steps_min` to `steps_max` contexts, of which some are traps.

    >>> process = PlantedProcess(clean=1, traps=(Trap(0.3), Trap(0.6, "recoverable")), repair=0.5, chances=1)
    >>> task = Task("", "", info={"contexts": [0, 1, 2], "lengths": [1, 1, 1, 1]})
    >>> V = process.values(task, [[1, 0], [0.7, 0.3], [0.4, 0.6], [0.5, 0.5], [1, 0]])
    >>> V[State(1)] == 0.7 * (0.4 + 0.6 * 0.5)  # right; then right, or wrong and repaired
    True
    >>> V[State(2)], V[State(3, "broken", 1)], V[State(3)]
    (0.7, 0.5, 1.0)

    Attributes:
        clean: how many contexts are no traps; there the first policy is wrong with probability `clean_wrong`, silently.
        traps: contexts number `clean` and on.
        where: contexts are drawn from all; or from the traps in the first or last third, and from the clean elsewhere.
        tokens_max: a step has 1 to so many action tokens; the first decides, the others are filler, which is certain.
        chances: in how many steps a recoverable mistake can be repaired.
        repair, give_up: how often the first policy does so, in the BROKEN and in the DEAD row.
        entropy: what entropies say once the first mistake is made: the policy's own, half a nat more, or 0.
    """

    clean: int = 8
    clean_wrong: float = 0.0025
    traps: tuple[Trap, ...] = traps("silent")
    steps_min: int = 8
    steps_max: int = 10
    where: Literal["anywhere", "early", "late"] = "anywhere"
    tokens_max: int = 1
    chances: int = 3
    repair: float = 0.1
    give_up: float = 0.35
    entropy: Literal["own", "raised", "zero"] = "own"

    @property
    def broken_row(self) -> int:
        return self.clean + len(self.traps)

    @property
    def dead_row(self) -> int:
        return self.broken_row + 1

    @property
    def rows(self) -> int:
        """Rows in which the policy decides. The row after them is that of the answer, where all is decided."""
        return self.broken_row + 2

    def first_policy(self) -> list[list[float]]:
        """Probabilities [rows][RIGHT, WRONG] of the policy that training starts from."""
        right = [1 - self.clean_wrong] * self.clean + [1 - trap.wrong for trap in self.traps]
        return [[p, 1 - p] for p in (*right, self.repair, self.give_up)]

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        """Tasks number `first` to `first + n - 1` of the endless sequence that `seed` draws."""
        return [self._task(f"planted-{seed}-{i}") for i in range(first, first + n)]

    def _task(self, name: str) -> Task:
        draw = random.Random(name)
        steps = draw.randint(self.steps_min, self.steps_max)
        clean, hard = range(self.clean), range(self.clean, self.broken_row)
        trapped = {"early": range(steps // 3), "late": range(steps - steps // 3, steps)}.get(self.where)
        choices = [range(self.broken_row) if trapped is None else hard if i in trapped else clean for i in range(steps)]
        contexts = [draw.choice(contexts) for contexts in choices]
        lengths = [draw.randint(1, self.tokens_max) for _ in range(steps + 1)]  # the last is the answer's
        return Task(f"contexts {contexts}", "", id=name, info={"contexts": contexts, "lengths": lengths})

    # How a run goes

    def row(self, task: Task, state: State) -> int:
        """What the policy sees. It can't tell a good state from a lost one."""
        if state.phase == "broken":
            return self.broken_row
        if state.position == len(task.info["contexts"]):
            return self.rows  # the answer
        return self.dead_row if state.phase == "dead" else task.info["contexts"][state.position]

    def after(self, task: Task, state: State, action: int) -> State:
        """The state that an action leads to."""
        position, phase, chances = state
        if phase == "broken" and action == RIGHT:
            return State(position)
        if position == len(task.info["contexts"]):  # the answer
            return State(position, "won" if phase == "good" else "failed")
        if phase == "dead" and action == RIGHT:
            return State(position, "failed")
        if phase == "broken":
            return State(position + 1, "broken", chances - 1) if chances > 1 else State(position + 1, "lost")
        if phase == "good" and action == WRONG:
            context = task.info["contexts"][position]
            mistake = self.traps[context - self.clean].mistake if context >= self.clean else "silent"
            return State(position + 1, PHASE_AFTER[mistake], self.chances if mistake == "recoverable" else 0)
        return State(position + 1, phase)

    # The truth

    def values(self, task: Task, policy: Sequence[Sequence[Any]]) -> dict[State, Any]:
        """V(s) = Σ_a π(a | row(s)) V(after(s, a)) of every state that can come up and is not irrecoverable.

        `policy[row][action]` are probabilities: floats, or the entries of a tensor, which V can then be derived by.
        `V[State()]` is the success probability of the task. Irrecoverable states have V = 0 under any policy.
        """
        values: dict[State, Any] = {}

        def value(state: State) -> Any:
            if not state.recoverable:
                return 0.0
            if state not in values:
                row = self.row(task, state)
                if row == self.rows:
                    values[state] = 1.0  # recoverable, and nothing left to decide
                else:
                    right, wrong = (value(self.after(task, state, action)) for action in (RIGHT, WRONG))
                    values[state] = policy[row][RIGHT] * right + policy[row][WRONG] * wrong
            return values[state]

        value(State())
        return values

    def states(self, task: Task, node: Node) -> list[State]:
        """The state before the first step of a run and after each step up to `node`."""
        states = [State()]
        for step in node.steps:
            states.append(self.after(task, states[-1], step.action_tokens[0]))
        return states

    def first_wrong(self, task: Task, leaf: Node) -> int | None:
        """The first step, counted from 1, whose action was a mistake; None if there was none."""
        return next((i for i, state in enumerate(self.states(task, leaf)) if not _flawless(state)), None)

    def first_irrecoverable(self, task: Task, leaf: Node) -> int | None:
        """The first step of a failed run, counted from 1, after which V = 0 under any policy; None if it succeeded.

        A silent mistake and a dead end are irrecoverable at once, a recoverable one when its last chance is missed. If
        that is the answer itself, it comes after all tool-call steps, as `Verdict.step` has it when none is at fault.
        """
        return next((i for i, state in enumerate(self.states(task, leaf)) if not state.recoverable), None)


def _flawless(state: State) -> bool:
    return state.phase in ("good", "won")
