"""What an agent can do: a `Tool` is one function it may call, a `Session` is the tools of one run.

`Session.call` turns every mistake of the model into an observation that the model can read: an unknown tool, arguments
that don't fit the schema, a tool that raises, hangs or answers at length. Only a cancellation and a `UserError` (a
message to the user, not to the model) come out of it as exceptions.

Not covered: a session does not keep a tool from harm. A Python function runs in this process with all its rights;
code that the model writes belongs into `PythonTool`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from transformers.utils import get_json_schema

from ..errors import UserError

logger = logging.getLogger(__name__)

Schema = dict[str, Any]


class ToolError(Exception):
    """A call that gave no normal result. The message is what the model reads, `failed` the reason code."""

    def __init__(self, message: str, failed: str = "raised"):
        super().__init__(message)
        self.failed = failed


@dataclass(frozen=True)
class Observation:
    """What the model reads after a call. `failed` is a short reason code where the call gave no normal result.

    `seconds` is how long the caller waited, for a free worker too.
    """

    text: str
    failed: str | None = None
    seconds: float = 0.0


class Tool(ABC):
    """One function that an agent may call. `schema` is its description as chat templates expect it: an OpenAI-style
    {"type": "function", "function": {"name", "description", "parameters"}}."""

    name: str
    schema: Schema
    keeps_time = False  # True: the tool ends its calls by itself, and a session's time limit does not apply

    @abstractmethod
    async def call(self, **arguments: Any) -> str:
        """The result, for the model to read. The arguments have been checked against the schema."""

    def fork(self) -> Tool:
        """A copy whose state is independent of this one's. A tool without state is its own copy."""
        return self

    async def close(self) -> None:
        """Free what the tool holds."""
        return None


class FunctionTool(Tool):
    """A tool made from a Python function with type hints and a docstring that describes it and its arguments.

    A coroutine function is awaited. Any other function gets a thread of its own; if it hangs, it is abandoned, not
    killed: the thread lives on until the process ends. A result that is no string is shown as `str` shows it.

    >>> def add(a: int, b: int) -> int:
    ...     '''Add two numbers.
    ...
    ...     Args:
    ...         a: the first number
    ...         b: the second number
    ...     '''
    ...     return a + b
    >>> asyncio.run(Session([FunctionTool(add)]).call("add", {"a": 17, "b": 5})).text
    '22'
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.schema = get_json_schema(function)
        self.schema["function"].pop("return", None)  # no chat template shows it
        self.name = self.schema["function"]["name"]

    async def call(self, **arguments: Any) -> str:
        if inspect.iscoroutinefunction(self.function):
            return str(await self.function(**arguments))
        return await _in_thread(lambda: str(self.function(**arguments)))


async def _in_thread(function: Callable[[], str]) -> str:
    """Run `function` in a daemon thread. (`asyncio.to_thread` would let a few hanging calls use up its pool, and then
    keep the event loop and the interpreter from ending.)"""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[str, BaseException | None]] = loop.create_future()

    def finish(result: str, error: BaseException | None) -> None:
        if not future.done():
            future.set_result((result, error))

    def run() -> None:
        result, error = "", None
        try:
            result = function()
        except BaseException as raised:  # also SystemExit: a tool must not end the program
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed in the meantime: nobody waits
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    result, error = await future
    if error is not None:
        raise error if isinstance(error, UserError | ToolError) else ToolError(describe(error)) from error
    return result


class Session:
    """The tools of one run, and whatever state they are in.

    `timeout` (seconds) and `max_output` (characters) bound each call.
    """

    def __init__(self, tools: Iterable[Tool], *, timeout: float = 5.0, max_output: int = 2000):
        self.tools = {tool.name: tool for tool in tools}
        self.timeout = timeout
        self.max_output = max_output
        self._own = list(self.tools.values())

    @property
    def schemas(self) -> list[Schema]:
        """What a chat template takes as `tools`."""
        return [tool.schema for tool in self.tools.values()]

    async def call(self, name: Any, arguments: Any) -> Observation:
        """Call a tool by name, with whatever the model has written as its arguments."""
        start = time.perf_counter()
        failed = None
        try:
            text = await self._call(name, arguments)
        except UserError:
            raise
        except ToolError as error:
            text, failed = str(error), error.failed
        except Exception as error:
            logger.debug("tool %s raised", name, exc_info=True)
            text, failed = describe(error), "raised"
        text = text.encode(errors="replace").decode()  # tokenizers refuse half a surrogate pair
        return Observation(shorten(text, self.max_output), failed, time.perf_counter() - start)

    async def _call(self, name: Any, arguments: Any) -> str:
        tool = self.tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise ToolError(f"Error: no tool {str(name)[:40]!r}; tools: {', '.join(self.tools)}", "unknown tool")
        complaint = check_arguments(arguments, tool.schema["function"].get("parameters", {}))
        if complaint:
            raise ToolError(f"Error: {tool.name}: {complaint}", "bad arguments")
        task = asyncio.ensure_future(tool.call(**arguments))
        try:
            await asyncio.wait({task}, timeout=None if tool.keeps_time else self.timeout)
            if not task.done():
                raise ToolError(f"Error: {tool.name}: no result after {self.timeout:g} s", "timed out")
            if task.cancelled():  # by the tool itself: a cancellation of this call would have been raised above
                raise ToolError(f"Error: {tool.name}: cancelled")
            return task.result()
        finally:
            task.cancel()
            task.add_done_callback(_ignore_result)

    def fork(self) -> Session:
        """A session that goes on from this one's present state; neither sees what the other does from here on."""
        forked = Session(
            [tool.fork() for tool in self.tools.values()], timeout=self.timeout, max_output=self.max_output
        )
        forked._own = [tool for name, tool in forked.tools.items() if tool is not self.tools[name]]
        return forked

    async def close(self) -> None:
        """Free the tools that are this session's own: all tools of a first session, the state of a forked one.

        Tools without state are shared by all forks, so close the first session last.
        """
        for tool in self._own:
            await tool.close()


