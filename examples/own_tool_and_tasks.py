"""A tool with a state, tasks for it, and a judge: `--tasks examples/own_tool_and_tasks.py:Payments`."""

from firstfault.tasks import TaskSource
from firstfault.tools import ObjectTool
from firstfault.tree import Task


class Till:
    paid = 0

    def pay(self, amount: int) -> str:
        """Pay with one coin.

        Args:
            amount: its value, 1, 2 or 5
        """
        if amount not in (1, 2, 5):
            raise ValueError("there is no such coin")
        self.paid += amount
        return f"{self.paid} paid"


class Payments(TaskSource):
    """Pay exactly what is asked for."""

    def train(self, seed, first, n):
        return [Task(f"Pay {(seed + i) * 7 % 30 + 3}.", "", id=str(i)) for i in range(first, first + n)]

    def held_out(self, n):
        return [Task(f"Pay {amount}.", "", id=f"held out {amount}") for amount in range(33, 33 + n)]

    def tools(self):
        return [ObjectTool(Till())]

    async def judge(self, task, answer, session):
        tool, _ = session.functions["pay"]
        success = task.question == f"Pay {tool.object.paid}."
        return success, float(success)
