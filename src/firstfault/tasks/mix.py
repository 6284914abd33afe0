"""Several families at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from pydantic import Field, SerializeAsAny

from firstfault.tasks.base import TaskSource, Turn
from firstfault.tools.base import Session, Tool
from firstfault.tree import Task


class Mix(TaskSource):
    """The tasks of several families in turn, with the tools of all of them.

    `info["family"]` of a task names the one that it is from.
    """

    families: dict[str, SerializeAsAny[TaskSource]] = Field(min_length=1, description="the sources, by name")

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        names = [name for name, family in self.families.items() if not family.evaluation_only] or list(self.families)
        turns = [divmod(i, len(names)) for i in range(first, first + n)]
        return [_from(names[k], self.families[names[k]].train(seed, turn, 1)[0]) for turn, k in turns]

    def held_out(self, n: int) -> list[Task]:
        each = [[_from(name, task) for task in family.held_out(n)] for name, family in self.families.items()]
        return [task for tasks in zip_longest(*each) for task in tasks if task][:n]

    def tools(self) -> Sequence[Tool]:
        """The tools of all families; of those that offer the same functions, the first family's."""
        tools: dict[tuple[str, ...], Tool] = {}
        for family in self.families.values():
            for tool in family.tools():
                tools.setdefault(tuple(schema["function"]["name"] for schema in tool.schemas), tool)
        return list(tools.values())

    def demonstrate(self, task: Task) -> list[Turn]:
        return self.families[task.info["family"]].demonstrate(task)

    def lesson(self, progress: float) -> Mix:
        return Mix(families={name: family.lesson(progress) for name, family in self.families.items()})

    async def judge(self, task: Task, answer: str, session: Session) -> tuple[bool, float]:
        return await self.families[task.info["family"]].judge(task, answer, session)

    async def close(self) -> None:
        await asyncio.gather(*(family.close() for family in self.families.values()))


def _from(family: str, task: Task) -> Task:
    return replace(task, info={**task.info, "family": family})
