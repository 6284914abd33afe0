"""What an agent can do: tools, and the session that holds the tools of one run."""

from firstfault.tools.base import Observation, ReplayError, Session, Tool, ToolError
from firstfault.tools.functions import FunctionTool, ObjectTool
from firstfault.tools.mcp import MCPTool
from firstfault.tools.python import PythonTool
from firstfault.tools.search import SearchTool

__all__ = [
    "FunctionTool",
    "MCPTool",
    "ObjectTool",
    "Observation",
    "PythonTool",
    "ReplayError",
    "SearchTool",
    "Session",
    "Tool",
    "ToolError",
]
