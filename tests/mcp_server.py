"""A small MCP server for tests, over stdio or HTTP, with a state for each session, and functions that go wrong.

`python mcp_server.py [--port PORT] [--log FILE] [--stubborn]`; a line with its process id is added to the log.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import EmbeddedResource, ImageContent, ResourceLink, TextContent, TextResourceContents

server = MCPServer("stack", log_level="CRITICAL")  # it would spend half a second on drawing each traceback
stacks: dict[str | None, list[int]] = defaultdict(list)


def stack_of(context: Context) -> list[int]:
    return stacks[(context.headers or {}).get("mcp-session-id")]


@server.tool()
def push(number: int, context: Context) -> str:
    """Put a number on the stack."""
    stack = stack_of(context)
    stack.append(number)
    return f"{len(stack)} numbers, sum {sum(stack)}"


@server.tool()
def pop(context: Context) -> int:
    """Take the last number off the stack."""
    stack = stack_of(context)
    if not stack:
        raise ValueError("the stack is empty")
    return stack.pop()


@server.tool()
def roll(context: Context) -> int:
    """Put a random number on the stack."""
    stack_of(context).append(random.getrandbits(60))
    return stack_of(context)[-1]


@server.tool()
def draw() -> list:
    """Blocks of all kinds."""
    return [
        TextContent(text="see"),
        ImageContent(data="aGk=", mime_type="image/png"),
        EmbeddedResource(resource=TextResourceContents(uri="file:///a.txt", text="its text")),
        ResourceLink(name="b", uri="file:///b.txt"),
    ]


@server.tool()
def crash(context: Context) -> str:
    """Push and die."""
    stack_of(context).append(1000)
    os._exit(3)


@server.tool()
def hang(context: Context) -> str:
    """Push and hang."""
    stack_of(context).append(1000)
    time.sleep(1000)
    return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--stubborn", action="store_true", help="outlive the end of stdin and a SIGTERM")
    options = parser.parse_args()
    if options.log:
        with options.log.open("a") as log:
            log.write(f"{os.getpid()}\n")
    if options.port:
        server.run("streamable-http", port=options.port)
        sys.exit()
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server.run()
    if options.stubborn:
        time.sleep(1000)
