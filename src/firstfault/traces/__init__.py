"""Runs of any agent, read from its logs."""

from firstfault.traces.read import Trace, read_traces

__all__ = ["Trace", "read_traces"]
