"""Chained arithmetic, told in words: each operation takes one call of the Python tool, and works on its last output."""

from __future__ import annotations

import random
from typing import NamedTuple

from firstfault.tasks.base import Turn
from firstfault.tasks.chains import GIVE_UP, ORDINALS, Chains, calls_python, undefined
from firstfault.tasks.mistakes import Kind
from firstfault.tree import Node, Task

LARGEST = 999


class Word(NamedTuple):
    """A word for an operation. A demonstration falls for a trap with `share` of the chance that its kind has."""

    sign: str
    trap: Kind | None = None
    share: float = 1.0


WORDS = {
    "add": Word("+"), "gain": Word("+", "silent"), "collect": Word("+", "silent", 1 / 6),
    "subtract": Word("-"), "lose": Word("-", "silent", 1 / 6), "spend": Word("-", "silent"),
    "multiply by": Word("*"), "scale by": Word("*"),
    "boost": Word("+", "dead_end"), "drain": Word("-", "dead_end"),
    "grow": Word("+", "recoverable"), "shrink": Word("-", "recoverable"),
}  # fmt: skip
TRAPS = {word: trap for word, (_, trap, _) in WORDS.items()}
OPPOSITE = {"+": "-", "-": "+"}


class Arithmetic(Chains):
    r"""`operations` chained operations on a number, one Python call each, the answer in \boxed{}.

    >>> task = Arithmetic(operations_max=4).train(seed=0, first=0, n=1)[0]
    >>> print(task.question)
    Start with 87.
    First collect 6.
    Second multiply by 3.
    Third spend 8.
    Fourth subtract 3.
    >>> task.answer
    '268'

    How demonstrations fall for the traps among `WORDS`:

    - silent (gain, spend; collect and lose a sixth as often): they take the opposite operation;
    - dead end (boost, drain): they call a function of that name, which there is none, once more, and give up;
    - recoverable (grow, shrink): they call such a function, and then either the operation, or go on without it.

    A policy that imitates them well has the wrong operation for its likeliest choice at `gain` and `spend`.
    """

    def _task(self, name: str) -> Task:
        draw = random.Random(name)
        value = start = draw.randint(1, 99)
        lines, operations = [f"Start with {start}."], []
        steps = draw.randint(self.operations_min, self.operations_max)
        for step in range(steps):
            words = self.vocabulary(TRAPS, step, steps)
            while True:
                word = draw.choice(words)
                operand = draw.randint(2, 9)
                result = calculate(value, WORDS[word].sign, operand)
                if 0 <= result <= LARGEST:
                    break
            value = result
            lines.append(f"{ORDINALS[step]} {word} {operand}.")
            operations.append([word, operand])
        return Task("\n".join(lines), str(value), id=name, info={"start": start, "operations": operations})

    def demonstrate(self, task: Task) -> list[Turn]:
        """An imperfect demonstration, drawn from the task's name."""
        draw = random.Random(f"demonstration-{task.id}")
        value, turns = task.info["start"], []
        for ordinal, (word, operand) in zip(ORDINALS, task.info["operations"], strict=False):
            line = f"{ordinal} {word} {operand}."
            sign, trap, share = WORDS[word]
            fell = self.falls(draw, trap, share)
            if fell and trap == "silent":
                sign = OPPOSITE[sign]
            elif fell:
                code = f"{word}({value},{operand})"
                fails = calls_python(line, code, undefined(code, word))
                if trap == "dead_end":
                    return [*turns, fails, fails, GIVE_UP]
                turns.append(fails)
                if draw.random() >= self.repaired:
                    continue
            code = f"{value}{sign}{operand}"
            value = calculate(value, sign, operand)
            turns.append(calls_python(line, code, str(value)))
        return [*turns, Turn(f"\\boxed{{{value}}}")]

    def first_wrong_step(self, task: Task, leaf: Node) -> int | None:
        """The first step with a call that does not lead to the next value, or the same, or as far as it has operators.

        So it does not matter how a value is computed, nor how many operations a call does.
        """
        values = [task.info["start"]]
        for word, operand in task.info["operations"]:
            values.append(calculate(values[-1], WORDS[word].sign, operand))
        ahead = [str(value) for value in values]
        for number, step in enumerate(leaf.steps, 1):
            for call in step.calls:
                operators = sum(str(call.arguments.get("code")).count(sign) for sign in "+-*")
                reached = [*ahead[1 : operators + 1], ahead[0]]
                if call.failed or call.output not in reached:
                    return number
                ahead = ahead[(reached.index(call.output) + 1) % len(reached) :]
        return None if leaf.success else len(leaf.steps)


def calculate(value: int, sign: str, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand}[sign]
