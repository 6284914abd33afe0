"""`firstfault claims`: measures what is missing, and says what holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from rich.console import Console
from rich.table import Table

from firstfault.cache import write_whole
from firstfault.config import RunConfig, Section, between_commas
from firstfault.errors import UserError
from firstfault.evaluation.agents import local_agent
from firstfault.evaluation.claims import CLAIMS
from firstfault.evaluation.claims.finding import Finding
from firstfault.progress import progress
from firstfault.training.build import build_tasks, run_tools

SEED = 10_007  # of tasks, apart from those of training
TRIED = 50  # tasks for each that is wanted, at most: some claims are of tasks that always fail


class ClaimsConfig(Section):
    """The settings of `firstfault claims`."""

    tasks: list[str] = Field([], description="task families, with commas between; by default those of the recipe")
    runs: int = Field(30, ge=1, description="tasks of each family that a claim is checked on")
    out: Path = Field(Path("runs/claims"), description="where everything goes; what was measured there is kept")

    _listed = field_validator("tasks", mode="before")(between_commas)


def command(
    names: Sequence[str], families: Mapping[str, RunConfig], settings: ClaimsConfig, console: Console
) -> list[Finding]:
    """Check claims, by default all, on task families. What is in `settings.out` already is not measured again.

    Raises:
        UserError: if there is no such claim, or a family has too few tasks for one.
    """
    for name in names:
        if name not in CLAIMS:
            raise UserError(f"there is no claim {name!r}; choose of {', '.join(CLAIMS)}.")
    names, out = list(names) or list(CLAIMS), settings.out
    findings = []
    for family, config in families.items():
        findings += asyncio.run(_check(names, family, config, settings.runs, out, console))
        for finding in findings[-len(names) :]:
            console.print(table(finding))
        write_whole(out / "claims.json", json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
        write_whole(out / "claims.md", "\n".join(line for finding in findings for line in markdown(finding)))
    return findings


async def _check(
    names: Sequence[str], family: str, config: RunConfig, runs: int, out: Path, console: Console
) -> list[Finding]:
    found = []
    source = build_tasks(config.tasks)
    agent = local_agent(config, source, run_tools(config, source), console)
    try:
        for name in names:
            claim = CLAIMS[name]
            path = out / f"{name}-{family}.jsonl"
            rows = _read(path)
            measured: dict[str, list[dict[str, Any]]] = {variant: [] for variant in claim.VARIANTS}
            with progress(console) as bar:
                line = bar.add_task(f"{name}, {family}", total=runs * len(claim.VARIANTS), unit="tasks")
                for variant in claim.VARIANTS:
                    mine = {row["number"]: row for row in rows if row["variant"] == variant}
                    number = 0
                    while (done := len(measured[variant])) < runs:
                        if number == TRIED * runs:
                            raise UserError(
                                f"claim {name} on {family}: of {number} tasks only {done} are such as it is about; ask "
                                f"for fewer with --runs {done}, or start from a weaker policy."
                            )
                        if number not in mine:
                            [task] = source.train(seed=SEED, first=number, n=1)
                            seen = await claim.measure(agent, source, family, variant, task, (SEED, 0, number))
                            mine[number] = {"number": number, "variant": variant, "measured": seen}
                            out.mkdir(parents=True, exist_ok=True)
                            with path.open("a", encoding="utf-8") as file:
                                file.write(json.dumps(mine[number]) + "\n")
                        if mine[number]["measured"] is not None:
                            measured[variant].append(mine[number]["measured"])
                            bar.advance(line)
                        number += 1
            found.append(claim.finding(family, measured))
    finally:
        await agent.session.close()
        await source.close()
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; a last one that was cut short is left out, and measured again."""
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number} is not JSON; mend it or take it out.") from error
            write_whole(path, "".join(f"{json.dumps(row)}\n" for row in rows))
    return rows


def table(finding: Finding) -> Table:
    shown = Table("", "here, 95 % interval", "of", "the paper", title=f"{finding.claim}, {finding.family}")
    for figure in finding.figures:
        shown.add_row(figure.name, str(figure), str(figure.n), figure.paper)
    shown.caption = f"{finding.verdict}: {finding.why}"
    return shown


def markdown(finding: Finding) -> list[str]:
    lines = [
        f"### {finding.claim}, {finding.family}: {finding.verdict}",
        "",
        finding.why[:1].upper() + finding.why[1:] + ".",
        "",
    ]
    lines += ["| | here, 95 % interval | of | the paper |", "|---|---|---|---|"]
    for f in finding.figures:
        lines.append(f"| {f.name} | {f} | {f.n} | {f.paper} |")
    return [*lines, "", *(f"{note[:1].upper()}{note[1:]}.\n" for note in finding.notes)]
