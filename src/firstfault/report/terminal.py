"""What a run and a comparison achieved, and rollout trees, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree as RichTree

from firstfault.report.text import state_value, with_interval
from firstfault.run_folder import RunFolder
from firstfault.text import one_line
from firstfault.tree import Node, Tree, Verdict


def achieved(folder: RunFolder) -> Group:
    """Success before and after a run with 95 % intervals, if it had held-out tasks, and what it took."""
    rows, records = folder.read_metrics(), folder.read_evaluation()
    table = Table(title=str(folder.path))
    table.add_column("success on held-out tasks")
    for record in records:
        table.add_column(
            f"after {record['iteration']} iterations" if record["iteration"] else "before", justify="right"
        )
    for kind in ("sampled", "greedy"):
        values = [{"mean": r.get(kind), "low": r.get(f"{kind}_low"), "high": r.get(f"{kind}_high")} for r in records]
        table.add_row(kind, *(escape(with_interval(value)) if value["low"] is not None else "" for value in values))
    total = {
        name: f"{sum(row.get(name, 0) for row in rows):,.0f}"
        for name in ("rollouts", "probes", "generated_tokens", "trained_tokens", "tool_calls")
    }
    took = (
        f"trained on {total['rollouts']} rollouts ({total['probes']} of them probes): "
        f"{total['generated_tokens']} tokens written, {total['tool_calls']} tool calls, "
        f"{total['trained_tokens']} unique tokens trained on"
    )
    return Group(*([table] if records else []), Text(took))


def comparison_table(results: Mapping[str, Any]) -> Group:
    """Levels, spend and conclusions of a comparison."""
    table = Table("family", "method", title=escape(results["title"]))
    names = {"before": "before", "final": "after"}
    names |= {"iterations": "on the way"} if "iterations" in results["measures"] else {}
    for column in ("seeds", *names.values()):
        table.add_column(column, justify="right")
    for level in results["levels"]:
        values = [with_interval(level[name]) for name in names if name in level]
        table.add_row(escape(level["family"]), escape(level["method"]), str(level["seeds"]), *map(escape, values))
    spend = Table("family", "method", title=f"spent by a run; budget: {results['budget']}")
    for column in ("rollouts", "tokens", "tool calls", "of budget"):
        spend.add_column(column, justify="right")
    for row in results["spend"]:
        took = [f"{row[name]:,.0f}" for name in ("rollouts", "generated_tokens", "tool_calls")]
        share = f"{row['budget_share']:.0%}{', refused' * row['refused']}"
        spend.add_row(escape(row["family"]), escape(row["method"]), *took, share)
    return Group(table, spend, Text("\n".join(results["conclusions"])))


def tree_picture(tree: Tree) -> RichTree:
    """A line a step, with rewards and advantages; a lost run's first fault is marked.

    Below them a line a search, with its evidence.
    """
    picture = RichTree(Text(one_line(tree.task.question, 72), style="bold"))
    drawn = {tree.root: picture}
    for node in tree.steps:
        drawn[node] = drawn[node.parent].add(_line(node))
    for verdict in tree.verdicts:
        picture.add(_verdict_line(tree, verdict))
    return picture


def _line(node: Node) -> Text:
    style = "" if not node.is_leaf else "green" if node.success else "red"
    # of a step with calls, what is said before them; some models write nothing else than the call
    said = node.text if not node.calls else node.text.partition("<tool_call>")[0].partition("{")[0]
    line = Text(one_line(said, 40 if node.calls else 72), style=style)
    for call in node.calls:
        arguments = ", ".join(str(value) for value in call.arguments.values())
        line.append(f" {one_line(call.name, 24)}({one_line(arguments, 40)})", style="dim")
        line.append(f" → {one_line(call.output, 24)}", style="yellow" if call.failed else "cyan")
    if node.is_leaf:
        reward = "" if node.reward is None else f"reward {node.reward:+.2f} "
        line.append(f"  {reward}({one_line(node.end)})", style=style)
    if node.terms:
        line.append(f"  A {node.advantage:+.2f}", style="dim")
    if value := state_value(node):
        line.append(f"  V {value}", style="dim")
    if node.critical:
        line.append("  ← first fault", style="bold red")
    return line


def _verdict_line(tree: Tree, verdict: Verdict) -> Text:
    line = Text(f"search on run {tree.nodes[verdict.leaf].rollout}:", style="bold")
    for probe in verdict.probes:
        line.append(f" after step {probe.step} {probe.successes}/{probe.tries},", style="dim")
    found = f"first fault at step {verdict.step}" if verdict.names_step else "no step is irrecoverable"
    line.append(f" → {found}")
    line.append("" if verdict.probability is None else f" (probability {verdict.probability:.2f})", style="dim")
    line.append("" if verdict.finished else " (without an answer to rely on)", style="dim")
    line.append("" if verdict.marked else " (not used)", style="dim")
    return line
