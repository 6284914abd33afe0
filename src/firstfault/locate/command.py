"""`firstfault locate`: from a file of traces to where each was lost, and to data to train on."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from rich.console import Console

from firstfault.errors import UserError
from firstfault.locate.check import by_answer, by_judge, from_file
from firstfault.locate.endpoint import Endpoint, Spent
from firstfault.locate.locate import Location, locate, save_pairs
from firstfault.locate.show import print_location, write_page
from firstfault.tools.own import tools_from
from firstfault.traces import Trace, read_traces
from firstfault.training.progress import progress
from firstfault.tree import save_trees


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", type=Path, help="a log of failed runs: chat messages, Inspect, OpenTelemetry, LangChain, trees")
    agent = parser.add_argument_group("the agent")
    agent.add_argument("--model", required=True, metavar="NAME", help="its name at the endpoint")
    agent.add_argument("--endpoint", metavar="URL", default=None, help="an OpenAI-compatible API (default: $OPENAI_BASE_URL)")
    agent.add_argument("--tools", metavar="FILE", action="append", default=[], help="its tools, called live: my_tools.py, or "
                       "my_tools.py:ClassName (may be repeated)")  # fmt: skip
    agent.add_argument("--side-effects", metavar="NAME", action="append", default=[], help="a tool that is never called: it "
                       "answers what the record has (may be repeated)")  # fmt: skip
    agent.add_argument("--temperature", type=float, default=1.0, metavar="X", help="of sampling (default: 1.0)")
    agent.add_argument("--max-tokens", type=int, default=2048, metavar="N", help="most tokens of a message (default: 2048)")
    success = parser.add_argument_group("what a success is").add_mutually_exclusive_group()
    success.add_argument("--check", metavar="FILE", default=None, help="my_check.py, whose check(messages) says so")
    success.add_argument("--answer", metavar="TEXT", default=None, help="has to stand in the last message (default: the trace's)")
    success.add_argument("--judge", metavar="RUBRIC", default=None, help="a rubric for the model, as a judge")
    parser.add_argument("--judge-model", metavar="NAME", default=None, help="another model at the endpoint, as the judge")
    parser.add_argument("--judge-error", type=float, metavar="X", default=None, help="how often a failure passes for a success "
                        "(default: 0.001, with a judge 0.01)")  # fmt: skip
    search = parser.add_argument_group("the search")
    search.add_argument("--budget", type=int, default=24, metavar="N", help="most completions of a trace (default: 24)")
    search.add_argument("--together", type=int, default=2, metavar="N", help="completions at a time; more find less (default: 2)")
    search.add_argument("--yes", action="store_true", default=False, help="spend without asking")
    search.add_argument("--price", nargs=2, type=float, metavar=("IN", "OUT"), default=None, help="of a million tokens read, and written")
    search.add_argument("--cache", type=Path, default=None, help="where completions are kept (default: the user's cache)")
    output = parser.add_argument_group("what is written")
    output.add_argument("--json", action="store_true", default=False, help="print JSON, a trace a line")
    output.add_argument("--html", type=Path, metavar="FILE", default=None, help="a page with the findings")
    output.add_argument("--dpo", type=Path, metavar="FILE", default=None, help="preference pairs at the steps at fault, for TRL")
    output.add_argument("--trees", type=Path, metavar="FOLDER", default=None, help="the rollout trees, for `firstfault view`")


def command(parsed: argparse.Namespace) -> None:
    console = Console(stderr=True)
    traces, refusals = read_traces(parsed.trace)
    for refusal in refusals:
        console.print(f"left out: {refusal}", style="yellow", markup=False, highlight=False)
    failed = [trace for trace in traces if not trace.success]
    if not failed:
        raise UserError(f"{parsed.trace} holds successful runs only; give a file with failed runs.")
    if parsed.budget < 1 or parsed.together < 1:
        raise UserError(f"budget = {parsed.budget} and together = {parsed.together} must be at least 1.")
    options = {"temperature": parsed.temperature, "max_tokens": parsed.max_tokens, "cache": parsed.cache}
    writer = Endpoint(parsed.model, parsed.endpoint, **options)
    tools = [tool for name in parsed.tools for tool in tools_from(name)]
    if parsed.judge:
        judge = Endpoint(parsed.judge_model or parsed.model, parsed.endpoint, **options | {"temperature": 0.0})
        check = by_judge(judge, parsed.judge)
    else:
        check = from_file(parsed.check) if parsed.check else by_answer(parsed.answer) if parsed.answer else None
    error = parsed.judge_error if parsed.judge_error is not None else 0.01 if parsed.judge else 0.001
    _ask(failed, parsed, console)
    found: list[Location] = []
    with progress(console) as bar:
        row = bar.add_task("completions", total=parsed.budget * len(failed), unit="runs")
        for number, trace in enumerate(failed, 1):
            found.append(
                locate(trace, writer, tools, check=check, side_effects=parsed.side_effects, budget=parsed.budget,
                       together=parsed.together, judge_error=error, done=lambda: bar.advance(row))
            )  # fmt: skip
            bar.update(row, completed=number * parsed.budget)
    for location in found:
        if parsed.json:
            print(json.dumps(location.to_json(), ensure_ascii=False))
        else:
            print_location(location, Console())
    _write(found, parsed)
    console.print(_spent(writer.spent, parsed.price), markup=False, highlight=False)


def _ask(traces: list[Trace], parsed: argparse.Namespace, console: Console) -> None:
    """Say what it may cost, and go on only if that is wanted."""
    reads = writes = calls = 0.0
    for trace in traces:
        turns = parsed.budget * (trace.tool_steps + 2) / 2  # completions start anywhere
        lengths = [len(json.dumps(trace.messages[:start])) / 4 for start, _ in trace.steps]
        own = [len(json.dumps(trace.messages[start])) / 4 for start, _ in trace.steps]
        calls, reads, writes = calls + turns, reads + turns * statistics.mean(lengths), writes + turns * statistics.mean(own)
    money = f", about {_money(reads, writes, parsed.price)}" if parsed.price else ""
    console.print(
        f"{len(traces)} failed {'run' if len(traces) == 1 else 'runs'}, {parsed.budget} completions each at most: about "
        f"{calls:,.0f} calls, which read {reads:,.0f} tokens and write {writes:,.0f}{money}; less if known already.",
        markup=False, highlight=False,
    )  # fmt: skip
    if parsed.yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nobody can be asked whether to spend that; say --yes.")
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was spent.")


def _money(read: float, written: float, price: list[float]) -> str:
    return f"{(read * price[0] + written * price[1]) / 1e6:,.2f}"


def _spent(spent: Spent, price: list[float] | None) -> str:
    money = f", {_money(spent.prompt_tokens, spent.completion_tokens, price)}" if price else ""
    return (
        f"paid for {spent.calls:,} calls ({spent.prompt_tokens:,} tokens read, {spent.completion_tokens:,} written{money}); "
        f"{spent.known:,} were known."
    )


def _write(found: list[Location], parsed: argparse.Namespace) -> None:
    if parsed.html:
        write_page(found, parsed.html)
    if parsed.dpo:
        save_pairs([pair for location in found for pair in location.pairs()], parsed.dpo)
    if parsed.trees:
        parsed.trees.mkdir(parents=True, exist_ok=True)
        save_trees([location.tree for location in found], parsed.trees / "located.jsonl.gz")
