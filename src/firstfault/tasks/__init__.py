"""What is asked and how it is judged. A family is a class here and a line in `TASKS`; or a JSONL file."""

from firstfault.tasks.arithmetic import Arithmetic
from firstfault.tasks.base import TaskSource
from firstfault.tasks.jsonl import JsonlTasks
from firstfault.tasks.lore import Lore
from firstfault.tasks.mix import Mix

TASKS: dict[str, type[TaskSource]] = {"arithmetic": Arithmetic, "lore": Lore}

__all__ = ["TASKS", "Arithmetic", "JsonlTasks", "Lore", "Mix", "TaskSource"]
