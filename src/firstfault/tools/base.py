"""What an agent can do: a `Tool` is functions it may call and the state they share, a `Session` the tools of one run.

`Session.call` turns every mistake of the model into an observation that the model can read: an unknown tool, arguments
that don't fit the schema, a tool that raises, hangs or answers at length. What comes out
of it as an exception is a cancellation, a `UserError` (a message to the user, not to the model) or a `ReplayError`.

Not covered: a session does not keep a tool from harm. A Python function runs in this process with all its rights;
code that the model writes belongs into `PythonTool`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from firstfault.errors import UserError
from firstfault.tools.arguments import Schema, check_arguments

logger = logging.getLogger(__name__)


class ToolError(Exception):
    """A call that gave no normal result. The message is what the model reads, `failed` the reason code."""

    def __init__(self, message: str, failed: str = "raised"):
        super().__init__(message)
        self.failed = failed


class ReplayError(Exception):
    """A state could not be brought back or copied: the calls that led to it give other outputs now, or none."""


@dataclass(frozen=True)
class Observation:
    """What the model reads after a call. `failed` is a short reason code where the call gave no normal result.

    `seconds` is how long the caller waited, for a free worker too.
    """

    text: str
    failed: str | None = None
    seconds: float = 0.0


class Tool(ABC):
    """Functions that an agent may call, and the state they share.

    `schemas` describes each function as chat templates expect it, in OpenAI's form: {"type": "function", "function":
    {"name", "description", "parameters"}}.
    """

    schemas: Sequence[Schema]
    keeps_time = False  # True: the tool bounds time and output of its calls by itself, and a session does not

    def check(self, schema: Schema, arguments: Any) -> str | None:
        """What is wrong with the arguments of a call, in a few words; None if they fit the function's schema."""
        return check_arguments(arguments, schema["function"].get("parameters", {}))

    @abstractmethod
    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """The result of a function, for the model to read. The arguments have been checked against its schema."""

    def fork(self) -> Tool:
        """A copy whose state is independent of this one's. A tool without state is its own copy.

        Raises:
            ReplayError: if a call has led to a state that can't be copied.
        """
        return self

    async def ready(self) -> None:
        """Make sure that the state is there, for tools whose forks have to bring it back.

        Raises:
            ReplayError: if it can't be brought back as it was.
        """
        return None

    async def close(self) -> None:
        """Free what the tool holds."""
        return None


class Session:
    """The tools of one run, and whatever state they are in.

    `timeout` (seconds) and `max_output` (characters) bound each call of the tools that don't bound themselves.
    """

    def __init__(self, tools: Iterable[Tool], *, timeout: float = 5.0, max_output: int = 2000):
        self.timeout = timeout
        self.max_output = max_output
        self._tools = self._own = list(tools)
        self.functions = {schema["function"]["name"]: (tool, schema) for tool in self._tools for schema in tool.schemas}

    @property
    def schemas(self) -> list[Schema]:
        """What a chat template takes as `tools`."""
        return [schema for _, schema in self.functions.values()]

    async def call(self, name: Any, arguments: Any) -> Observation:
        """Call a tool by name, with whatever the model has written as its arguments.

        Raises:
            ReplayError: if the state that the call should go on from is lost.
        """
        start = time.perf_counter()
        failed = None
        try:
            text = await self._call(name, arguments)
        except (UserError, ReplayError):
            raise
        except ToolError as error:
            text, failed = str(error), error.failed
        except Exception as error:
            logger.debug("tool %s raised", name, exc_info=True)
            text, failed = f"Error: {describe(error)}", "raised"
        text = text.encode(errors="replace").decode()  # tokenizers refuse half a surrogate pair
        tool, _ = self._function(name)
        if tool is None or not tool.keeps_time:
            text = shorten(text, self.max_output)
        return Observation(text, failed, time.perf_counter() - start)

    def _function(self, name: Any) -> tuple[Tool, Schema] | tuple[None, None]:
        return self.functions.get(name, (None, None)) if isinstance(name, str) else (None, None)

    async def _call(self, name: Any, arguments: Any) -> str:
        tool, schema = self._function(name)
        if tool is None:
            raise ToolError(f"Error: no tool {str(name)[:40]!r}; tools: {', '.join(self.functions)}", "unknown tool")
        complaint = tool.check(schema, arguments)
        if complaint:
            raise ToolError(f"Error: {name}: {complaint}", "bad arguments")
        await tool.ready()  # which may take longer than a call may
        task = asyncio.ensure_future(tool.call(name, arguments))
        try:
            await asyncio.wait({task}, timeout=None if tool.keeps_time else self.timeout)
            if not task.done():
                raise ToolError(f"Error: {name}: no result after {self.timeout:g} s", "timed out")
            if task.cancelled():  # by the tool itself: a cancellation of this call would have been raised above
                raise ToolError(f"Error: {name}: cancelled")
            return task.result()
        finally:
            task.cancel()
            task.add_done_callback(_ignore_result)

    def fork(self) -> Session:
        """A session that goes on from this one's present state; neither sees what the other does from here on."""
        forked = Session([tool.fork() for tool in self._tools], timeout=self.timeout, max_output=self.max_output)
        forked._own = [new for new, old in zip(forked._tools, self._tools, strict=True) if new is not old]
        return forked

    async def ready(self) -> None:
        """Make sure that the state of all tools is there.

        Raises:
            ReplayError: if one can't be brought back as it was.
        """
        for tool in self._tools:
            await tool.ready()

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
    """An exception in a line: its kind and its message."""
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = ""
    name = type(error).__name__
    return f"{name}: {message}" if message else name


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
