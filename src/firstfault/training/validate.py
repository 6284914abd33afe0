"""How good a policy is on given tasks: sampled and greedy success, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from firstfault.agent.rollouts import Agent, side_by_side
from firstfault.config import EvaluationConfig
from firstfault.intervals import mean_interval
from firstfault.tasks import TaskSource
from firstfault.tasks.votes import at_k, vote
from firstfault.tree import Task, Tree

Progress = Callable[[int], None]


async def validate(
    agent: Agent,
    tasks: Sequence[Task],
    *,
    samples: int,
    seed: int,
    ks: Sequence[int] = (),
    done: Progress = lambda n: None,
) -> dict[str, Any]:
    """Run each task `samples` times at the agent's temperature, and once greedily.

    Returns:
        `sampled` and `greedy` success, and `pass@K` and `major@K` for `ks`, with bootstrap 95 % intervals over tasks
        (`_low`, `_high`), each of them for each task (`outcomes`), what it took, and of a mix of families the success
        of each (`families`).
    """
    greedy = agent.greedy()

    async def run(agent: Agent, task: Task, number: int, n: int) -> Tree:
        tree = await agent.run(task, (seed, 0, number), n)  # training counts from 1
        done(n)
        return tree

    trees = await side_by_side([
        *(run(agent, task, i, samples) for i, task in enumerate(tasks)),
        *(run(greedy, task, i + len(tasks), 1) for i, task in enumerate(tasks)),
    ])  # fmt: skip
    sampled, likeliest = trees[: len(tasks)], trees[len(tasks) :]
    outcomes = {
        "sampled": [_successes(tree) / samples for tree in sampled],
        "greedy": [float(_successes(tree)) for tree in likeliest],
    }
    families = {part: {name: float(np.mean([s for s, task in zip(success, tasks, strict=True) if family(task) == part]))
                       for name, success in outcomes.items()}
                for part in dict.fromkeys(map(family, tasks)) if part}  # fmt: skip
    if ks:
        of_tasks = [at_k(*_votes(tree, samples), ks) for tree in sampled]
        outcomes |= {name: [of_task[name] for of_task in of_tasks] for name in of_tasks[0]}
    record: dict[str, Any] = {"problems": len(tasks), "samples": samples, "outcomes": outcomes}
    for name, success in outcomes.items():
        record[name], record[f"{name}_low"], record[f"{name}_high"] = mean_interval(success, seed)
    if families:
        record["families"] = families
    nodes = [node for tree in sampled for node in tree.steps]
    runs = len(tasks) * samples
    record["tokens_per_run"] = sum(len(node.action_tokens) for node in nodes) / runs
    record["calls_per_run"] = sum(len(node.calls) for node in nodes) / runs
    return record


def _successes(tree: Tree) -> int:
    """A run that was discarded has failed, without an answer."""
    return sum(bool(leaf.success) for leaf in tree.leaves)


def _votes(tree: Tree, samples: int) -> tuple[list[str | None], list[bool]]:
    """What each run votes for, and whether it is right."""
    discarded = samples - len(tree.leaves)
    votes = [vote(leaf.answer) for leaf in tree.leaves]
    return votes + [None] * discarded, [bool(leaf.success) for leaf in tree.leaves] + [False] * discarded


def held_out(source: TaskSource, config: EvaluationConfig) -> list[Task]:
    """The held-out tasks of an evaluation; fewer, or none, if the source has no more."""
    return source.held_out(config.first + config.problems)[config.first :]


def family(task: Task) -> str | None:
    """The family of a mix that a task is from; a user's own tasks may have anything under that name."""
    name = task.info.get("family")
    return name if isinstance(name, str) else None
