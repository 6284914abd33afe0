import asyncio
import time
from enum import Enum
from typing import Any, Literal

import pytest

from firstfault.errors import UserError
from firstfault.tools import FunctionTool, Observation, Session, Tool, ToolError


class Unit(Enum):
    METRE = "m"
    FOOT = "ft"


def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


async def area(
    sides: list[float], unit: Unit = "m", mode: Literal["flat", 3] = "flat", note: str | None = None, x: Any = 0
) -> str:
    """The area of a box.

    Args:
        sides: lengths of the sides
        unit: their unit
        mode: how
        note: a remark
        x: anything
    """
    return f"{sides[0] * sides[1]:g} {unit}²"


def fail(how: str) -> str:
    """Fail.

    Args:
        how: the way to do it
    """
    if how == "value":
        raise ValueError("two\nlines")
    if how == "tool":
        raise ToolError("no such page", "not found")
    if how == "user":
        raise UserError("the search index is missing")
    if how == "exit":
        raise SystemExit(3)
    if how == "stop":
        return next(iter([]))
    if how == "surrogate":
        return "\ud800"
    if how == "flood":
        return "abc" * 1000
    time.sleep(60)
    return ""


async def wait(seconds: float) -> str:
    """Wait.

    Args:
        seconds: how long
    """
    await asyncio.sleep(seconds)
    return "done"


TOOLS = [FunctionTool(function) for function in (add, area, fail, wait)]


def call(name: Any, arguments: Any, **options: Any) -> Observation:
    return asyncio.run(Session(TOOLS, **options).call(name, arguments))


def test_schemas_are_what_chat_templates_take():
    schema = Session(TOOLS).schemas[0]
    assert schema["type"] == "function"
    assert schema["function"]["name"] == "add"
    assert schema["function"]["parameters"]["required"] == ["a"]
    assert "return" not in schema["function"]


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("add", {"a": 17, "b": 5}, "22"),
        ("add", {"a": 17}, "18"),
        ("area", {"sides": [2, 2.5]}, "5 m²"),
        ("area", {"sides": [2, 2], "unit": "ft", "mode": 3, "note": None, "x": {"y": []}}, "4 ft²"),
    ],
)
def test_calls_that_fit(name, arguments, text):
    observation = call(name, arguments)
    assert (observation.text, observation.failed) == (text, None)
    assert observation.seconds > 0


@pytest.mark.parametrize(
    ("name", "arguments", "text", "failed"),
    [
        ("sub", {}, "Error: no tool 'sub'; tools: add, area, fail, wait", "unknown tool"),
        (None, {}, "Error: no tool 'None'; tools: add, area, fail, wait", "unknown tool"),
        (["add"], {}, "Error: no tool \"['add']\"; tools: add, area, fail, wait", "unknown tool"),
        ("add", None, "Error: add: arguments must be an object, not null", "bad arguments"),
        ("add", "17", "Error: add: arguments must be an object, not string", "bad arguments"),
        ("add", [17], "Error: add: arguments must be an object, not array", "bad arguments"),
        ("add", {}, "Error: add: missing argument 'a'", "bad arguments"),
        ("add", {"a": 1, "c": 2}, "Error: add: unknown argument 'c'; arguments: a, b", "bad arguments"),
        ("add", {"a": "17"}, "Error: add: 'a' must be integer, not string", "bad arguments"),
        ("add", {"a": 17.0}, "Error: add: 'a' must be integer, not number", "bad arguments"),
        ("add", {"a": True}, "Error: add: 'a' must be integer, not boolean", "bad arguments"),
        ("add", {"a": False}, "Error: add: 'a' must be integer, not boolean", "bad arguments"),
        ("add", {"a": None}, "Error: add: 'a' must be integer, not null", "bad arguments"),
        ("area", {"sides": 2}, "Error: area: 'sides' must be array, not integer", "bad arguments"),
        ("area", {"sides": [2, "3"]}, "Error: area: 'sides' must be array of number", "bad arguments"),
        (
            "area",
            {"sides": [], "unit": "yd"},
            "Error: area: 'unit' must be one of 'm', 'ft', not string",
            "bad arguments",
        ),
        ("area", {"sides": [], "mode": []}, "Error: area: 'mode' must be one of 'flat', 3, not array", "bad arguments"),
        ("area", {"sides": []}, "Error: IndexError: list index out of range", "raised"),
        ("fail", {"how": "value"}, "Error: ValueError: two lines", "raised"),
        ("fail", {"how": "tool"}, "no such page", "not found"),
        ("fail", {"how": "exit"}, "Error: SystemExit: 3", "raised"),
        ("fail", {"how": "stop"}, "Error: StopIteration", "raised"),
        ("fail", {"how": "hang"}, "Error: fail: no result after 0.2 s", "timed out"),
        ("wait", {"seconds": 60}, "Error: wait: no result after 0.2 s", "timed out"),
    ],
)
def test_mistakes_become_observations(name, arguments, text, failed):
    observation = call(name, arguments, timeout=0.2)
    assert (observation.text, observation.failed) == (text, failed)
    assert observation.seconds < 10


