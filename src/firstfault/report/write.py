"""`report.html`: what a person wants to know of a run, in the order of asking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from firstfault import __version__
from firstfault.files import saving, write_whole
from firstfault.report.curves import Line, Point, chart
from firstfault.report.folder import Run, read_run
from firstfault.report.metrics import METRICS
from firstfault.report.picture import tree_svg
from firstfault.report.text import clean, duration, middle_out, number
from firstfault.tree import Node, Tree

# The charts that everyone looks at first. A run may lack any of them.
FIRST = {
    "Success": ["success"],
    "Groups without a gradient": ["zero_gradient_groups"],
    "Entropy": ["entropy"],
    "Terms clipped": ["clip_share", "clip_share_localized"],
    "Gradient norm": ["gradient_norm"],
    "Probes among rollouts": ["probes / rollouts"],
    "Tokens": ["generated_tokens", "computed_tokens", "recomputed_tokens"],
}
SERIES = 4  # lines that a chart can show apart
LONGEST = 2000  # characters of one text of a run; the trees' files hold the rest


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` from what the run has left there so far, and return its path.

    The file appears whole or not at all.
    """
    run = read_run(Path(run_dir))
    page = environment().get_template("report.html").render(_context(run))
    path = run.path / "report.html"
    with saving(path):
        write_whole(path, page)
    return path


