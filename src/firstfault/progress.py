"""The progress bar of all long work: how far, how fast, how long still."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Row
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Row) -> Text:
        speed = task.finished_speed or task.speed
        return Text(
            f"{speed:.1f} {task.fields['unit']}/s" if speed else f"- {task.fields['unit']}/s",
            style="cyan",
            no_wrap=True,
        )


def progress(console: Console) -> Progress:
    """Tasks of it need a `unit`."""
    return Progress(
        TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=console,
    )  # fmt: skip
