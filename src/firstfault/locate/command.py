"""`firstfault locate`: from a file of traces to where each was lost, and to data to train on."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator
from rich.console import Console

from firstfault.config import Settings, listed
from firstfault.errors import UserError
from firstfault.files import NotSaved, try_folder
from firstfault.locate.check import Check, by_judge, from_file
from firstfault.locate.locate import Location, locate_async, save_pairs
from firstfault.locate.show import print_location, write_page
from firstfault.progress import progress
from firstfault.tools.own import tools_from
from firstfault.traces import Trace, read_traces
from firstfault.tree import save_trees
from firstfault.writers.base import KeptWriter, in_words
from firstfault.writers.endpoint import Endpoint, EndpointError
from firstfault.writers.local import LocalModel

TREES = "located.jsonl.gz"


class LocateConfig(Settings):
    """The settings of `firstfault locate`."""

    model: str = Field(description="the agent's model: its name at the endpoint, or a folder or Hub id")
    endpoint: str = Field(
        "", description='URL of an OpenAI-compatible API, or "local" for a model here; by default $OPENAI_BASE_URL'
    )
    system: str = Field("", description="the agent's system message, where the log has none")
    tools: list[str] = Field([], description="tools, called live: my_tools.py, or my_tools.py:ClassName")
    side_effects: list[str] = Field([], description="a tool that is never called: it answers what the record has")
    temperature: float = Field(1.0, ge=0, description="of sampling")
    max_tokens: int = Field(2048, ge=0, description="most tokens of a message; 0 leaves it to the server")
    check: str = Field("", description="what a success is: my_check.py with a function check(messages)")
    answer: str = Field("", description="or an answer that the last message must have; by default the trace's")
    judge: str = Field("", description="or a rubric, for a model as the judge")
    judge_model: str = Field("", description="its name, if it is another one")
    judge_error: float | None = Field(
        None, gt=0, lt=0.5, description="how often a failure passes for a success; by default 0.001, with a judge 0.01"
    )
    budget: int = Field(24, ge=1, description="most completions for a trace")
    together: int = Field(2, ge=1, description="completions at a time; more are faster and find a little less")
    price_read: float = Field(0.0, ge=0, description="of a million tokens that the model reads")
    price_written: float = Field(0.0, ge=0, description="of a million tokens that it writes")
    cache: Path | None = Field(None, description="folder where completions are kept; by default in the user's cache")
    html: Path | None = Field(None, description="write a page with the findings")
    dpo: Path | None = Field(None, description="write preference pairs at the steps at fault, for TRL")
    trees: Path | None = Field(None, description="folder for the rollout trees")

    @property
    def is_local(self) -> bool:
        return self.endpoint == "local"

    _listed = field_validator("tools", "side_effects", mode="before")(listed)

    @model_validator(mode="after")
    def _one_success(self) -> LocateConfig:
        given = [name for name in ("check", "answer", "judge") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} all say what a success is; give one")
        if self.judge_model and not self.judge:
            raise ValueError("judge_model without a rubric in judge; give one")
        return self


def command(path: Path, config: LocateConfig, *, yes: bool = False, as_json: bool = False) -> None:
    """Locate the failed runs of a file, and write what was asked for."""
    console = Console(stderr=True)
    traces, refusals = read_traces(path)
    failed = [trace for trace in traces if not trace.success]
    if not failed:
        raise UserError(f"{path} holds successful runs only; give a file with failed runs.")
    for output in filter(None, (config.html, config.dpo, config.trees and config.trees / TREES)):
        with _writing(output):
            try_folder(output.parent)
        if output.is_dir():
            raise UserError(f"{output} is a folder; give the path of a file.")
    writer, judge = _writers(config)
    check = from_file(config.check) if config.check else by_judge(judge, config.judge) if config.judge else None
    _ask(failed, config, yes or config.is_local, console)
    found: list[Location] = []

    async def search() -> None:
        try:
            for number, trace in enumerate(failed, 1):
                try:
                    with progress(console) as bar:  # closed before anything is printed
                        row = bar.add_task(f"trace {number} of {len(failed)}", total=config.budget, unit="runs")
                        try:
                            location = await _located(trace, config, writer, check, partial(bar.advance, row))
                        finally:
                            bar.update(row, total=bar.tasks[row].completed)  # a search may end early
                except (EndpointError, NotSaved):
                    raise
                except UserError as error:
                    refusals.append(str(error))
                    continue
                found.append(location)
                if as_json:
                    print(json.dumps(location.to_json(), ensure_ascii=False))
                else:
                    print_location(location, Console())
        finally:
            await judge.close()

    try:
        asyncio.run(search())
    finally:
        spent = in_words([writer.spent, judge.spent], lambda read, written: _money(read, written, config))
        console.print(spent, markup=False, highlight=False)
        if found:
            _write(found, config)
    if not found:
        raise UserError(refusals[-1])
    for refusal in refusals:
        console.print(f"left out: {refusal}", style="yellow", markup=False, highlight=False)


def _writers(config: LocateConfig) -> tuple[KeptWriter, KeptWriter]:
    """The agent's model, and the one that judges."""
    options: dict[str, Any] = {"max_tokens": config.max_tokens, "cache": config.cache}
    if not config.is_local:
        options["url"] = config.endpoint or None
        judge = Endpoint(config.judge_model or config.model, temperature=0.0, any_temperature=True, **options)
        return Endpoint(config.model, temperature=config.temperature, **options), judge
    writer = LocalModel(config.model, temperature=config.temperature, **options)
    return writer, LocalModel(config.judge_model, temperature=0.0, **options) if config.judge_model else writer.at(0.0)


