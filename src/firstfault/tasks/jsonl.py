"""Tasks of the user's own, from a JSONL file."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from firstfault.errors import UserError
from firstfault.tasks.judged import Judged, Judging
from firstfault.tasks.rows import endless
from firstfault.tree import Task


class JsonlTasks(Judged):
    r"""A file with a JSON object a line: `question`, `answer`, and any further fields, kept in `info`.

    The agent has the Python tool and answers in \boxed{}. Training passes over the file again and again, each time in
    another order.
    """

    system: ClassVar[str | None] = (
        "Solve the problem step by step. Use the python tool for calculations. "
        "Put the final answer, and nothing else, in \\boxed{}."
    )

    path: Path = Field(description="the file")
    held_out_path: Path | None = Field(None, description="another such file, for evaluation")
    judged_by: Literal["same", "math", "exact", "f1", "bleu"] = Field(
        "same", description="same: number or text; math: by value; exact: the same words; f1, bleu: also some of them"
    )

    @property
    def judging(self) -> Judging:
        return self.judged_by

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        tasks = _read(self.path)
        return [tasks[i] for i in endless(seed, first, n, len(tasks))]

    def held_out(self, n: int) -> list[Task]:
        return _read(self.held_out_path)[:n] if self.held_out_path else []


@functools.lru_cache
def _read(path: Path) -> list[Task]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # some other line breaks may stand in a JSON string
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the tasks {path} can't be read ({error}); give the path of a JSONL file in UTF-8.") from error
    tasks = [_task(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not tasks:
        raise UserError(f'{path} holds no tasks; write a line like {{"question": "1 + 1?", "answer": "2"}} for each.')
    return tasks


def _task(line: str, where: str) -> Task:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}); write one object per line.") from error
    for name in ("question", "answer"):
        value = fields.get(name) if isinstance(fields, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = fields[name] = str(value)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where} has no {name!r}; every task is an object with a question and an answer, as text.")
    answers = fields.get("answers", [""])
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{where}: answers = {answers!r} is no list of texts; list all right answers there, or none.")
    return Task(fields.pop("question"), fields.pop("answer"), id=where, info=fields)