def _ignore_result(task: asyncio.Future) -> None:
    """Look at the error of an abandoned call, so that asyncio does not report that nobody did."""
    if not task.cancelled():
        task.exception()


def describe(error: BaseException) -> str:
    """An exception in a line."""
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = ""
    name = type(error).__name__
    return f"Error: {name}: {message}" if message else f"Error: {name}"


def shorten(text: str, limit: int) -> str:
    """Cut the middle out of a text of more than `limit` characters, and say how much that was.

    >>> shorten("abcdefghij" * 100, 40)
    'abcdef...[987 characters cut]...defghij'
    """
    if len(text) <= limit:
        return text
    cut = len(text) - limit + len(f"...[{len(text)} characters cut]...")
    note = f"...[{min(cut, len(text))} characters cut]..."
    keep = max(0, len(text) - cut)
    return text[: keep // 2] + note + text[len(text) - (keep - keep // 2) :]


_JSON_TYPES = {  # in this order: to Python, True is an int too
    "boolean": bool,
    "integer": int,
    "number": float,
    "string": str,
    "array": list,
    "object": dict,
    "null": type(None),
}


def check_arguments(arguments: Any, parameters: Schema) -> str | None:
    """What is wrong with the arguments of a call, in a few words; None if they fit.

    Checked: names, JSON types, `enum`, `anyOf`, `nullable` and the items of arrays, which is all that type hints
    become. Not checked: formats, bounds and the other words of JSON schema; a tool sees to those itself.

    >>> parameters = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    >>> check_arguments({"n": "5"}, parameters)
    "'n' must be integer, not string"
    """
    if not isinstance(arguments, dict):
        return f"arguments must be an object, not {_json_type(arguments)}"
    properties = parameters.get("properties", {})
    unknown = [str(name)[:40] for name in arguments if name not in properties]
    if unknown and not parameters.get("additionalProperties"):
        return f"unknown argument {unknown[0]!r}; arguments: {', '.join(properties) or 'none'}"
    missing = [name for name in parameters.get("required", ()) if name not in arguments]
    if missing:
        return f"missing argument {missing[0]!r}"
    for name, value in arguments.items():
        expected = _expected(value, properties.get(name, {}))
        if expected:
            found = _json_type(value)
            return f"{name!r} must be {expected}" + ("" if found in expected else f", not {found}")
    return None


def _expected(value: Any, schema: Schema) -> str | None:
    """What the schema asks for where `value` is something else; None where it fits."""
    if value is None and schema.get("nullable"):
        return None
    if "anyOf" in schema:
        expected = [_expected(value, option) for option in schema["anyOf"]]
        return None if None in expected else " or ".join(dict.fromkeys(expected))
    if "enum" in schema:
        return None if value in schema["enum"] else f"one of {', '.join(map(repr, schema['enum']))}"
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    found = _json_type(value)
    if types and found not in types and not (found == "integer" and "number" in types):
        return " or ".join(types)
    if isinstance(value, list):
        wrong = [_expected(item, schema.get("items", {})) for item in value]
        return next((f"{found} of {expected}" for expected in wrong if expected), None)
    return None


def _json_type(value: Any) -> str:
    return next((name for name, kind in _JSON_TYPES.items() if isinstance(value, kind)), type(value).__name__)
