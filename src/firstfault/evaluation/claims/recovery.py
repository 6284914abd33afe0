"""Claim 1 (Fig. 1): a run that always fails recovers if its first irrecoverable step is another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from firstfault.agent.base import Rollouts
from firstfault.evaluation.claims.finding import Figure, Finding, difference, judged
from firstfault.evaluation.claims.measured import Row, Subject
from firstfault.evaluation.failures import COMPLETIONS, LOST, Failure, recoveries
from firstfault.localize.search import action_of
from firstfault.tree import Node

PAPER = {"1st irrecoverable": "32.8 % (AIME25)", "3rd irrecoverable": "18.0 %", "random": "2.8 to 8.5 %"}
TRIES = 16  # whole runs that must all fail; tries to find another action; completions after it


async def measure(subject: Subject) -> Row | None:
    """One task that fails 16 of 16: what editing one step of its first run does.

    None if it is not such a task, if hardly any of 64 whole runs succeeds either, so that no step lost it, or if the
    state of its tools could not be brought back.

    An edit is what the policy itself does otherwise in the place of that step: the first of 16 actions that makes
    other calls. It recovers if any of 16 completions after it succeeds.
    """
    agent, source, family, task, key = subject
    tree = agent.tree(task, key)
    async with agent.rollouts(tree, 10**9) as rollouts:
        leaves = await rollouts.sample(TRIES)
        if len(leaves) < TRIES or any(leaf.success for leaf in leaves) or leaves[0].depth < 2:
            return None
        failed = leaves[0]
        steps = failed.depth - 1
        wrong = source.first_wrong_step(task, failed)
        if (outcomes := await recoveries(rollouts, failed, COMPLETIONS)) is None:
            return None
        failure = Failure(family, task.id, wrong, *outcomes)
        if failure.rates[0] <= LOST:
            return None
        first = failure.step if failure.step <= steps else None
        draw = Random(f"{key} edit")
        edited = {"random": draw.randint(1, steps), "first wrong": wrong,
                  "random, earlier": draw.randint(1, first - 1) if first and first > 1 else None}  # fmt: skip
        for number, name in enumerate(("1st", "2nd", "3rd")):
            edited[f"{name} irrecoverable"] = None if first is None else first + number
        known: dict[int, bool | None] = {}
        for step in edited.values():
            if step is not None and step <= steps and step not in known:
                known[step] = await recovers(rollouts, failed.path[step - 1], failed.path[step])
        return {"task": task.id, "steps": steps, "rates": failure.rates, "edited": edited,
                "recovered": {str(step): outcome for step, outcome in known.items()}}  # fmt: skip


async def recovers(rollouts: Rollouts, before: Node, step: Node) -> bool | None:
    """Whether any completion after another action than `step` succeeds; None if 16 actions were all the same."""
    tries = await rollouts.continue_from(before, TRIES)
    others = [leaf.path[before.depth + 1] for leaf in tries]
    other = next((node for node in others if action_of(node) != action_of(step)), None)
    if other is None:
        return None
    if other.is_leaf:
        return bool(other.success)
    return any(leaf.success for leaf in await rollouts.continue_from(other, TRIES))


def finding(family: str, rows: Sequence[Row]) -> Finding:
    """The shares of runs that recover, by which step was edited.

    That the 2nd and 3rd recover less follows from what irrecoverable means; that a random step before the 1st, the one
    that is edited as "random, earlier", recovers less does not.
    """
    outcome = {name: [_outcome(row, name) for row in rows] for name in rows[0]["edited"]}
    figures = [Figure.of(n, [o for o in outcome[n] if o is not None], PAPER.get(n, "")) for n in outcome]
    differences = [
        difference(f"1st irrecoverable - {name}", outcome["1st irrecoverable"], outcome[name])
        for name in ("random", "random, earlier", "2nd irrecoverable", "3rd irrecoverable")
    ]
    beside = [Figure.of(f"{name}, where there was another action", _made(rows, name)) for name in outcome]
    verdict, why = judged(differences)
    same = sum(outcome is None for row in rows for outcome in row["recovered"].values())
    edits = sum(len(row["recovered"]) for row in rows)
    none = sum(row["edited"]["1st irrecoverable"] is None for row in rows)
    notes = [f"{same} of {edits} edits had no other action in {TRIES} tries, and count as not recovered",
             f"{none} of {len(rows)} runs have no irrecoverable step"]  # fmt: skip
    return Finding("recovery", family, [*figures, *differences, *beside], verdict, why, notes)


def _made(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Whether runs recover by that edit, without those whose policy had no other action in that place."""
    outcomes = [row["recovered"].get(str(row["edited"][name])) for row in rows]
    return [float(outcome) for outcome in outcomes if outcome is not None]


def _outcome(row: Mapping[str, Any], name: str) -> float | None:
    """Whether the run recovers by that edit; None if it has no such step."""
    step = str(row["edited"][name])
    return float(bool(row["recovered"][step])) if step in row["recovered"] else None
