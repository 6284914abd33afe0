"""`firstfault claims`: measures what is missing, reads what a comparison trained, and says what holds."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, field_validator
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from firstfault.agent.rollouts import Agent
from firstfault.config import RunConfig, Settings, between_commas
from firstfault.errors import UserError, what_is_wrong
from firstfault.evaluation.agents import local_settings
from firstfault.evaluation.claims import CLAIMS, MEASURED, READ
from firstfault.evaluation.claims.compared import TOGETHER, Compared, Read, read_runs
from firstfault.evaluation.claims.finding import UNTOLD, Finding
from firstfault.evaluation.claims.measured import Measured, Measurement, Row, Subject
from firstfault.evaluation.plan import slug
from firstfault.evaluation.rows import RowsFile, digest
from firstfault.evaluation.statistics import scipy_stats
from firstfault.files import alone, saving, write_whole
from firstfault.progress import progress
from firstfault.tasks import TaskSource
from firstfault.training.build import build_tasks, run_tools

SEED = 10_007  # of tasks, apart from those of training
FINDINGS = TypeAdapter(list[Finding])  # `claims.json`
TRIED = 50  # tasks for each that is wanted, at most: some claims are of tasks that always fail


class ClaimsConfig(Settings):
    """The settings of `firstfault claims`."""

    tasks: list[str] = Field([], description="task families, with commas between; by default those of the recipe")
    comparison: list[Path] = Field(
        [], description="folders of comparisons, with commas between, for the claims that are read from one"
    )
    runs: int = Field(30, ge=1, description="tasks of each family that are measured for a claim, at least")
    out: Path = Field(Path("runs/claims"), description="where everything goes; what was measured there is kept")

    _listed = field_validator("tasks", "comparison", mode="before")(between_commas)


def command(
    names: Sequence[str], families: Mapping[str, RunConfig], settings: ClaimsConfig, console: Console
) -> list[Finding]:
    """Check claims: measured ones on `families`, the others on the runs of `settings.comparison`.

    By default all that can be: without families none that is measured, of the others those whose methods were compared.
    What is in `settings.out` already is not measured again; its report keeps what earlier commands checked.

    Raises:
        UserError: if there is no such claim, a family has too few tasks for one, or no comparison has what one needs.
    """
    for name in names:
        if name not in CLAIMS:
            near = difflib.get_close_matches(name, CLAIMS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(CLAIMS)}."
            raise UserError(f"there is no claim {name!r}; {hint}")
    read = _read_claims(names, settings)  # what is missing there shows before anything is measured
    measured = [name for name in names or MEASURED if name in MEASURED]
    if not read and not families:
        raise UserError(
            f"no claim can be read from {', '.join(map(str, settings.comparison)) or 'nothing'}; name one, and what it "
            "lacks is said, or give --config for those that are measured."
        )
    scipy_stats()  # if it is missing, that shows before anything is measured
    findings: list[Finding] = []
    with alone(settings.out):
        _known(settings.out)  # what can't be read there shows before anything is measured
        for family, config in families.items():
            for name in measured:
                findings.append(_check(name, family, config, settings, console))
                _report(findings[-1:], settings.out, console)
        _report(read, settings.out, console)
    return findings + read


def _report(findings: Sequence[Finding], out: Path, console: Console) -> None:
    """Print findings, and put them in the place of those of the same claims and families in the report."""
    known = {_place(finding): finding for finding in _known(out)}
    for finding in findings:
        console.print(table(finding))
        known[_place(finding)] = finding
    with saving(out):
        write_whole(out / "claims.json", json.dumps([asdict(finding) for finding in known.values()], indent=1) + "\n")
        write_whole(out / "claims.md", "\n".join(line for finding in known.values() for line in markdown(finding)))


def _place(finding: Finding) -> tuple[str, str]:
    """What there is one finding of: a claim on a family, or on those that it can be told of together."""
    return finding.claim, TOGETHER if finding.family.startswith(TOGETHER) else finding.family


def _known(out: Path) -> list[Finding]:
    """What earlier commands checked."""
    file = out / "claims.json"
    try:
        return FINDINGS.validate_json(file.read_bytes()) if file.exists() else []
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read ({what_is_wrong(error)}); remove it, or give another --out.") from error


def _read_claims(names: Sequence[str], settings: ClaimsConfig) -> list[Finding]:
    """The claims that are read from comparisons, each from the first that has what it needs, on each of its families.

    Claims that were named must be there; by default, those are checked that are.
    """
    comparisons = {folder: _families(folder) for folder in settings.comparison}
    known = dict.fromkeys(one.family for of in comparisons.values() for one in of)
    for task in settings.tasks:
        if known and task not in known:
            raise UserError(f"no comparison that was given has a finished run on {task}; they have {', '.join(known)}.")
    if settings.tasks:
        wanted = set(settings.tasks)
        comparisons = {folder: [one for one in of if one.family in wanted] for folder, of in comparisons.items()}
    findings = []
    for name in [name for name in names or READ if name in READ]:
        claim = READ[name]
        able = {folder: [one for one in of if not claim.lacks(one)] for folder, of in comparisons.items()}
        folder = next((folder for folder in able if able[folder]), None)
        if folder is None and names:
            raise UserError(f"claim {name} {_missing(claim, comparisons)}")
        if folder is None:
            continue
        for compared in _with_all(able[folder]):
            finding = claim.judge(compared)
            findings.append(replace(finding, notes=[*finding.notes, f"read from {folder}"]))
        for one in comparisons[folder]:
            if lacks := claim.lacks(one):  # in the place of what an earlier command may have said
                findings.append(Finding(name, one.family, [], UNTOLD, f"{folder} lacks {lacks}"))
    return findings


def _families(folder: Path) -> list[Compared]:
    """The families of a comparison, each for itself."""
    runs, left_out = read_runs(folder)
    families = dict.fromkeys(family for family, _, _ in runs)
    return [Compared([family], runs, left_out) for family in families]


def _with_all(families: Sequence[Compared]) -> list[Compared]:
    """Families of a comparison, each for itself, and if there are several, all together."""
    if len(families) < 2:
        return [*families]
    runs = {key: kept for one in families for key, kept in one.runs.items()}
    left_out = {key: why for one in families for key, why in one.left_out.items()}
    return [*families, Compared([one.family for one in families], runs, left_out)]


def _missing(claim: Read, comparisons: Mapping[Path, Sequence[Compared]]) -> str:
    """What there is not to read a claim from, and the command that makes it."""
    makes = f"`firstfault compare --config recipes/{claim.recipe}.toml --out DIR`"
    if not comparisons:
        return f"is read from a comparison: give --comparison DIR; {makes} makes one."
    folder, families = next((folder, families) for folder, families in comparisons.items() if families)
    lacks = f"{claim.lacks(families[0])} on {families[0].family}"
    nor = ", nor has another comparison all that is needed" if len(comparisons) > 1 else ""
    same = "" if claim.apart else f" (DIR may be {folder} if it has the settings of that recipe)"
    return f"can't be read: {folder} lacks {lacks}{nor}; {makes} trains what is missing{same}."


def _check(name: str, family: str, config: RunConfig, settings: ClaimsConfig, console: Console) -> Finding:
    """Measure what is missing of a claim, and judge it."""
    claim = MEASURED[name]
    source = build_tasks(config.tasks)
    path = settings.out / f"{name}-{slug(family)}.jsonl"
    follows_from = _settings(claim, config, source)
    kept = RowsFile(path, follows_from, Measurement, "--out")
    if any(len(_found(kept, variant)) < settings.runs for variant in claim.variants):
        trained = settings.out / f"{name}-{slug(family)}-{digest(follows_from)}"
        config = config.model_copy(update={"run_dir": trained})
        agent = claim.policy(config, source, run_tools(config, source), console)
        asyncio.run(_measure(name, family, agent, source, kept, settings.runs, console))
    return claim.finding(family, *(_found(kept, variant) for variant in claim.variants))


async def _measure(
    name: str,
    family: str,
    agent: Agent,
    source: TaskSource,
    kept: RowsFile[Measurement],
    runs: int,
    console: Console,
) -> None:
    """Measure tasks until each variant has as many that the claim is about as are wanted."""
    variants = MEASURED[name].variants
    try:
        with progress(console) as bar:
            completed = sum(min(runs, len(_found(kept, variant))) for variant in variants)
            line = bar.add_task(f"{name}, {family}", total=runs * len(variants), completed=completed, unit="tasks")
            for variant, measure in variants.items():
                while (done := len(_found(kept, variant))) < runs:
                    number = sum(row.variant == variant for row in kept.rows)
                    if number >= TRIED * runs:
                        fewer = f"ask for fewer with --runs {done}, or " if done else ""
                        raise UserError(
                            f"claim {name} on {family}: of {number} tasks only {done} are such as it is about; "
                            f"{fewer}start from a weaker policy."
                        )
                    [task] = source.train(seed=SEED, first=number, n=1)
                    row = await measure(Subject(agent, source, family, task, (SEED, 0, number)))
                    kept.add([Measurement(number, variant, row)])
                    bar.advance(line, row is not None)
    finally:
        await agent.session.close()
        await source.close()


def _found(kept: RowsFile[Measurement], variant: str) -> list[Row]:
    """What was measured on the tasks that a claim is about."""
    return [row.measured for row in kept.rows if row.variant == variant and row.measured is not None]


def _settings(claim: Measured, config: RunConfig, source: TaskSource) -> dict[str, Any]:
    """What the rows of a file follow from, its first line."""
    settings = local_settings(config, source)
    if claim.trains:
        names = {"seed", "steps", "batch", "budget", "learner", "optimizer"}
        settings |= config.model_dump(mode="json", include=names)
    return settings


def table(finding: Finding) -> Table:
    shown = Table("", "here, 95 % interval", "n", "the paper", title=escape(f"{finding.claim}, {finding.family}"))
    for figure in finding.figures:
        shown.add_row(escape(figure.name), escape(str(figure)), str(figure.n), figure.paper)
    shown.caption = escape("\n".join([f"{finding.verdict}: {finding.why}", *finding.notes]))
    return shown


def markdown(finding: Finding) -> list[str]:
    lines = [
        f"### {finding.claim}, {finding.family}: {finding.verdict}",
        "",
        f"{finding.why}.",
        "",
    ]
    lines += ["| | here, 95 % interval | n | the paper |", "|---|---|---|---|"]
    for f in finding.figures:
        lines.append(f"| {f.name} | {f} | {f.n} | {f.paper} |")
    return [*lines, "", *(f"{note[:1].upper()}{note[1:]}.\n" for note in finding.notes)]
