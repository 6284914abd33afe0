"""`firstfault eval`: runs on held-out tasks, their records, and the tables that are made of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from rich.console import Console

from firstfault.agent.rollouts import side_by_side
from firstfault.config import RunConfig, Settings
from firstfault.errors import UserError
from firstfault.evaluation.agents import Evaluated, LocalAgent, RemoteAgent, Unfinished, local_settings
from firstfault.evaluation.records import RecordsFile, record
from firstfault.evaluation.rows import digest
from firstfault.evaluation.show import tables
from firstfault.evaluation.summary import Summary, summarize
from firstfault.files import alone
from firstfault.progress import progress
from firstfault.tasks import JsonlTasks, TaskSource
from firstfault.tools import Tool
from firstfault.training.build import build_tasks, run_tools
from firstfault.training.validate import family, held_out
from firstfault.tree import Task
from firstfault.writers.base import in_words
from firstfault.writers.endpoint import Endpoint


class EvalConfig(Settings):
    """The settings of `firstfault eval` beside those of a run."""

    records: Path | None = Field(
        None, description="a file for the record of each run; the same command goes on there; by default in runs/eval"
    )
    endpoint: str = Field("", description="URL of an OpenAI-compatible API that serves --model")
    parallel: int = Field(8, ge=1, description="most runs at a time of a model behind an endpoint")
    cache: Path | None = Field(None, description="folder where its messages are kept; by default in the user's cache")

    @model_validator(mode="after")
    def _possible(self) -> EvalConfig:
        given = [name for name in ("parallel", "cache") if name in self.model_fields_set]
        if given and not self.endpoint:
            raise ValueError(f"{given[0]} is for a model behind an endpoint; give --endpoint, or leave it out")
        return self


def command(config: RunConfig, options: EvalConfig, *, as_json: bool = False) -> None:
    """Evaluate the model of `config` on held-out tasks, and print what its records say.

    Raises:
        UserError: if there are no tasks, settings don't fit, or runs could not be brought to their end.
    """
    console = Console(stderr=True)
    samples = config.evaluation.last_samples
    ks = config.evaluation.k or sorted({1, samples})
    if options.endpoint:
        _check_endpoint(config)
    source = build_tasks(config.tasks)
    tasks = evaluated(config, source)
    settings = _settings(config, options, source, tasks)
    path = options.records or _own_file(config.tasks["name"], settings)
    with alone(path.parent, path.name):
        kept = RecordsFile(path, settings, samples + 1)
        missing = sorted(set(range(len(tasks))) - kept.finished)
        if missing:
            _run(config, options, source, tasks, missing, kept, console)
    summary = summarize(kept.rows, ks, config.seed)
    if as_json:
        facts = {"model": config.model, "tasks": config.tasks["name"], "problems": len(tasks), "samples": samples}
        facts |= {"records": str(path), "seed": config.seed, "k": ks}
        print(json.dumps({**facts, **summary.to_json()}))
    else:
        _print(config, path, bool(missing), summary, ks)


def evaluated(config: RunConfig, source: TaskSource) -> list[Task]:
    """The held-out tasks of a source; of a JSONL file, if it has no other, the file's own.

    Raises:
        UserError: if there are none.
    """
    if isinstance(source, JsonlTasks) and source.held_out_path is None:
        source = source.model_copy(update={"held_out_path": source.path})
    tasks = held_out(source, config.evaluation)
    if not tasks:
        raise UserError(
            f"tasks {config.tasks['name']}: there is nothing to evaluate on; give evaluation.problems >= 1, and, of "
            "data of your own, --tasks.held-out-path or --tasks.held-out-split."
        )
    return tasks


def _check_endpoint(config: RunConfig) -> None:
    if "model" not in config.model_fields_set:
        raise UserError("an endpoint serves models by name; give the name with --model.")
    if config.agent.top_p != 1 or config.agent.stop:
        name = "agent.stop" if config.agent.stop else "agent.top_p"
        raise UserError(f"an endpoint is asked with a temperature and max_new_tokens only; leave out {name}.")


def _settings(config: RunConfig, options: EvalConfig, source: TaskSource, tasks: list[Task]) -> dict[str, Any]:
    """All that records follow from. The address of an endpoint may change, as may what makes things faster."""
    told = json.dumps([asdict(task) for task in tasks], sort_keys=True, default=str)
    settings = local_settings(config, source)
    if options.endpoint:
        settings |= {"model": config.model}
        settings.pop("cold_start", None)
    return {
        **settings,
        "engine": "endpoint" if options.endpoint else "transformers",
        "problems": len(tasks),
        "questions": hashlib.sha256(told.encode(errors="replace")).hexdigest()[:16],
        "samples": config.evaluation.last_samples,
        "seed": config.seed,
    }


def _own_file(tasks: str, settings: dict[str, Any]) -> Path:
    """Where records of these settings are kept by default: other settings have another file."""
    return Path("runs/eval") / f"{Path(tasks).stem}-{digest(settings)}.jsonl"


def _run(
    config: RunConfig, options: EvalConfig, source: TaskSource, tasks: list[Task], missing: list[int],
    kept: RecordsFile, console: Console,
) -> None:  # fmt: skip
    """Run the tasks that are missing, and keep the records of each as it finishes."""
    tools = run_tools(config, source)
    writers = _writers(config, options) if options.endpoint else []
    agent = _agent(config, options, source, tools, writers, console)
    samples = config.evaluation.last_samples
    unfinished: list[str] = []

    async def run() -> None:
        try:
            with progress(console) as bar:
                row = bar.add_task("evaluation", total=len(tasks) * (samples + 1), unit="runs",
                                   completed=(len(tasks) - len(missing)) * (samples + 1))  # fmt: skip

                async def one(number: int) -> None:
                    task = tasks[number]
                    try:
                        runs = await agent.runs(number, task, samples, lambda: bar.advance(row))
                    except Unfinished as reason:
                        unfinished.append(f"task {task.id or number}: {reason}")
                        return
                    about = {
                        "number": number, "task": task.id, "difficulty": source.difficulty(task),
                        "family": family(task) or config.tasks["name"],
                    }  # fmt: skip
                    places = [*range(samples), None]
                    kept.add([record(*run, **about, sample=i) for i, run in zip(places, runs, strict=True)])

                size = agent.together or len(missing)
                for first in range(0, len(missing), size):
                    await side_by_side([one(number) for number in missing[first : first + size]])
        finally:
            await agent.close()
            await source.close()

    try:
        asyncio.run(run())
    finally:
        if writers:
            console.print(in_words([writer.spent for writer in writers]), markup=False, highlight=False)
    if unfinished:
        raise UserError(
            f"{len(unfinished)} of {len(tasks)} tasks could not be finished ({unfinished[0]}); the records of the "
            f"others are in {kept.path}: give the same command again."
        )


def _writers(config: RunConfig, options: EvalConfig) -> list[Endpoint]:
    """Of sampled and of greedy runs."""
    return [
        Endpoint(config.model, options.endpoint, temperature=temperature, max_tokens=config.agent.max_new_tokens,
                 parallel=options.parallel, cache=options.cache)
        for temperature in (config.agent.temperature, 0.0)
    ]  # fmt: skip


def _agent(
    config: RunConfig, options: EvalConfig, source: TaskSource, tools: list[Tool], writers: list[Endpoint],
    console: Console,
) -> Evaluated:  # fmt: skip
    if writers:
        return RemoteAgent(config, source, tools, *writers, options.parallel)
    return LocalAgent(config, source, tools, console)


def _print(config: RunConfig, records: Path, ran: bool, summary: Summary, ks: list[int]) -> None:
    console = Console()
    runs = f"{config.evaluation.last_samples} sampled runs of each, seed {config.seed}"
    for table in tables(f"{config.model} on {config.tasks['name']}", summary, ks, runs):
        console.print(table)
    known = "" if ran else "; all were there, remove it to run them anew"
    console.print(f"a record of each run: {records}{known}", markup=False, highlight=False)
