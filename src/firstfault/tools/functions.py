"""Python functions and objects as tools."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import inspect
import json
import logging
import threading
from collections.abc import Callable
from inspect import Parameter
from typing import Any

from transformers.utils import get_json_schema
from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

from firstfault.errors import UserError
from firstfault.text import one_line
from firstfault.tools.arguments import Schema
from firstfault.tools.base import ReplayError, Tool, ToolError, describe

logger = logging.getLogger(__name__)


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

    Raises:
        UserError: if a type hint or a part of the docstring is missing.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.schemas = [schema_of(function)]

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return await _run(self.function, arguments)


class ObjectTool(Tool):
    """A tool made from an object: each public method with a docstring is a function, the object is what they share.

    A fork has a copy of the object: what its `fork()` returns if it has that method, a deep copy if not. If it has a
    method `close()`, sync or async, that is called when a copy is done with. Neither is a function of the tool.

    A call that is broken off (it took too long) has not happened: the tool goes on with a copy of the object from
    before that call, for which it copies the object at every call. A method that hangs keeps the copy that it has.

    >>> class Account:
    ...     def __init__(self):
    ...         self.balance = 10
    ...
    ...     def pay(self, amount: int) -> int:
    ...         '''Pay in, and see the balance.
    ...
    ...         Args:
    ...             amount: what to pay in
    ...         '''
    ...         self.balance += amount
    ...         return self.balance
    >>> tool = ObjectTool(Account())
    >>> fork = tool.fork()
    >>> [asyncio.run(each.call("pay", {"amount": 5})) for each in (tool, tool, fork)]
    ['15', '20', '15']

    Raises:
        UserError: if a type hint is missing, the object has no public method with a docstring, or can't be copied.
    """

    def __init__(self, object: Any):
        self.object = object
        names = dict.fromkeys(name for cls in reversed(type(object).__mro__) for name in vars(cls))
        self.schemas = [
            schema_of(getattr(object, name))
            for name in names
            if not name.startswith("_") and name not in ("fork", "close") and _is_documented_method(object, name)
        ]
        if not self.schemas:
            raise UserError(
                f"{_name_of(object)} has no public method with a docstring, so there is nothing that a model could "
                "call; write docstrings for the methods that are to be its functions."
            )
        self._unused = [_copy(object)]  # what can't be copied must show now, not in the middle of a training run

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        try:
            working, self.object = self.object, _copy(self.object)
        except UserError as error:  # it could be copied before an earlier call
            raise ToolError(f"Error: {error}") from error
        try:
            return await _run(getattr(working, name), arguments)
        finally:
            if not asyncio.current_task().cancelling():  # it came to an end, so what it did to the object counts
                unused, self.object = self.object, working
                await _close(unused)

    def fork(self) -> ObjectTool:
        forked = copy.copy(self)
        try:
            forked.object, forked._unused = _copy(self.object), []
        except UserError as error:  # it could be copied before an earlier call
            raise ReplayError(str(error)) from error
        return forked

    async def close(self) -> None:
        for object in (self.object, *self._unused):
            await _close(object)
        self._unused = []


def _is_documented_method(object: Any, name: str) -> bool:
    static = inspect.getattr_static(type(object), name)  # looked up like this, a property is not run
    is_method = inspect.isfunction(static) or isinstance(static, staticmethod | classmethod)
    return is_method and bool(inspect.getdoc(getattr(object, name)))


def _copy(object: Any) -> Any:
    try:
        copied = object.fork() if hasattr(object, "fork") else copy.deepcopy(object)
    except Exception as error:
        raise UserError(
            f"{_name_of(object)} can't be copied ({describe(error).rstrip('.')}), which a tool's object must be so "
            "that runs can branch; give it a method fork() that returns an independent copy."
        ) from error
    if not isinstance(copied, type(object)):
        raise UserError(
            f"{_name_of(object)} has a method fork() that returned {type(copied).__name__}; it must return an "
            "independent copy of the object."
        )
    return copied


async def _close(object: Any) -> None:
    try:
        if hasattr(object, "close"):
            closing = object.close()
            if inspect.isawaitable(closing):
                await closing
    except Exception as error:  # the run is over all the same
        logger.warning("%s could not be closed: %s", _name_of(object), describe(error))


def _name_of(object: Any) -> str:
    return f"the tool object {type(object).__name__}"


async def _run(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    if inspect.iscoroutinefunction(function):
        return str(await function(**arguments))
    return await _in_thread(lambda: str(function(**arguments)))


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
        raise error if isinstance(error, UserError | ToolError) else ToolError(f"Error: {describe(error)}") from error
    return result


def schema_of(function: Callable[..., Any]) -> Schema:
    """The function as chat templates want it described, from its type hints and its docstring.

    Raises:
        UserError: if that can't be done.
    """
    name = getattr(function, "__qualname__", repr(function))
    by_name = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    if any(parameter.kind not in by_name for parameter in inspect.signature(function).parameters.values()):
        raise UserError(f"{name} can't be a tool: it has arguments that can't be given by name; name each of them.")
    try:
        schema = get_json_schema(function)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{name} can't be a tool: the choices {one_line(error.doc)} in its docstring are no JSON; write them as "
            '(choices: ["celsius", "fahrenheit"]).'
        ) from error
    except (DocstringParsingException, TypeHintParsingException, NameError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".!")
        raise UserError(
            f"{name} can't be a tool: {reason}; write a type hint for every argument, and a docstring that describes "
            'the function and, under "Args:", every argument.'
        ) from error
    schema["function"].pop("return", None)  # no chat template shows it
    return schema
