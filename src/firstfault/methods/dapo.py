"""DAPO: GRPO that draws tasks until its batch is full of groups that teach something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from firstfault.agent.batch import Batch
from firstfault.credit import Aggregation, normalize
from firstfault.methods.base import Grouped
from firstfault.methods.overlong import Overlong
from firstfault.tree import Tree


class DAPO(Overlong, Grouped):
    """GRPO that draws tasks until its batch is full of groups that teach something, with a higher upper clip.

    1. Groups of `group` rollouts; a group whose runs all succeeded or all failed is kept out of the batch, and another
       task is drawn in its place, until the batch is full (Eq. 11).
    2. A mean over tokens (Eq. 12), the clip at 0.2 and 0.28 (Eq. 10), and a penalty on overlong runs (Eq. 13).

    Ours: the budget is that of every method, `rollouts` for each task that is due, and groups that were kept out have
    spent theirs. A group has half of it, so that as many groups as are due can be drawn again. A group of two that is
    mixed, and one that is not:

    >>> from firstfault.tree import independent_runs
    >>> trees = [independent_runs(1, 0), independent_runs(1, 1)]
    >>> DAPO().credit(trees)
    >>> [[len(leaf.terms) for leaf in tree.leaves] for tree in trees]
    [[1, 1], [0, 0]]
    """

    paper: ClassVar[str] = "DAPO, arXiv 2503.14476"

    aggregation: Aggregation = Field("token", description="every run has the same say, or every token")
    clip_high: float = Field(0.28, ge=0, description="and above at 1 + clip_high")

    async def explore_all(self, batch: Batch) -> list[Tree]:
        trees: list[Tree] = []
        while (missing := batch.size - sum(map(mixed, trees))) > 0 and batch.remaining >= self.size:
            tasks = batch.draw(min(missing, batch.remaining // self.size))
            if not tasks:
                break
            trees += await batch.grow(tasks, self.explore, self.size)
        return trees

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in filter(mixed, trees):
            self.credit_runs(tree, normalize(self.less_overlong(tree)))


def mixed(tree: Tree) -> bool:
    """Whether some runs succeeded and others failed."""
    return len({leaf.success for leaf in tree.leaves}) > 1
