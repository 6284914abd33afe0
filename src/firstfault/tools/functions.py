"""Python functions as tools."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any

from transformers.utils import get_json_schema

from ..errors import UserError
from .arguments import Schema
from .base import Tool, ToolError, describe


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
    >>> asyncio.run(FunctionTool(add).call("add", {"a": 17, "b": 5}))
    '22'
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.schemas = [schema_of(function)]

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
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


def schema_of(function: Callable[..., Any]) -> Schema:
    """The function as chat templates want it described, from its type hints and its docstring."""
    schema = get_json_schema(function)
    schema["function"].pop("return", None)  # no chat template shows it
    return schema
