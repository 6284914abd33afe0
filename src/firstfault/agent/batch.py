"""The tasks of an iteration and the budget that they share, for methods that act across tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager

from firstfault.agent.base import Rollouts
from firstfault.agent.rollouts import side_by_side
from firstfault.tree import Task, Tree

Explore = Callable[[Tree, Rollouts], Awaitable[None]]
Tasks = Callable[[int, int], Sequence[Task]]  # first, n -> n tasks of a stream


class Batch:
    """`size` tasks are due, and so many times `rollouts` may be spent on them and on whatever else is drawn.

    Args:
        tasks: those that are due.
        rollouts: for each of them.
        start: `start(task, number, rollouts)` opens an empty tree, the iteration's number `number`, for so many
            rollouts.
        more: other tasks, for methods that draw any.
        reference: `with batch.reference():` what is grown is sampled from the policy that training began with.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        rollouts: int,
        start: Callable[[Task, int, int], AbstractAsyncContextManager[Rollouts]],
        more: Tasks,
        reference: Callable[[], AbstractContextManager[None]],
    ):
        self.size = len(tasks)
        self.remaining = len(tasks) * rollouts
        self._tasks = tasks
        self._start = start
        self._more = more
        self.reference = reference
        self._drawn = self._trees = 0

    def draw(self, n: int) -> Sequence[Task]:
        """The next tasks: those that are due, then others."""
        first, self._drawn = self._drawn, self._drawn + n
        due = self._tasks[first : first + n]
        return [*due, *self._more(max(0, first - self.size), n - len(due))]

    async def grow(self, tasks: Sequence[Task], explore: Explore, rollouts: int) -> list[Tree]:
        """Explore tasks side by side, each with so many rollouts, which count whether they are used or not.

        Raises:
            ValueError: if the budget has less left.
        """
        if len(tasks) * rollouts > self.remaining:
            raise ValueError(f"asked for {len(tasks)} x {rollouts} of {self.remaining} rollouts")
        self.remaining -= len(tasks) * rollouts
        first, self._trees = self._trees, self._trees + len(tasks)

        async def one(number: int, task: Task) -> Tree:
            async with self._start(task, number, rollouts) as handle:
                await explore(handle.tree, handle)
            return handle.tree

        return await side_by_side([one(first + i, task) for i, task in enumerate(tasks)])
