"""The progress bar of all long work: how far, how fast, how long still."""

from types import ModuleType

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

from firstfault.errors import require

LONG = 1e9  # seconds over which the speed of what takes minutes a piece is measured


class _Rate(ProgressColumn):
    def render(self, task: Row) -> Text:
        speed, unit = task.finished_speed or task.speed, task.fields["unit"]
        rate = (
            f"- {unit}/s" if not speed else f"{speed:.1f} {unit}/s" if speed >= 0.1 else f"{speed * 3600:.1f} {unit}/h"
        )
        return Text(rate, style="cyan", no_wrap=True)


def progress(console: Console, over: float = 30.0) -> Progress:
    """Tasks of it need a `unit`. Speed is that of the last `over` seconds."""
    return Progress(
        TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=console, speed_estimate_period=over,
    )  # fmt: skip


def quiet_datasets(what: str, instead: str = "") -> ModuleType:
    """The package `datasets`, where `require` finds it, without its own bars: they would tear ours apart."""
    require("datasets", "datasets", what, instead)
    import datasets

    datasets.disable_progress_bars()
    return datasets
