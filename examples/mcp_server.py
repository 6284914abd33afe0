"""An MCP server that remembers; its tools are an agent's with `--mcp "python examples/mcp_server.py"`."""

from mcp.server import MCPServer

server = MCPServer("notes")
notes: list[str] = []


@server.tool()
def write(note: str) -> str:
    """Write a note down."""
    notes.append(note)
    return f"note {len(notes)}"


@server.tool()
def read(number: int) -> str:
    """Read a note, by its number."""
    return notes[number - 1]


if __name__ == "__main__":
    server.run()
