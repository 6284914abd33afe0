"""Real runs that failed, and how often the policy recovers after each of their steps.

    python benchmarks/recovery.py --families arithmetic lore programs --runs 50

From each run that failed, 64 completions after every one of its steps, and as many whole runs. The outcomes are kept
in docs/results/recovery.jsonl, a run a line, so that every search can be tried on them (benchmarks/localization.py);
what is there is not measured again. A family takes about a quarter of an hour on a core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import string
from collections.abc import AsyncIterator
from pathlib import Path

from families import FAMILIES
from rich.console import Console

from firstfault.agent.rollouts import Agent, Rollouts
from firstfault.config import RunConfig, read_recipe, validated
from firstfault.engines.transformers import TransformersEngine
from firstfault.localize.search import agreement
from firstfault.policy import load_policy
from firstfault.tasks import TaskSource
from firstfault.training.build import build_agent, build_tasks, run_tools
from firstfault.training.cold_start import start_model
from firstfault.tree import Task, Tree

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "docs" / "results" / "recovery.jsonl"
COMPLETIONS = 64
DIGITS = string.digits + string.ascii_lowercase  # how many steps of the failed run a completion repeats


def recorded() -> list[dict]:
    return [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []


async def recovery(agent: Agent, source: TaskSource, task: Task, number: int) -> dict | None:
    """One run of a task and its completions; None if it did not fail, or called no tool."""
    tree = Tree(task, agent.chat.prompt(task.question), key=(0, 0, number))
    async with Rollouts(agent, tree, budget=10**6) as rollouts:
        leaves = await rollouts.sample(1)
        if not leaves or leaves[0].success or leaves[0].depth < 2:
            return None
        [failed] = leaves
        prefixes = failed.path[:-1]
        ends = await rollouts.continue_all([node for node in prefixes for _ in range(COMPLETIONS)])
        after = {node: [leaf for leaf in ends if leaf.anchor is node] for node in prefixes}
        return {
            "task": task.id,
            "first_wrong": source.first_wrong_step(task, failed),
            # after 0, 1, .. K steps; a character a completion
            "recovered": ["".join(str(int(leaf.success)) for leaf in leaves) for leaves in after.values()],
            "agreed": ["".join(DIGITS[agreement(failed, leaf)] for leaf in leaves) for leaves in after.values()],
            "entropies": [[round(h, 3) for h in step.entropies] for step in failed.steps],
        }


async def measure(family: str, done: set[str], wanted: int) -> AsyncIterator[dict]:
    """Records of runs of the cold start that failed, one after the other."""
    recipe, _, tasks = FAMILIES[family].partition(" --tasks ")
    values = read_recipe(ROOT / recipe) | ({"tasks": tasks.split()[0]} if tasks else {})
    values["cold_start"] = values.get("cold_start", {}) | ({"steps": 240} if tasks else {})
    config = validated(RunConfig, values, recipe)
    source = build_tasks(config.tasks)
    tools = run_tools(config, source)
    model, tokenizer = load_policy(start_model(config, source, Console(), tools), "cpu")
    agent = build_agent(config.agent, TransformersEngine(model, tokenizer), tokenizer, source, tools)
    try:
        number = 0
        while len(done) < wanted:
            [task] = source.train(seed=10_007, first=number, n=1)
            if task.id not in done and (record := await recovery(agent, source, task, number)):
                done.add(task.id)
                yield {"family": family, **record}
            number += 1
    finally:
        await agent.session.close()
        await source.close()


async def record(family: str, wanted: int) -> None:
    done = {row["task"] for row in recorded() if row["family"] == family}
    async for row in measure(family, done, wanted):
        with RECORD.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rates = " ".join(f"{outcomes.count('1') / len(outcomes):.2f}" for outcomes in row["recovered"])
        print(family, len(done), "first wrong", row["first_wrong"], "recovered", rates, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["arithmetic", "lore", "programs"], choices=list(FAMILIES))
    parser.add_argument("--runs", type=int, default=50, help="failed runs of each family")
    parsed = parser.parse_args()
    for family in parsed.families:
        asyncio.run(record(family, parsed.runs))


if __name__ == "__main__":
    main()
