"""What decides whether a run of somebody else's agent is a success."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from firstfault.errors import UserError
from firstfault.locate.resume import Check
from firstfault.tasks.base import last_boxed, same_answer
from firstfault.tasks.judges.text import normalized
from firstfault.tools.base import describe
from firstfault.tools.own import load_file
from firstfault.writers.base import Message, Refused, Writer

VERDICT = re.compile(r"\b(SUCCESS|FAILURE)\b")
NUMBER = re.compile(r"(?<![\w./])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w/]|,\d{3})")


def by_function(function: Callable[[list[Message]], Any]) -> Check:
    """A function of the messages, which may be async; what it returns is a success if it is at least 0.5."""

    async def check(messages: list[Message]) -> bool:
        try:
            found = function(messages)
            found = float(await found if inspect.isawaitable(found) else found)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            reason = describe(error).rstrip(".")
            raise UserError(f"the check fails with {reason}; mend it there.") from error
        if found != found:
            raise UserError("the check gives NaN; a success is a number of at least 0.5, or True.")
        return found >= 0.5

    return check


def from_file(name: str) -> Check:
    """The function `check` of a Python file, or "file.py:name"."""
    path, _, attribute = name.partition(":")
    function = getattr(load_file(path, name), attribute or "check", None)
    if not callable(function):
        raise UserError(f"{name}: {path} has no function {attribute or 'check'!r}; write one that takes messages.")
    return by_function(function)


def by_answer(expected: str) -> Check:
    """The last message has the expected answer: in its `\\boxed{}` if it has one, and else anywhere, as whole words."""

    async def check(messages: list[Message]) -> bool:
        return messages[-1]["role"] == "assistant" and says(messages[-1]["content"], expected)

    return check


def says(text: str, expected: str) -> bool:
    r"""Whether a text has an expected answer. One that has digits and is no number has to stand there as it is.

    >>> says("It is 42, I think.", "42"), says("It is -4.2", "42"), says(r"\boxed{42.0}", "42"), says("It is 12", "1/2")
    (True, False, True, False)
    >>> says("New  York!", "new york"), says("The score was 3:1.", "3:1"), says("It is 31", "3:1")
    (True, True, False)
    """
    boxed = last_boxed(text)
    if boxed is not None:
        return same_answer(boxed, expected)
    expected = expected.strip()
    if NUMBER.fullmatch(expected):
        return any(same_answer(number, expected) for number in NUMBER.findall(text))
    if re.search(r"\d", expected):
        words = r"\s+".join(map(re.escape, expected.split()))
        return re.search(rf"(?<![\w.,/:-]){words}(?![\w/:]|[.,]\d)", text, re.IGNORECASE) is not None
    return f" {normalized(expected)} " in f" {normalized(text)} " if normalized(expected) else False


def by_judge(writer: Writer, rubric: str) -> Check:
    """A language model that reads the run and the rubric."""

    async def check(messages: list[Message]) -> bool:
        question = (
            f"An agent worked on a task. Decide by this rubric whether it succeeded:\n\n{rubric}\n\n"
            f"The conversation:\n\n{transcript(messages)}\n\n"
            "Write one line of reasons, and then SUCCESS or FAILURE as the last word."
        )
        try:
            message = await writer.complete([{"role": "user", "content": question}], [], (0, 0))
        except Refused as reason:
            raise UserError(f"{reason}; use another model as the judge.") from reason
        verdicts = VERDICT.findall(message["content"])
        if not verdicts:
            said = message["content"][-80:]
            raise UserError(f"the judge says neither SUCCESS nor FAILURE: {said!r}; use another model for it.")
        return verdicts[-1] == "SUCCESS"

    return check


def transcript(messages: list[Message]) -> str:
    """A conversation for a reader."""
    lines = []
    for message in messages:
        if message.get("content"):
            lines.append(f"[{message['role']}] {message['content']}")
        for call in message.get("tool_calls", ()):
            lines.append(f"[{message['role']} calls {call['function']['name']}] {call['function']['arguments']}")
    return "\n".join(lines)
