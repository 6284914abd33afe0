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
from collections.abc import AsyncIterator
from pathlib import Path

from families import FAMILIES
from rich.console import Console

from firstfault.config import RunConfig, read_recipe, validated
from firstfault.engines.transformers import TransformersEngine
from firstfault.evaluation.failures import Failure, measure
from firstfault.policy import load_policy
from firstfault.training.build import build_agent, build_tasks, run_tools
from firstfault.training.cold_start import start_model

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "docs" / "results" / "recovery.jsonl"


def recorded() -> list[Failure]:
    return [Failure(**json.loads(line)) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []


async def failures(family: str, done: set[str], wanted: int) -> AsyncIterator[Failure]:
    """Runs of the cold start that failed, one after the other."""
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
            if task.id not in done and (failure := await measure(agent, source, family, task, (0, 0, number))):
                done.add(task.id)
                yield failure
            number += 1
    finally:
        await agent.session.close()
        await source.close()


async def record(family: str, wanted: int) -> None:
    done = {failure.task for failure in recorded() if failure.family == family}
    async for failure in failures(family, done, wanted):
        with RECORD.open("a") as file:
            file.write(json.dumps(failure.to_json()) + "\n")
        rates = " ".join(f"{rate:.2f}" for rate in failure.rates)
        print(family, len(done), "first wrong", failure.first_wrong, "recovered", rates, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["arithmetic", "lore", "programs"], choices=list(FAMILIES))
    parser.add_argument("--runs", type=int, default=50, help="failed runs of each family")
    parsed = parser.parse_args()
    for family in parsed.families:
        asyncio.run(record(family, parsed.runs))


if __name__ == "__main__":
    main()
