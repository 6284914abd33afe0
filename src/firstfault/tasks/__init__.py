"""What is asked and how it is judged. A family is a class here and a line in `TASKS`; or a JSONL file."""

from firstfault.tasks.arithmetic import Arithmetic
from firstfault.tasks.base import TaskSource
from firstfault.tasks.catalog import PUBLISHED
from firstfault.tasks.datasets import Dataset
from firstfault.tasks.jsonl import JsonlTasks
from firstfault.tasks.lore import Lore
from firstfault.tasks.mix import Mix
from firstfault.tasks.programs import Programs
from firstfault.tasks.stateful import Stateful

TASKS: dict[str, type[TaskSource]] = {
    "arithmetic": Arithmetic,
    "stateful": Stateful,
    "lore": Lore,
    "programs": Programs,
    "dataset": Dataset,
    **PUBLISHED,
}

__all__ = ["TASKS", "Arithmetic", "Dataset", "JsonlTasks", "Lore", "Mix", "Programs", "Stateful", "TaskSource"]
