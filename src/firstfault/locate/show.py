"""A location for people: in the terminal, and as a page of its own."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from firstfault.files import write_whole
from firstfault.locate.check import transcript
from firstfault.locate.locate import Location, Point
from firstfault.text import one_line, printable
from firstfault.writers.base import Message

ALTERNATIVES = 3  # runs that recovered, in the terminal


def said(message: Message | None) -> str:
    """What the agent wrote in a step, its calls included."""
    return transcript([message]).replace("[assistant] ", "").replace("[assistant calls ", "[calls ") if message else ""


def recovery(location: Location) -> Table:
    """A row for every step: what completions after it did, and how surely the run was lost by then."""
    table = Table("after step", "completions", "succeed", "95 % interval", "", "lost by then", box=None)
    points = {point.step: point for point in location.curve}
    lost_by = dict(enumerate(location.verdict.weights, 1))
    for step in sorted({*points, *lost_by}):
        point = points.get(step)
        mark = " ◀" if step == location.step and location.is_found else ""
        row = (str(point.tries), f"{point.share:.2f}", _interval(point), _bar(point)) if point else ("",) * 4
        table.add_row(f"{step}{mark}" if step else "start", *row, f"{lost_by[step]:.2f}" if step else "")
    return table


def _interval(point: Point) -> str:
    low, high = point.interval
    return f"{low:.2f} to {high:.2f}"


def _bar(point: Point, width: int = 16) -> Text:
    full = round(width * point.share)
    return Text("█" * full, "green") + Text("░" * (width - full), "dim")


def shown(location: Location) -> RenderableType:
    """The finding, the recovery after each step, and what runs that recovered did instead."""
    parts: list[RenderableType] = [Text(location.in_words(), "bold"), recovery(location)]
    if location.instead:
        beside = Table(f"step {location.step} as it was", "a run that recovered", show_lines=True, expand=True)
        for number, message in enumerate(location.instead[:ALTERNATIVES]):
            beside.add_row(
                Text(printable(said(location.at_fault))) if not number else "", Text(printable(said(message)))
            )
        parts.append(beside)
    elif location.step:
        parts.append(Panel(Text(printable(said(location.at_fault))), title=f"step {location.step} as it was"))
    return Group(*parts)


def print_location(location: Location, console: Console) -> None:
    name = one_line(f"trace {location.trace.id} ({location.trace.source})")
    console.print(name, style="dim", markup=False, highlight=False)
    console.print(shown(location))


def write_page(locations: list[Location], path: Path) -> None:
    """A self-contained page: no script, nothing loaded."""
    environment = Environment(loader=PackageLoader("firstfault.locate"), autoescape=True, trim_blocks=True)
    page = environment.get_template("location.html.j2").render(
        locations=locations, said=said, points=lambda location: {point.step: point for point in location.curve}
    )
    write_whole(path, page)
