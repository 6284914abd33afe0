"""What families of chained operations share: tasks of as many operations as asked for, one Python call for each."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from firstfault.tasks.base import Turn, call_text
from firstfault.tasks.mistakes import FlawedTasks
from firstfault.tools import PythonTool
from firstfault.tree import Task

ORDINALS = [
    "First", "Second", "Third", "Fourth", "Fifth", "Sixth",
    "Seventh", "Eighth", "Ninth", "Tenth", "Eleventh", "Twelfth",
]  # fmt: skip
GIVE_UP = Turn("\\boxed{?}")


class Chains(FlawedTasks):
    """Tasks of `operations_min` to `operations_max` operations, told in words, one after the other."""

    operations_min: int = Field(4, ge=1, description="fewest operations of a task")
    operations_max: int = Field(12, le=len(ORDINALS), description="most operations of a task")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.operations_min > self.operations_max:
            raise ValueError(f"operations_min {self.operations_min} exceeds operations_max {self.operations_max}")
        return self

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        return [self._task(f"train-{seed}-{i}") for i in range(first, first + n)]

    def held_out(self, n: int) -> list[Task]:
        return [self._task(f"held-out-{i}") for i in range(n)]

    def tools(self) -> list[PythonTool]:
        return [PythonTool()]

    def difficulty(self, task: Task) -> str:
        """The number of its operations."""
        return str(len(task.info["operations"]))

    def lesson(self, progress: float) -> Self:
        """Short tasks first: they teach how to copy and to call at a third of the cost."""
        if progress >= 0.5:
            return self
        return self.model_copy(update={"operations_min": 1, "operations_max": min(4, self.operations_max)})

    def _task(self, name: str) -> Task:
        """The task of this name, which is all that it is drawn from."""
        raise NotImplementedError


def calls_python(line: str, code: str, output: str) -> Turn:
    """A turn of a demonstration: a line of the question, said again, and the code that follows from it."""
    return Turn(line + call_text("python", {"code": code}), (output,))


def undefined(code: str, name: str) -> str:
    """What the Python tool answers to a line of code that uses a name which nothing defines."""
    return f"line 1: {code}\nNameError: name '{name}' is not defined"
