"""firstfault: RL post-training for tool-using LLM agents that finds the step where a run was lost."""

__version__ = "0.1.0"
