"""Tasks from data sets, and how their answers are judged. The published sets are in `catalog.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from firstfault.errors import UserError
from firstfault.tasks.judged import INSTRUCTION, Judged, Judging
from firstfault.tasks.judges.code import Asserts, Examples
from firstfault.tasks.rows import Rows, endless, load_rows, shuffled
from firstfault.tree import Task


class DataTasks(Judged):
    r"""Tasks that are rows of a data set. A class of these says where its rows are, and what a row asks.

    The answer has to stand in the last `\boxed{}`, a program in the last block of Python. `info` tells which row a task
    is, so that its tests, which can be large, stay with the data.
    """

    path: Path | None = Field(None, description="a copy on this machine: a folder or a file; without it, the hub")
    held_out_path: Path | None = Field(None, description="the tasks for evaluation, if they are elsewhere")

    def judging_of(self, task: Task) -> Judging:
        return task.info.get("judging", self.judging)

    def rows(self, training: bool) -> Rows | None:
        """The rows for training or for evaluation; None if there are none."""
        raise NotImplementedError

    def task(self, row: dict[str, Any]) -> Task:
        """What a row asks. Raise any LookupError, TypeError or ValueError if it is not as it should be."""
        raise NotImplementedError

    def row_tests(self, row: dict[str, Any]) -> Examples | Asserts:
        """The tests of a row that asks for a program."""
        raise NotImplementedError

    def tests(self, task: Task) -> Examples | Asserts:
        number = task.info["row"]
        row = self.rows(training=task.info["part"] == "train")[number]
        with self._reading(number, row):
            return self.row_tests(row)

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        rows = self.rows(training=True)
        if rows is None:
            raise UserError(
                f"{type(self).__name__} is for evaluation only; train on another data set, "
                "or name this one's columns with --tasks dataset."
            )
        return [self._task(rows, i, True) for i in endless(seed, first, n, len(rows))]

    def held_out(self, n: int) -> list[Task]:
        """The first `n` in a fixed order, because some sets are sorted by topic."""
        rows = self.rows(training=False)
        return [] if rows is None else [self._task(rows, i, False) for i in shuffled("held-out", len(rows))[:n]]

    def _task(self, rows: Rows, number: int, training: bool) -> Task:
        row = rows[number]
        with self._reading(number, row):
            task = self.task(row)
        part = "train" if training else "held-out"
        instruction = INSTRUCTION[self.judging_of(task)]
        return Task(f"{task.question}\n\n{instruction}", task.answer, f"{part}-{number}",
                    {**task.info, "part": part, "row": number})  # fmt: skip

    @contextmanager
    def _reading(self, number: int, row: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"row {number} of {type(self).__name__} can't be read ({type(error).__name__}: {error}; the columns "
                f"are {', '.join(row)}); give data with the published columns, or name them with --tasks dataset."
            ) from error


class Dataset(DataTasks):
    """Any data set, by the names of its columns; from the hub or a copy on this machine."""

    path: Path = Field(description="a data set's name on the hub, or a folder or a file on this machine")
    config: str | None = Field(None, description="its configuration, if it has several")
    split: str = Field("train", description="the split to train on")
    held_out_split: str | None = Field(None, description="the split to evaluate on, such as test")
    question_column: str = Field("question", description="the column that holds what is asked")
    answer_column: str = Field("answer", description="the column of the answer, or of a list of right answers")
    choices_column: str | None = Field(None, description="the column of a list of choices, if there are some")
    judged_by: Literal["math", "exact", "f1", "bleu", "choice"] = Field(
        "math", description="exact: the same words; f1, bleu: also reward some of the words; choice: a letter"
    )

    @property
    def judging(self) -> Judging:
        return self.judged_by

    def rows(self, training: bool) -> Rows | None:
        configs = (self.config,) if self.config else ()
        if training:
            return load_rows(str(self.path), self.split, configs)
        if self.held_out_path is not None:
            return load_rows(str(self.held_out_path), self.held_out_split or self.split, configs)
        return load_rows(str(self.path), self.held_out_split, configs) if self.held_out_split else None

    def task(self, row: dict[str, Any]) -> Task:
        question, answer = row[self.question_column], row[self.answer_column]
        if self.judged_by == "choice":
            return multiple_choice(question, row[self.choices_column], answer)
        return short_answer(question, answer if isinstance(answer, list) else [answer])


def short_answer(question: str, answers: list[Any], **info: Any) -> Task:
    """A question with its right answers, the first of which is the usual one."""
    answers = [str(answer) for answer in answers if answer is not None]
    if not question.strip() or not answers or not answers[0].strip():
        raise ValueError("the question or the answer is empty")
    return Task(question, answers[0], info={**({"answers": answers} if len(answers) > 1 else {}), **info})


def multiple_choice(question: str, choices: list[str] | dict[str, list[str]], right: int | str, **info: Any) -> Task:
    """A question with lettered choices; `right` is the number of the right one (from 0), its letter, or its text.

    Choices may be texts with labels, {"text": [...], "label": [...]}, and `right` one of the labels.
    """
    if isinstance(choices, dict):
        right, choices = choices["label"].index(right), choices["text"]
    if not isinstance(choices, list):
        raise TypeError(f"the choices are a {type(choices).__name__}, and no list")
    lettered = {chr(ord("A") + i): str(text) for i, text in enumerate(choices)}
    if isinstance(right, str) and right.strip().isdigit() and right not in choices:
        right = int(right)
    letters = list(lettered)
    if not isinstance(right, int):
        right = letters.index(right) if right in lettered else choices.index(right)
    letter = letters[right]
    listed = "\n".join(f"({letter}) {text}" for letter, text in lettered.items())
    return Task(f"{question}\n{listed}", letter, info={"choices": lettered, **info})
