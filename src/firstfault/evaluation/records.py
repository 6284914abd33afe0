"""A record of every run of an evaluation, and the file in which they are kept, so that it can go on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.files import write_whole
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


class RecordsFile:
    """A JSONL file: the settings in the first line, then a record a line. Without a path, records are in memory only.

    Args:
        path: the file; if it is there, it goes on.
        settings: what the records follow from.
        runs: how many runs a task has. Tasks with fewer have been cut off: their records are dropped.

    Raises:
        UserError: if the file is none of ours, has other settings, or can't be read or written.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any], runs: int):
        self.path = path
        self.records: list[Record] = []
        if path is None:
            return
        header = json.dumps({"settings": settings}, ensure_ascii=False) + "\n"
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            if text:
                self.records = _read(path, text, json.loads(header)["settings"], runs)
            lines = [header, *map(_line, self.records)]
            if "".join(lines) != text:
                write_whole(path, "".join(lines))
        except OSError as error:
            raise UserError(
                f"the records {path} can't be kept ({error.strerror}); give the path of a file with --records."
            ) from error

    @property
    def finished(self) -> set[int]:
        """The numbers of the tasks whose records are here."""
        return {record.number for record in self.records}

    def add(self, records: Sequence[Record]) -> None:
        """Keep the records of a task, all of them."""
        if self.path is not None:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(map(_line, records)))
            except OSError as error:
                raise UserError(
                    f"{self.path} can't be written ({error.strerror}); the records in it are whole. Make room, then "
                    "give the same command again."
                ) from error
        self.records.extend(records)


def _line(record: Record) -> str:
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def _read(path: Path, text: str, settings: dict[str, Any], runs: int) -> list[Record]:
    """The records of all tasks that are finished."""
    first, *lines = text.split("\n")
    try:
        made = json.loads(first)["settings"]
        records = [Record(**json.loads(line)) for line in lines[:-1]]  # the last is empty, or was cut short
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} holds no records of an evaluation; give another path with --records.") from error
    for name in (*settings, *made):
        if records and made.get(name) != settings.get(name):  # where nothing came of other settings, these may begin
            raise UserError(
                f"{path} was made with {_setting(name, made)}, not {_setting(name, settings)}; give the same settings, "
                "or another path with --records."
            )
    of_task = Counter(record.number for record in records)
    return [record for record in records if of_task[record.number] == runs]


def _setting(name: str, settings: dict[str, Any]) -> str:
    text = json.dumps(settings.get(name), ensure_ascii=False)
    return f"{name} = {text if len(text) <= 120 else text[:119] + '…'}"
