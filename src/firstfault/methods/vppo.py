"""VPPO: pay the good prefix of a wrong run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from firstfault.agent.base import Rollouts
from firstfault.credit import mean
from firstfault.localize import Bisect, localize
from firstfault.methods.base import Clipped
from firstfault.tree import Node, Tree


class VPPO(Clipped):
    """A correct run gets 1 on all tokens; a wrong one α on those before its first error and 0 from there on.

    1. `runs` whole rollouts; the rest of the budget looks for the first errors of those that failed.
    2. A_i = 1 or α |prefix| / |run|; their mean over the runs of the task is the baseline; no standard deviation.
    3. The prefix that is paid ends `cut` prompt lengths before the error, so that more steps are not worth more.

    Source: VPPO, arXiv 2601.18984, whose first error is the first step with a process reward below 0.8. Here it is the
    first irrecoverable step that a binary search finds (`localize.bisect`, verified). Ours: half of the rollouts are
    whole runs before any search; a run whose tool calls were all found to be good is paid for all but its answer, one
    whose error was not found for nothing; completions of searches are not trained on. A success, and a failure whose
    second step of two is at fault:

    >>> from firstfault.tree import Verdict, independent_runs
    >>> tree = independent_runs(1, 0, steps=2)
    >>> tree.verdicts = [Verdict(leaf=tree.leaves[1].index, steps=2, step=2, finished=True)]
    >>> VPPO(cut=0).credit([tree])  # the baseline is (1 + 0.5 / 2) / 2
    >>> [[step.advantage for step in leaf.steps] for leaf in tree.leaves]
    [[0.375, 0.375], [-0.125, -0.625]]
    """

    paper: ClassVar[str] = "VPPO, arXiv 2601.18984"

    reward: Literal["judge"] = Field("judge", description="1 for a success; what a failure gets is the method")
    runs: int | None = Field(None, ge=1, description="whole rollouts before searches; by default half of the budget")
    tries: int = Field(2, ge=1, description="completions per anchor of a search")
    alpha: float = Field(0.5, ge=0, le=1, description="α: what a token of the good prefix is paid")
    cut: float = Field(1.0, ge=0, description="prompt lengths by which the good prefix is shortened")
    relu: bool = Field(False, description="no token of a good prefix is pushed down (for instruct models)")

    async def explore(self, tree: Tree, rollouts: Rollouts) -> None:
        runs = self.runs or -(-self.rollouts // 2)
        for leaf in await rollouts.sample(min(runs, rollouts.remaining)):
            search = Bisect(leaf.depth - 1, lambda step: self.tries, verified=True)
            if not leaf.success and 0 < search.cost <= rollouts.remaining:
                tree.verdicts += await localize({leaf: search}, rollouts)
        await rollouts.sample(rollouts.remaining)

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            errors = self.mark(tree)
            runs = [leaf for leaf in tree.leaves if not leaf.is_probe]
            paid = [self.paid(tree, leaf, errors.get(leaf, 1)) for leaf in runs]
            baseline = mean([mean([pay for step in steps for pay in step]) for steps in paid])
            for leaf, steps in zip(runs, paid, strict=True):
                self.credit_run(leaf, [[self._less(pay, baseline, leaf) for pay in step] for step in steps])

    def mark(self, tree: Tree) -> dict[Node, int]:
        """The first error of each run that was searched to an end; marks the step, where there is one."""
        errors = {}
        for verdict in tree.verdicts:
            verdict.marked = verdict.finished and tree.has_success
            if verdict.marked:
                leaf = tree.nodes[verdict.leaf]
                errors[leaf] = verdict.step
                if verdict.names_step:
                    leaf.steps[verdict.step - 1].critical = True
        return errors

    def paid(self, tree: Tree, leaf: Node, error: int) -> list[list[float]]:
        """What each action token of a run is paid, by steps."""
        if leaf.success:
            return [[1.0] * len(step.action_tokens) for step in leaf.steps]
        good = sum(len(step.action_tokens) for step in leaf.steps[: error - 1])
        good -= round(self.cut * len(tree.root.observation_tokens))
        paid = []
        for step in leaf.steps:
            n = max(0, min(good, len(step.action_tokens)))
            paid.append([self.alpha] * n + [0.0] * (len(step.action_tokens) - n))
            good -= n
        return paid

    def _less(self, pay: float, baseline: float, leaf: Node) -> float:
        return max(0.0, pay - baseline) if self.relu and pay and not leaf.success else pay - baseline
