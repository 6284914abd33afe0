"""What an agent can do: tools, and the session that holds the tools of one run."""

from .base import Observation, ReplayError, Session, Tool, ToolError
from .functions import FunctionTool, ObjectTool
from .mcp import MCPTool
from .python import PythonTool
from .search import SearchTool

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
