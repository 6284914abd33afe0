"""A method of your own: firstfault train --method examples/own_method.py:Regret

Half of the budget are whole runs. Each failure is then taken up again in its middle: if that succeeds, the step after
the middle was worse than it had to be, and is blamed; if not, the first half is.
"""

from pydantic import Field

from firstfault.credit import mean
from firstfault.methods.base import Clipped


class Regret(Clipped):
    """Blames the half of a failed run in which it was lost."""

    paper = "none"
    blame: float = Field(2.0, ge=1, description="how much more the half at fault counts")

    async def explore(self, tree, rollouts):
        runs = await rollouts.sample(rollouts.remaining // 2)
        middles = [leaf.steps[leaf.depth // 2 - 1] for leaf in runs if not leaf.success and leaf.depth > 1]
        await rollouts.continue_all(middles[: rollouts.remaining])
        await rollouts.sample(rollouts.remaining)

    def credit(self, trees):
        for tree in trees:
            baseline = mean([leaf.reward for leaf in tree.leaves])
            saved = {leaf.anchor for leaf in tree.leaves if leaf.success}
            for leaf in tree.leaves:
                middle = leaf.depth // 2
                late = leaf.depth > 1 and leaf.steps[middle - 1] in saved
                at_fault = range(middle, leaf.depth) if late else range(middle)
                factors = [self.blame if not leaf.success and i in at_fault else 1.0 for i in range(leaf.depth)]
                self.credit_run(leaf, [(leaf.reward - baseline) * factor for factor in factors])
