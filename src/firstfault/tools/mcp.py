"""MCP servers as tools: a program that is started and spoken to over its stdin and stdout, or a server behind a URL.

What a server remembers can't be copied, so its state is the history of the calls that led to it. A fork takes over the
history and starts a server of its own, to which it makes the same calls again. If one of them gives another result
than it gave before, the fork raises `ReplayError` and is of no use.

A call that gives no result (it took too long, the server died or spoke nonsense) has not happened: its server is
ended, and the next call has a new one that is brought to where the run stood before.

Not covered: what a server keeps outside of its process or its session (a database, a shared file) is not copied by
anything here. A server over HTTP must keep the state of each session apart. Servers can't ask anything of the agent
(sampling, elicitation, roots).
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from firstfault.errors import UserError
from firstfault.tools.arguments import Schema
from firstfault.tools.base import ReplayError, Tool, ToolError, shorten
from firstfault.tools.mcp_connection import PATIENCE, Connection, Done, Server


class MCPTool(Tool):
    """The tools of an MCP server, as functions that share its state.

    `server` is a command, such as "uvx mcp-server-git", or a URL, such as "http://localhost:8000/mcp". A command gets
    the environment variables that the SDK finds safe (HOME, PATH and the like) and no others; write "env KEY=value
    command" to give it more. It is started once here, to ask for its tools.

    Raises:
        UserError: if the server can't be started, or doesn't say what tools it has.
    """

    def __init__(self, server: str):
        self._server = Server(server)
        self.schemas = self._server.list_tools()
        self._history: tuple[Done, ...] = ()
        self._connection: Connection | None = None  # to a server that stands where the run stands
        self._made: list[Connection] = []

    def check(self, schema: Schema, arguments: Any) -> str | None:
        """The server checks its arguments by itself, with all of JSON schema."""
        return None if isinstance(arguments, dict) else super().check(schema, arguments)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        await self.ready()
        connection, self._connection = self._connection, None  # until there is a result, it may stand anywhere
        try:
            done = await connection.call(name, arguments)
        except BaseException:
            connection.leave()
            raise
        self._connection = connection
        self._history += (done,)
        if done.is_error:
            raise ToolError(done.text or f"Error: {name} failed")
        return done.text

    def fork(self) -> MCPTool:
        forked = copy.copy(self)
        forked._connection, forked._made = None, []
        return forked

    async def ready(self) -> None:
        """Start a server and bring it to where the run stands, if there is none that stands there already.

        Raises:
            ReplayError: if the server can't be started any more, or a call gives another result than before.
        """
        if self._connection is not None:
            return
        connection = Connection(self._server)
        self._made.append(connection)
        try:
            try:
                await connection.open()
            except UserError as error:  # it could be, when this tool was made
                raise ReplayError(str(error)) from error
            for done in self._history:
                await self._repeat(done, connection)
        except BaseException:
            connection.leave()
            raise
        self._connection = connection

    async def _repeat(self, done: Done, connection: Connection) -> None:
        call = f"{self._server.name}: {done.name}({shorten(str(done.arguments), 100)})"
        before = f"gave {shorten(done.text, 100)!r} before and"
        try:
            async with asyncio.timeout(PATIENCE):
                again = await connection.call(done.name, done.arguments)
        except (ToolError, TimeoutError) as error:
            raise ReplayError(f"{call} {before} no result now ({error or 'timed out'})") from error
        if again != done:
            raise ReplayError(f"{call} {before} {shorten(again.text, 100)!r} now")

    async def close(self) -> None:
        self._connection = None
        await asyncio.gather(*(connection.close() for connection in self._made))
        self._made = []
