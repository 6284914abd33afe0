"""A record of every run of an evaluation, and the file in which they are kept, so that it can go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstfault.evaluation.rows import RowsFile
from firstfault.tasks.votes import vote
from firstfault.tree import Node


@dataclass(frozen=True)
class Record:
    """One run. `sample` is its number among those of its task, from 0; None for the greedy one.

    `number` is the place of the task among those that were evaluated, from 0; other families may have tasks of the
    same id. `answer` is what is voted on (see `vote`), `end` one of answer, max_tokens, max_steps, context. `tokens`
    are those that the agent wrote; None where an endpoint does not tell.
    """

    number: int
    task: str
    family: str
    difficulty: str | None
    sample: int | None
    success: bool
    reward: float
    answer: str | None
    end: str
    steps: int
    calls: int
    failed_calls: int
    tokens: int | None


def record(leaf: Node, tokens: int | None, **of_the_task: Any) -> Record:
    """The record of the run that ended at `leaf`."""
    calls = [call for step in leaf.steps for call in step.calls]
    return Record(
        success=bool(leaf.success), reward=float(leaf.reward), answer=vote(leaf.answer), end=str(leaf.end),
        steps=leaf.depth, calls=len(calls), failed_calls=sum(call.failed is not None for call in calls),
        tokens=tokens, **of_the_task,
    )  # fmt: skip


class RecordsFile(RowsFile[Record]):
    """The records of an evaluation, all those of each task: where some are missing, it was cut off and is done again.

    Args:
        path: the file; if it is there, it goes on.
        settings: what the records follow from.
        runs: how many runs a task has.

    Raises:
        UserError: if the file is none of ours, has other settings, or can't be read or written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], runs: int):
        def whole(records: list[Record]) -> list[Record]:
            of_task = Counter(record.number for record in records)
            return [record for record in records if of_task[record.number] == runs]

        super().__init__(path, settings, Record, "--records", whole)

    @property
    def finished(self) -> set[int]:
        """The numbers of the tasks whose records are here."""
        return {record.number for record in self.rows}
