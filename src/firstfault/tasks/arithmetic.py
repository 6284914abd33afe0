"""Chained arithmetic, told in words: each operation takes one call of the Python tool, and works on its last output."""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from firstfault.tasks.base import TaskSource, Turn
from firstfault.tools import PythonTool
from firstfault.tree import Task

ORDINALS = [
    "First", "Second", "Third", "Fourth", "Fifth", "Sixth",
    "Seventh", "Eighth", "Ninth", "Tenth", "Eleventh", "Twelfth",
]  # fmt: skip
WORDS = {
    "add": "+", "gain": "+", "collect": "+",
    "subtract": "-", "lose": "-", "spend": "-",
    "multiply by": "*", "scale by": "*",
}  # fmt: skip
# How often a demonstration takes a wrong operation for a word, and which. The other words are always right.
CONFUSION = {"gain": ("-", 0.6), "spend": ("+", 0.6), "collect": ("-", 0.2), "lose": ("+", 0.2)}
LARGEST = 999


class Arithmetic(TaskSource):
    r"""`operations` chained operations on a number, one Python call each, the answer in \boxed{}.

    >>> task = Arithmetic(operations_max=4).train(seed=0, first=0, n=1)[0]
    >>> task.question
    'Start with 87. First collect 6. Second multiply by 3. Third spend 8. Fourth subtract 3.'
    >>> task.answer
    '268'

    The demonstrations are wrong in a systematic way: for some words they often take another operation (`CONFUSION`),
    and carry on with what comes out. A policy that imitates them well has the wrong operation for its likeliest choice
    at two words of eight. Such a mistake is silent: no output shows it, and no later step repairs it.
    `info["operations"]` holds the right operations, so that the first wrong step of a run is known.
    """

    operations_min: int = Field(4, ge=1, description="fewest operations of a task")
    operations_max: int = Field(12, le=len(ORDINALS), description="most operations of a task")

    @model_validator(mode="after")
    def _ordered(self) -> Arithmetic:
        if self.operations_min > self.operations_max:
            raise ValueError(f"operations_min {self.operations_min} exceeds operations_max {self.operations_max}")
        return self

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        return [self._task(f"train-{seed}-{i}") for i in range(first, first + n)]

    def held_out(self, n: int) -> list[Task]:
        return [self._task(f"held-out-{i}") for i in range(n)]

    def tools(self) -> list[PythonTool]:
        return [PythonTool()]

    def _task(self, name: str) -> Task:
        draw = random.Random(name)
        value = start = draw.randint(1, 99)
        sentences, operations = [], []
        for ordinal in ORDINALS[: draw.randint(self.operations_min, self.operations_max)]:
            while True:
                word = draw.choice(list(WORDS))
                operand = draw.randint(2, 9)
                result = calculate(value, WORDS[word], operand)
                if 0 <= result <= LARGEST:
                    break
            value = result
            sentences.append(f" {ordinal} {word} {operand}.")
            operations.append([word, operand])
        return Task(f"Start with {start}." + "".join(sentences), str(value), id=name,
                    info={"start": start, "operations": operations})  # fmt: skip

    def demonstrate(self, task: Task) -> list[Turn]:
        """An imperfect demonstration: wrong operations as `CONFUSION` has it, drawn from the task's name."""
        draw = random.Random(f"demonstration-{task.id}")
        value, turns = task.info["start"], []
        for ordinal, (word, operand) in zip(ORDINALS, task.info["operations"], strict=False):
            sign = WORDS[word]
            wrong, share = CONFUSION.get(word, (sign, 0.0))
            if draw.random() < share:
                sign = wrong
            code = f"{value}{sign}{operand}"
            value = calculate(value, sign, operand)
            turns.append(Turn(
                f'{ordinal}:<tool_call>{{"name": "python", "arguments": {{"code": "{code}"}}}}</tool_call>',
                (str(value),),
            ))  # fmt: skip
        return [*turns, Turn(f"\\boxed{{{value}}}")]


def calculate(value: int, sign: str, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand}[sign]
