"""What a run achieved, as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from firstfault.run_folder import RunFolder


def summary(folder: RunFolder) -> Table:
    """Success before and after with 95 % intervals, and what it took."""
    rows, records = folder.read_metrics(), folder.read_evaluation()
    table = Table(title=str(folder.path))
    table.add_column("success on held-out tasks")
    for record in records:
        table.add_column(
            f"after {record['iteration']} iterations" if record["iteration"] else "before", justify="right"
        )
    for kind in ("sampled", "greedy"):
        cells = [f"{r[kind]:.3f} [{r[f'{kind}_low']:.3f}, {r[f'{kind}_high']:.3f}]" for r in records]
        table.add_row(kind, *cells)
    total = {
        name: f"{sum(row[name] for row in rows):,.0f}"
        for name in ("rollouts", "probes", "generated_tokens", "trained_tokens", "tool_calls")
    }
    table.caption = (
        f"trained on {total['rollouts']} rollouts ({total['probes']} of them probes): "
        f"{total['generated_tokens']} tokens written, {total['tool_calls']} tool calls, "
        f"{total['trained_tokens']} unique tokens trained on"
    )
    return table
