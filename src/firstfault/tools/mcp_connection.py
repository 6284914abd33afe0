"""Connections to MCP servers: how a server is started or reached, asked for its tools, called, and ended."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

from firstfault.errors import UserError, require
from firstfault.tools.arguments import Schema
from firstfault.tools.base import ToolError, describe

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, ContentBlock

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 30.0  # seconds that a server has to start, to list its tools, to give a result again
CLOSING = 10.0  # seconds that a server has to end before it is no longer waited for
STARTING = 4  # servers that start at a time: more would only slow each other down until they seem to hang
MAX_PAGES = 100  # of a server's list of tools
# Runs a command that is killed when this process ends, however it ends. (A server should end when its stdin does, which
# is what happens then; not every server does.)
LEASH = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"

logging.getLogger("mcp").addHandler(logging.NullHandler())  # its troubles are told by the errors raised here


@dataclass(frozen=True)
class Done:
    """A call and its result: the blocks that the server sent, and what the model reads of them."""

    name: str
    arguments: dict[str, Any]
    content: list[dict[str, Any]]
    is_error: bool
    text: str


class Server:
    """How a server is reached, for all connections to it.

    Raises:
        UserError: if the SDK is missing, or `target` is neither a URL nor a command that exists.
    """

    def __init__(self, target: str):
        self.name = f"the MCP server {target!r}"
        require("mcp", "mcp", self.name)
        self.url = target if target.startswith(("http://", "https://")) else None
        try:
            self.command = [] if self.url else shlex.split(target)
        except ValueError as error:
            raise UserError(f"{self.name} can't be read as a command ({error}); check its quotes.") from error
        if not self.url and (not self.command or shutil.which(self.command[0]) is None):
            program = self.command[0] if self.command else ""
            raise UserError(
                f"{self.name}: there is no program {program!r}; give a command that starts a server, or a URL."
            )
        self.starting = asyncio.Semaphore(STARTING)

    def client(self, stderr: IO[bytes]) -> Client:
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client

        # "legacy" is the handshake that all servers know, and the only one that gives sessions to servers over HTTP
        if self.url:
            return Client(self.url, mode="legacy")
        leash = [sys.executable, "-ISc", LEASH] if sys.platform == "linux" else []
        program, *arguments = [*leash, *self.command]
        return Client(stdio_client(StdioServerParameters(command=program, args=arguments), stderr), mode="legacy")

    def list_tools(self) -> list[Schema]:
        """What the server offers; waits for it, inside of a running event loop too."""
        schemas = asyncio.run_coroutine_threadsafe(self._list_tools(), _loop()).result()
        if not schemas:
            raise UserError(f"{self.name} has no tools; give another server.")
        return schemas

    async def _list_tools(self) -> list[Schema]:
        connection = Connection(self)
        try:
            await connection.open()
            return await connection.list_tools()
        finally:
            await connection.close()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all connections, in a thread of its own.

    So no cancelled call, and no end of the caller's event loop, breaks the end of a server off halfway.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="MCP", daemon=True).start()
    return loop


def _in_loop(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Run a coroutine method in `_loop`, whichever loop it is awaited in."""

    @functools.wraps(method)
    async def run(*arguments: P.args, **options: P.kwargs) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(method(*arguments, **options), _loop()))

    return run


class Connection:
    """A live server, for callers in any event loop.

    The SDK's contexts have to be left by the task that entered them: a task of its own holds them.
    """

    def __init__(self, server: Server):
        self._server = server
        self._opened = asyncio.Event()
        self._end = asyncio.Event()
        self._last_words = ""
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None  # of the start

    async def _hold(self) -> None:
        if self._end.is_set():  # left before it began
            return
        with tempfile.TemporaryFile() as stderr:
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(None) as self._limit, self._server.starting:
                        self._limit.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                        self._client = await stack.enter_async_context(self._server.client(stderr))
                    self._opened.set()
                    await self._end.wait()
            except Exception as error:  # told by `open`, or by the call that it breaks off
                self._error = error
            finally:
                self._last_words = _tail(stderr)

    @_in_loop
    async def open(self) -> None:
        """Start the server, or connect to it.

        Raises:
            UserError: if that fails.
        """
        self._task = asyncio.create_task(self._hold())
        opened = asyncio.create_task(self._opened.wait())
        try:
            await asyncio.wait({opened, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        if not self._opened.is_set():
            raise await self._refusal("can't be started", self._error)

    @_in_loop
    async def list_tools(self) -> list[Schema]:
        tools, cursor = [], None
        try:
            async with asyncio.timeout(PATIENCE):
                for _ in range(MAX_PAGES):
                    page = await self._client.list_tools(cursor=cursor)
                    tools, cursor = tools + page.tools, page.next_cursor
                    if cursor is None:
                        break
        except Exception as error:
            raise await self._refusal("doesn't list its tools", error) from error
        return [_schema(tool) for tool in tools]

    @_in_loop
    async def call(self, name: str, arguments: dict[str, Any]) -> Done:
        """The result of a call.

        Raises:
            ToolError: if there is none; the server is in no known state then.
        """
        from mcp import MCPError
        from mcp.types import INVALID_PARAMS

        try:
            result = await self._client.call_tool(name, arguments)
        except Exception as error:
            if isinstance(error, MCPError) and error.code == INVALID_PARAMS:  # refused: a result like any other
                return Done(name, arguments, [], True, f"Error: {error}")
            raise ToolError(f"Error: {name}: no result from its server ({_reason(error)})", "no result") from error
        return _done(name, arguments, result)

    def leave(self) -> None:
        """Let the server end, without waiting for it."""
        _loop().call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self._end.set()
        is_starting = self._limit is not None and not self._opened.is_set() and not self._task.done()
        if is_starting and not self._limit.expired():
            self._limit.reschedule(0)  # not a cancellation: a second one would break the end of the server off

    @_in_loop
    async def close(self) -> None:
        """End the server, and wait until it has ended."""
        self._leave()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSING)

    async def _refusal(self, what: str, error: Exception | None) -> UserError:
        await self.close()
        words = f"; its last words: {self._last_words}" if self._last_words else ""
        return UserError(f"{self._server.name} {what} ({_reason(error)}){words}; check that it runs and speaks MCP.")


def _schema(tool: Any) -> Schema:
    """A tool as chat templates want it described; they count on there being "properties"."""
    parameters = {"type": "object", "properties": {}, **tool.input_schema}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description or "", "parameters": parameters},
    }


def _done(name: str, arguments: dict[str, Any], result: CallToolResult) -> Done:
    content = [block.model_dump(mode="json", exclude={"annotations", "meta"}) for block in result.content]
    text = "\n".join(_text(block) for block in result.content)
    if not content and result.structured_content is not None:
        text = json.dumps(result.structured_content)
    return Done(name, arguments, content, result.is_error, text)


def _text(block: ContentBlock) -> str:
    """What a model that reads text only can have of a block: text, or a name in brackets."""
    if block.type == "text":
        return block.text
    if block.type == "resource_link":
        return f"[resource {block.uri}]"
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return f"[resource {block.resource.uri}]" + (f"\n{text}" if text else "")
    return f"[{block.type} {block.mime_type}]"


def _reason(error: BaseException | None) -> str:
    """The innermost error, in a few words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} s"
    return describe(error).removeprefix("MCPError: ").rstrip(".") if error else "it ended"


def _tail(file: IO[bytes]) -> str:
    """The last lines of a file that say something, in a line of at most 300 characters."""
    end = file.seek(0, 2)
    file.seek(max(0, end - 2000))
    lines = [" ".join(line.split()) for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-300:].rstrip(".")