async def _located(
    trace: Trace, config: LocateConfig, writer: KeptWriter, check: Check | None, done: Callable[[], None]
) -> Location:
    tools = [tool for name in config.tools for tool in tools_from(name)]  # a state of their own for every trace
    error = config.judge_error or (0.01 if config.judge else 0.001)
    try:
        return await locate_async(
            trace, writer, tools, check=check, answer=config.answer or None, system=config.system,
            side_effects=config.side_effects, budget=config.budget, together=config.together, judge_error=error,
            done=done,
        )  # fmt: skip
    finally:
        for tool in tools:
            await tool.close()


def _ask(traces: list[Trace], config: LocateConfig, yes: bool, console: Console) -> None:
    """Say what it may cost, and go on only if that is wanted."""
    reads = writes = calls = 0.0
    for trace in traces:
        own = [len(json.dumps(message)) / 4 for message in trace.messages]  # tokens, about
        before = [0.0, *itertools.accumulate(own)]
        turns = config.budget * (trace.tool_steps + 2) / 2  # completions start anywhere
        calls += turns
        reads += turns * statistics.mean(before[start] for start, _ in trace.steps)
        writes += turns * statistics.mean(own[start] for start, _ in trace.steps)
        if config.judge:
            calls += config.budget + 1
            reads += (config.budget + 1) * before[-1]
            writes += (config.budget + 1) * 50
    console.print(
        f"{len(traces)} failed run{'s' * (len(traces) > 1)}, at most {config.budget} completions each: about "
        f"{calls:,.0f} calls that read {reads:,.0f} tokens and write {writes:,.0f}{_money(reads, writes, config)}; "
        "less if some are known already.",
        markup=False, highlight=False,
    )  # fmt: skip
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nobody can be asked whether to spend that; say --yes.")
    try:
        wanted = input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        wanted = False
    if not wanted:
        raise UserError("nothing was spent.")


def _money(read: float, written: float, config: LocateConfig) -> str:
    price = (read * config.price_read + written * config.price_written) / 1e6
    return f", {price:,.2f} in money" if price else ""


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}); give another path.") from error


def _write(found: list[Location], config: LocateConfig) -> None:
    """Write what was asked for. What can't be written keeps the rest from nothing: all of it was paid for."""
    failed = []
    for output, write in (
        (config.html, lambda path: write_page(found, path)),
        (config.dpo, lambda path: save_pairs([pair for location in found for pair in location.pairs()], path)),
        (config.trees and config.trees / TREES, lambda path: save_trees([one.tree for one in found], path)),
    ):
        try:
            if output:
                with _writing(output):
                    write(output)
        except UserError as error:
            failed.append(str(error))
    if failed:
        raise UserError(" ".join(failed))