def test_hanging_functions_do_not_hold_up_the_others():
    async def main():
        session = Session(TOOLS, timeout=0.2)
        hanging = [session.call("fail", {"how": "hang"}) for _ in range(40)]
        return await asyncio.gather(*hanging, *[session.call("add", {"a": n}) for n in range(40)])

    observations = asyncio.run(main())  # that this returns at all means that no hanging thread was waited for
    assert [o.failed for o in observations[:40]] == ["timed out"] * 40
    assert [o.text for o in observations[40:]] == [str(n + 1) for n in range(40)]


def test_long_output_is_cut_in_the_middle():
    text = call("fail", {"how": "flood"}, max_output=100).text
    assert len(text) == 100
    assert text.startswith("abcabc") and text.endswith("abcabc")
    kept = sum(len(part) for part in text.split("...["))
    assert "characters cut]" in text and kept < 100
    cut = int(text.split("...[")[1].split()[0])
    assert cut == 3000 - (100 - len(f"...[{cut} characters cut]..."))


def test_text_is_valid_unicode():
    assert call("fail", {"how": "surrogate"}).text == "?"


def test_messages_to_the_user_and_cancellations_are_raised():
    with pytest.raises(UserError, match="index is missing"):
        call("fail", {"how": "user"})

    async def cancel():
        task = asyncio.create_task(Session(TOOLS).call("wait", {"seconds": 60}))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())


class Counter(Tool):
    """A tool with state."""

    name = "count"

    def __init__(self, value: int = 0):
        self.value = value
        self.closed = False
        self.schemas = [{"type": "function", "function": {"name": self.name, "description": "Count."}}]

    async def call(self, name: str, arguments: dict) -> str:
        self.value += 1
        return str(self.value)

    def fork(self) -> "Counter":
        return Counter(self.value)

    async def close(self) -> None:
        self.closed = True


class Shared(Counter):
    """The same, shared by all forks."""

    name = "share"

    def fork(self) -> "Shared":
        return self


def test_forks_are_independent_and_close_only_what_is_theirs():
    async def main():
        first = Session([Counter(), Shared()], timeout=1.0, max_output=3)
        await first.call("count", {})
        fork = first.fork()
        counts = [(await session.call("count", {})).text for session in (first, fork, fork, first, fork)]
        shared = [(await session.call("share", {})).text for session in (first, fork)]
        await fork.close()
        tools = [session.functions[name][0] for session, name in ((first, "count"), (first, "share"), (fork, "count"))]
        closed = [tool.closed for tool in tools]
        await first.close()
        closed += [tool.closed for tool in tools[:2]]
        return counts, shared, closed, (fork.timeout, fork.max_output, fork.schemas == first.schemas)

    counts, shared, closed, options = asyncio.run(main())
    assert counts == ["2", "2", "3", "3", "4"]
    assert shared == ["1", "2"]
    assert closed == [False, False, True, True, True]
    assert options == (1.0, 3, True)
