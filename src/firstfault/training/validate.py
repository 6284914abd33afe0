"""How good a policy is on given tasks: sampled and greedy success, with intervals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from rich.console import Console

from firstfault.agent.rollouts import Agent, Rollouts
from firstfault.config import EvaluationConfig, RunConfig
from firstfault.engines.transformers import TransformersEngine
from firstfault.errors import UserError
from firstfault.policy import load_policy
from firstfault.progress import progress
from firstfault.tasks import JsonlTasks, TaskSource
from firstfault.training.build import build_agent, build_tasks, run_tools, uses_cpu
from firstfault.training.cold_start import start_model
from firstfault.tree import Task, Tree

Progress = Callable[[int], None]


async def validate(
    agent: Agent, tasks: Sequence[Task], *, samples: int, seed: int, done: Progress = lambda n: None
) -> dict[str, Any]:
    """Run each task `samples` times at the agent's temperature, and once greedily.

    Returns:
        `sampled` and `greedy` success with bootstrap 95 % intervals over tasks (`_low`, `_high`), the success on each
        task (`outcomes`), what it took, and of a mix of families the success of each (`families`).
    """
    greedy = replace(agent, sampling=replace(agent.sampling, temperature=0.0))

    async def run(agent: Agent, task: Task, number: int, n: int) -> Tree:
        tree = Tree(task, agent.chat.prompt(task.question), key=(seed, 0, number))  # training counts from 1
        async with Rollouts(agent, tree, n) as rollouts:
            await rollouts.sample(n)
        done(n)
        return tree

    trees = await asyncio.gather(
        *(run(agent, task, i, samples) for i, task in enumerate(tasks)),
        *(run(greedy, task, i + len(tasks), 1) for i, task in enumerate(tasks)),
    )
    sampled, likeliest = trees[: len(tasks)], trees[len(tasks) :]
    record: dict[str, Any] = {"problems": len(tasks), "samples": samples, "outcomes": {}}
    families: dict[str, dict[str, float]] = {name: {} for name in map(_family, tasks) if name}
    for name, group in (("sampled", sampled), ("greedy", likeliest)):
        success = [float(np.mean([leaf.success for leaf in tree.leaves])) for tree in group]
        record[name], record[f"{name}_low"], record[f"{name}_high"] = mean_interval(success, seed)
        record["outcomes"][name] = success
        for family, scores in families.items():
            own = [s for s, task in zip(success, tasks, strict=True) if _family(task) == family]
            scores[name] = float(np.mean(own))
    if families:
        record["families"] = families
    nodes = [node for tree in sampled for node in tree.steps]
    runs = len(tasks) * samples
    record["tokens_per_run"] = sum(len(node.action_tokens) for node in nodes) / runs
    record["calls_per_run"] = sum(len(node.calls) for node in nodes) / runs
    return record


def evaluate_model(config: RunConfig, console: Console) -> dict[str, Any]:
    """`validate` the model of `config` on the held-out tasks of its source; of a JSONL file, on the file's own.

    Raises:
        UserError: if there are no tasks, or anything in `config` can't be had.
    """
    source = build_tasks(config.tasks)
    if isinstance(source, JsonlTasks) and source.held_out_path is None:
        source = source.model_copy(update={"held_out_path": source.path})
    tasks = held_out(source, config.evaluation)
    if not tasks:
        raise UserError(
            f"tasks {config.tasks['name']}: there is nothing to evaluate on; give evaluation.problems >= 1, and, of "
            "data of your own, --tasks.held-out-path or --tasks.held-out-split."
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    tools = run_tools(config, source)
    start = start_model(config, source, console, tools)
    model, tokenizer = load_policy(start, PartialState(cpu=uses_cpu(config)).device)
    engine = TransformersEngine(model, tokenizer, **config.engine.model_dump())
    agent = build_agent(config.agent, engine, tokenizer, source, tools)

    async def run() -> dict[str, Any]:
        try:
            with progress(console) as bar:
                row = bar.add_task("evaluation", total=len(tasks) * (config.evaluation.samples + 1), unit="runs")
                return await validate(agent, tasks, samples=config.evaluation.samples, seed=config.seed,
                                      done=lambda n: bar.advance(row, n))  # fmt: skip
        finally:
            await agent.session.close()
            await source.close()

    return asyncio.run(run())


def held_out(source: TaskSource, config: EvaluationConfig) -> list[Task]:
    """The held-out tasks of an evaluation; fewer, or none, if the source has no more."""
    return source.held_out(config.first + config.problems)[config.first :]


def _family(task: Task) -> str | None:
    """The family of a mix that a task is from; a user's own tasks may have anything under that name."""
    name = task.info.get("family")
    return name if isinstance(name, str) else None


def mean_interval(values: Sequence[float], seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """The mean, and the 2.5 % and 97.5 % quantiles of the means of bootstrap samples."""
    values = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
