"""The budget of a task, whoever completes its runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from firstfault.tree import Node, Tree


class Rollouts(ABC):
    """Grows the tree of one task by completions, whole or from the middle, each of which counts.

    Methods and searches know no more of it than this: it may be the agent that is trained (`AgentRollouts`), one that
    goes on from a recorded run (`locate.resume`), or a process whose truth is known (`planted.tabular`).
    """

    def __init__(self, tree: Tree, budget: int):
        self.tree = tree
        self.budget = budget
        self.spent = 0

    @property
    def remaining(self) -> int:
        return self.budget - self.spent

    def allow(self, n: int) -> None:
        """Let `n` more rollouts be spent."""
        self.budget += n

    def limit_calls(self, n: int) -> None:  # noqa: B027
        """Let runs make no more than `n` tool calls from here on, if they make any."""

    async def sample(self, n: int) -> list[Node]:
        """Sample `n` whole rollouts side by side; returns their leaves."""
        return await self.continue_from(self.tree.root, n)

    async def continue_from(self, node: Node, n: int = 1) -> list[Node]:
        """Sample `n` completions after `node` side by side; returns their leaves. See `continue_all`.

        Raises:
            ValueError: if the budget has less than `n` left, or if the run ended at `node`.
        """
        if n < 0 or node.is_leaf:
            raise ValueError(f"asked for {n} of {self.remaining} rollouts after {node.end or 'an open step'}")
        return await self.continue_all([node] * n)

    async def continue_all(self, nodes: Sequence[Node]) -> list[Node]:
        """Sample a completion after each of `nodes`, all side by side; returns their leaves.

        One whose tools can't be brought back to where they stood is discarded: it counts, and has no leaf. Any other
        error of one of them ends them all.

        Raises:
            ValueError: if there are more than the budget has left, or if a run ended at one of them.
        """
        if len(nodes) > self.remaining or any(node.is_leaf for node in nodes):
            ended = next((node.end for node in nodes if node.is_leaf), None)
            raise ValueError(f"asked for {len(nodes)} of {self.remaining} rollouts after {ended or 'open steps'}")
        first, self.spent = self.spent, self.spent + len(nodes)
        return await self._complete_all(nodes, first)

    @abstractmethod
    async def _complete_all(self, nodes: Sequence[Node], first: int) -> list[Node]:
        """Complete the runs; the one after `nodes[i]` is rollout `first + i` of the task."""
