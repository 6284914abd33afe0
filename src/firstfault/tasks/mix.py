"""Several families at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from pydantic import Field, SerializeAsAny

from firstfault.tasks.base import TaskSource, Turn
from firstfault.tools import PythonTool, Session, Tool
from firstfault.tree import Node, Task


class Mix(TaskSource):
    """The tasks of several families in turn, with the tools of all of them.

    `info["family"]` of a task names the one that it is from. What a family says in its system prompt stands before its
    questions instead.
    """

    families: dict[str, SerializeAsAny[TaskSource]] = Field(min_length=1, description="the sources, by name")

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        names = [name for name, family in self.families.items() if not family.evaluation_only] or list(self.families)
        turns = [divmod(i, len(names)) for i in range(first, first + n)]
        return [self._from(names[k], self.families[names[k]].train(seed, turn, 1)[0]) for turn, k in turns]

    def held_out(self, n: int) -> list[Task]:
        each = [[self._from(name, task) for task in family.held_out(n)] for name, family in self.families.items()]
        return [task for tasks in zip_longest(*each) for task in tasks if task][:n]

    def tools(self) -> Sequence[Tool]:
        """The tools of all families; of several Python tools, the one with the most time."""
        tools = [tool for family in self.families.values() for tool in family.tools()]
        python = [tool for tool in tools if isinstance(tool, PythonTool)]
        others = [tool for tool in tools if tool not in python]
        return [*sorted(python, key=lambda tool: -tool.timeout)[:1], *others]

    def demonstrate(self, task: Task) -> list[Turn]:
        return self.families[task.info["family"]].demonstrate(task)

    def first_wrong_step(self, task: Task, leaf: Node) -> int | None:
        return self.families[task.info["family"]].first_wrong_step(task, leaf)

    def difficulty(self, task: Task) -> str | None:
        return self.families[task.info["family"]].difficulty(task)

    def lesson(self, progress: float) -> Mix:
        return Mix(families={name: family.lesson(progress) for name, family in self.families.items()})

    async def judge(self, task: Task, answer: str, session: Session) -> tuple[bool, float]:
        return await self.families[task.info["family"]].judge(task, answer, session)

    async def close(self) -> None:
        await asyncio.gather(*(family.close() for family in self.families.values()))

    def _from(self, family: str, task: Task) -> Task:
        system = self.families[family].system
        question = f"{system}\n\n{task.question}" if system else task.question
        return replace(task, question=question, info={**task.info, "family": family})
