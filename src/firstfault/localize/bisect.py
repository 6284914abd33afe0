"""Binary error localization (BEL), the search of ELPO's Algorithm 1 on one failed run."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

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


async def scatter(failed: Node, rollouts: Rollouts, tries: Tries) -> Verdict:
    """No search: completions after steps at random, as many of these as `bisect` probes, for comparison.

    The verdict has the evidence, and no answer.
    """
    steps = failed.steps[:-1]
    draw = random.Random(f"{rollouts.tree.key} {failed.rollout} anchors")
    anchors = draw.sample(range(1, len(steps) + 1), max(0, len(steps) - 1).bit_length())
    wanted = [steps[m - 1] for m in sorted(anchors) for _ in range(tries(m))]
    probes = await rollouts.continue_all(wanted[: rollouts.remaining])
    verdict = Verdict(leaf=failed.index, steps=len(steps), step=len(steps) + 1, finished=False)
    for m in sorted(anchors):
        tried = [leaf.success for leaf in probes if leaf.anchor is steps[m - 1]]
        verdict.probes.append(Probe(m, len(tried), sum(tried)))
    return verdict


SEARCHES: dict[str, Callable[[Node, Rollouts, Tries], Awaitable[Verdict]]] = {
    "printed": bisect,
    "verified": partial(bisect, verified=True),
    "random": scatter,
}


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
