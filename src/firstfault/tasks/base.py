"""What is asked and how it is judged."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

from firstfault.config import Settings
from firstfault.tools.base import Session, Tool
from firstfault.tree import Node, Task


@dataclass(frozen=True)
class Turn:
    """One step of a demonstration: what the agent writes, and what its tool calls return (none on the last)."""

    text: str
    outputs: tuple[str, ...] = ()


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A tool call as demonstrations write it.

    >>> call_text("python", {"code": "6*7"})
    '<tool_call>{"name": "python", "arguments": {"code": "6*7"}}</tool_call>'
    """
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


class TaskSource(Settings):
    """Where tasks come from. The fields are its options.

    Attributes:
        system: the system prompt of every task, if any.
        evaluation_only: whether there is nothing to train on; a mix then has its held-out tasks only.
    """

    system: ClassVar[str | None] = None
    evaluation_only: ClassVar[bool] = False

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        """Training tasks number `first` to `first + n - 1` of the endless sequence that `seed` draws."""
        raise NotImplementedError

    def held_out(self, n: int) -> list[Task]:
        """At most `n` tasks that training never sees; the same at every call. Empty if the source has none."""
        raise NotImplementedError

    def tools(self) -> Sequence[Tool]:
        """The tools that the tasks are meant to be solved with."""
        raise NotImplementedError

    def demonstrate(self, task: Task) -> list[Turn]:
        """How an agent might solve a task, from which the tiny policy is taught; sources need not have any."""
        raise NotImplementedError

    def first_wrong_step(self, task: Task, leaf: Node) -> int | None:
        """The first step, from 1, of the run that ended at `leaf` that departs from what is known to be right.

        None if all are right, in which case the run is a success, or if nobody knows. A success may have a wrong step
        that a later one repaired.
        """
        return None

    def difficulty(self, task: Task) -> str | None:
        """How hard a task is, as text; None if nobody knows. By default what its `info` has as difficulty or level."""
        level = task.info.get("difficulty", task.info.get("level"))
        return str(level) if isinstance(level, str | int | float) else None

    def lesson(self, progress: float) -> TaskSource:
        """The tasks to demonstrate when a share `progress` of the lessons is over: easy ones first, if that helps."""
        return self

    async def judge(self, task: Task, answer: str, session: Session) -> tuple[bool, float]:
        r"""Whether the run that ended with `answer` is a success, and its reward.

        `session` is the run's tools as it left them. By default the last `\boxed{}` has to hold the task's answer, and
        the reward is 1 or 0.
        """
        boxed = last_boxed(answer)
        success = boxed is not None and same_answer(boxed, task.answer)
        return success, float(success)

    async def close(self) -> None:
        """Free what judging holds."""
        return None


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete \boxed{...}, braces balanced; None if there is none.

    >>> last_boxed(r"first \boxed{1}, then \boxed{\frac{1}{2}}."), last_boxed(r"\boxed{1"), last_boxed("1")
    ('\\frac{1}{2}', None, None)
    """
    found, last, openings = None, -1, []
    for brace in re.finditer(r"\\boxed\s*\{|[{}]", text):  # in one pass, however many are never closed
        if brace[0] != "}":
            openings.append(brace)
        elif openings:
            opening = openings.pop()
            if opening[0] != "{" and opening.end() > last:
                found, last = text[opening.end() : brace.start()], opening.end()
    return found


def plain(text: str) -> str:
    r"""Without LaTeX's fonts, its spaces within numbers, and dollar signs.

    >>> plain(r"$\text{ New York }$"), plain(r"1{,}200"), plain(r"\mathbf{-5\,000}")
    ('New York', '1200', '-5000')
    """
    text = re.sub(r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathsf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"(?<=\d)(?:\{,\}|\\[,;: ])(?=\d{3}(?!\d))", "", text.replace(r"\!", "").replace("\u2212", "-"))
    return re.sub(r"\\([&%$#_ ])", r"\1", text).strip().strip("$").strip()


def same_answer(given: str, expected: str) -> bool:
    r"""Equal as decimal numbers, or else as text; letter case, white space, a full stop at the end and `plain` aside.

    >>> same_answer("1,200.0", "1200"), same_answer(r"\text{Paris}. ", "paris"), same_answer("12", "21")
    (True, True, False)
    """
    a, b = (" ".join(plain(text).rstrip(".").lower().split()) for text in (given, expected))
    try:
        return a == b or _number(a) == _number(b)
    except InvalidOperation:
        return False


def _number(text: str) -> Decimal:
    """A decimal number, with commas at its thousands or without any; `12_3` and `1,2` are none."""
    if "_" in text:  # which Python would leave out
        raise InvalidOperation
    return Decimal(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