def environment() -> Environment:
    """Everything is escaped, and cleaned of what a page can't show, unless this package made it as markup."""
    made = Environment(
        loader=PackageLoader("firstfault.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) or value is None else clean(str(value)),
    )
    made.filters["number"] = number
    made.filters["long"] = lambda text: middle_out(text, LONGEST)
    return made


def _context(run: Run) -> dict[str, Any]:
    first, rest = _figures(run)
    return {
        "title": _title(run.config),
        "facts": [(name, fact) for name in ("model", "seed") if (fact := _setting(run.config, name))],
        "folder": run.path.resolve().name,
        "version": __version__,
        "config": run.config_text,
        "totals": _totals(run),
        "evaluation": _evaluation(run),
        "figures": first,
        "more_figures": rest,
        "help": {name: METRICS[name] for name in run.names if name in METRICS},
        "trees": [_tree(iteration, tree) for iteration, tree in run.trees],
        "last_iteration": run.iterations[-1],
    }


# header


def _title(config: Mapping[str, Any]) -> str:
    """Method and tasks, as far as the settings name them."""
    names = [name for key in ("method", "tasks") if (name := _setting(config, key))]
    return " on ".join(names) or "Training run"


def _setting(config: Mapping[str, Any], name: str) -> str:
    """A setting of the run, or the name in its table."""
    value = config.get(name, "")
    return str(value.get("name", "")) if isinstance(value, Mapping) else str(value)


def _totals(run: Run) -> list[tuple[str, str, str]]:
    """Numbers with a name and a remark."""
    total = {name: run.total(name) for name in run.names}

    def remark(name: str, words: str) -> str:
        return "" if total.get(name) is None else f"{number(total[name])} {words}"

    stages = [total[name] for name in ("seconds_explore", "seconds_update") if total.get(name) is not None]
    seconds = sum(stages) if stages else None
    tiles = [("iterations", number(len(run.metrics)), "")]
    for name, words, note in (
        ("rollouts", "rollouts", remark("probes", "of them probes")),
        ("generated_tokens", "generated tokens", remark("computed_tokens", "computed while sampling")),
        ("tool_calls", "tool calls", remark("tool_failures", "failed")),
    ):
        if total.get(name) is not None:
            tiles.append((words, number(total[name]), note))
    if seconds is not None:
        tiles.append(("time", duration(seconds), f"{duration(seconds / len(run.metrics))} an iteration"))
    return tiles


# evaluation


def _measures(run: Run) -> list[str]:
    """What was evaluated: all that has an interval."""
    return list(dict.fromkeys(k for record in run.evaluations for k in record if _interval(record, k)))


def _interval(record: Mapping[str, Any], name: str) -> tuple[float, float, float] | None:
    values = tuple(record.get(name + end) for end in ("", "_low", "_high"))
    return values if None not in values else None


def _evaluation(run: Run) -> dict[str, Any] | None:
    """The table of the first and the last evaluation."""
    measures = _measures(run)
    if not measures:
        return None
    before, after = run.evaluations[0], run.evaluations[-1]
    counts = [f"{after[k]} {k}" + (" each" if k == "samples" else "") for k in ("problems", "samples") if k in after]
    if before.get("samples") != after.get("samples"):
        counts.append(f"{before.get('samples')} samples each at iteration {before['iteration']}")
    rows = []
    for name in measures:
        pair = _interval(before, name), _interval(after, name) if after is not before else None
        change = f"{pair[1][0] - pair[0][0]:+.3f}".replace("-", "−") if all(pair) else ""
        rows.append({"name": name, "cells": pair, "change": change})
    return {
        "rows": rows,
        "before": before["iteration"],
        "after": after["iteration"] if after is not before else None,
        "counts": ", ".join(counts),
    }


# curves


def _figures(run: Run) -> tuple[list[dict], list[dict]]:
    """The charts to see first, and all others."""
    series = {name: run.series(name) for name in run.names}
    if {"probes", "rollouts"} <= set(series):
        pairs = zip(series["probes"], series["rollouts"], strict=True)
        series["probes / rollouts"] = [p / r if p is not None and r else None for p, r in pairs]
    stages = sorted((n for n in series if n.startswith("seconds_")), key=lambda n: -(run.total(n) or 0))
    wanted = {**FIRST, "Seconds": stages[:SERIES]}
    points = _points(run)
    first = []
    for title, names in wanted.items():
        names = [name for name in names if name in series]
        evaluated = points if title == "Success" else []
        if names or evaluated:
            first.append(_figure(run, title, {n: series[n] for n in names}, evaluated))
    shown = {name for names in wanted.values() for name in names}
    rest = [_figure(run, "", {n: v}) for n, v in series.items() if n not in shown]
    return [f for f in first if f["svg"]], [f for f in rest if f["svg"]]


def _figure(run: Run, title: str, series: dict, points: list[Point] | None = None):
    lines = [Line(name, values) for name, values in series.items()]
    keys = [(f"s{i}", line.name, line.numbers[-1:], METRICS.get(line.name, "")) for i, line in enumerate(lines)]
    latest = {f"e{p.series}": (f"e{p.series}", f"{p.name}, evaluated", [p.value], "") for p in points or []}
    return {
        "title": title,
        "keys": [*(key for key in keys if key[2]), *latest.values()],
        "svg": Markup(chart(run.iterations, lines, points or [])),
    }


def _points(run: Run) -> list[Point]:
    points = []
    for series, name in enumerate(_measures(run)[:2]):
        for record in run.evaluations:
            if interval := _interval(record, name):
                points.append(Point(record["iteration"], *interval, name=name, series=series))
    return points


# trees


def _tree(iteration: int, tree: Tree) -> dict[str, Any]:
    ends = [node for node in tree.steps if not node.children]
    return {
        "iteration": iteration,
        "task": tree.task,
        "svg": Markup(tree_svg(tree)),
        "won": sum(end.success is True for end in ends),
        "runs": [_run(end) for end in sorted(ends, key=lambda end: (end.rollout, end.index))],
        "verdicts": [(tree.nodes[v.leaf].rollout, v) for v in tree.verdicts],
    }


def _run(end: Node) -> dict[str, Any]:
    """A run, with only the steps that it added: its anchor's steps stand with the run that sampled them."""
    return {
        "end": end,
        "anchor": end.anchor if end.is_probe else None,
        "steps": [node for node in end.steps if node.rollout == end.rollout],
    }
