"""What an agent can do: tools, and the session that holds the tools of one run."""

from .base import FunctionTool, Observation, Session, Tool, ToolError
from .python import PythonTool

__all__ = ["FunctionTool", "Observation", "PythonTool", "Session", "Tool", "ToolError"]
