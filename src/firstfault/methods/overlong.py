"""A penalty on runs that are too long, as DAPO has it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from firstfault.methods.base import Method
from firstfault.tree import Node, Tree


class Overlong(Method):
    """A method that takes from the reward of a run what it is too long (soft overlong punishment, DAPO, Eq. 13).

    >>> from firstfault.tree import Task
    >>> tree = Tree(Task("q", "a"), prompt=[1] * 50)
    >>> leaf = tree.add(tree.root, rollout=0, action_tokens=[2] * 95)
    >>> [Overlong(overlong_limit=limit, overlong_buffer=20).overlong(leaf) for limit in (200, 100, 90)]
    [0.0, -0.75, -1.0]
    """

    overlong_limit: int = Field(20480, ge=1, description="tokens of a run from which on it loses 1")
    overlong_buffer: int = Field(4096, ge=1, description="tokens before that over which the loss grows")

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.overlong_buffer >= self.overlong_limit:
            raise ValueError(
                f"overlong_buffer = {self.overlong_buffer} leaves nothing of overlong_limit = {self.overlong_limit};"
                f" set it, too: a fifth of the limit is {self.overlong_limit // 5}"
            )
        return self

    def overlong(self, leaf: Node) -> float:
        """0 up to limit - buffer tokens of the run that ended at `leaf`, then falling, -1 from the limit on."""
        length = sum(len(step.action_tokens) + len(step.observation_tokens) for step in leaf.steps)
        return min(0.0, max(-1.0, (self.overlong_limit - self.overlong_buffer - length) / self.overlong_buffer))

    def less_overlong(self, tree: Tree) -> list[float]:
        """The rewards of the leaves, less what their runs are too long."""
        return [leaf.reward + self.overlong(leaf) for leaf in tree.leaves]
