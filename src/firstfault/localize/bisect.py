"""Binary error localization (BEL), the search of ELPO's Algorithm 1 on one failed run."""

from __future__ import annotations

from collections.abc import Callable

from firstfault.agent.rollouts import Rollouts
from firstfault.tree import Node, Probe, Verdict

Tries = Callable[[int], int]  # step m -> how many completions to sample after it


async def bisect(failed: Node, rollouts: Rollouts, tries: Tries, *, verified: bool = False) -> Verdict:
    """Find the first irrecoverable step of the run that ended at `failed`.

    After `m` steps, a completion that succeeds shows that the run was not lost yet. As printed (`L < R`), the last
    candidate is taken without a probe of its own. `verified` probes it too (`L <= R`, a failure moves R to m - 1), and
    answers steps + 1 when no step is irrecoverable, as in the paper's worked example. All completions of an anchor are
    sampled side by side.
    """
    steps = failed.steps[:-1]  # the tool-call steps; the last node is where the run ended
    verdict = Verdict(leaf=failed.index, steps=len(steps), step=1, finished=False)
    left, right, cut = 1, len(steps), False
    while (left <= right if verified else left < right) and rollouts.remaining:
        middle = (left + right) // 2
        wanted = tries(middle)
        probes = await rollouts.continue_from(steps[middle - 1], min(wanted, rollouts.remaining))
        if not probes:  # all were discarded: nothing can be said of this anchor
            break
        successes = sum(leaf.success for leaf in probes)
        verdict.probes.append(Probe(middle, len(probes), successes))
        if successes:
            left = middle + 1
        else:
            right = middle - 1 if verified else middle
            cut = len(probes) < wanted
    verdict.step = left
    verdict.finished = not cut and (left > right if verified else left >= right)
    return verdict


def bisect_cost(steps: int, tries: Tries, *, verified: bool = False) -> int:
    """Most rollouts that `bisect` can take on a run of `steps` tool-call steps.

    >>> bisect_cost(8, lambda step: 2), bisect_cost(8, lambda step: 2, verified=True), bisect_cost(1, lambda step: 2)
    (6, 8, 0)
    """

    def cost(left: int, right: int) -> int:
        if (left > right) if verified else (left >= right):
            return 0
        middle = (left + right) // 2
        return tries(middle) + max(cost(middle + 1, right), cost(left, middle - 1 if verified else middle))

    return cost(1, steps)
