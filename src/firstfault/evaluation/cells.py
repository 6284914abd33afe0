"""One training run of a comparison: in a process of its own, resumable, and what is kept of it."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.console import Console

from firstfault import __version__
from firstfault.config import RunConfig
from firstfault.errors import UserError, what_is_wrong
from firstfault.evaluation.plan import Budget, Cell, files_of
from firstfault.files import saving, whole, write_whole
from firstfault.policy import use_threads
from firstfault.run_folder import EvaluationRecord, MetricsRow, RunFolder
from firstfault.training.build import build_method, build_tasks, run_tools
from firstfault.training.cold_start import start_model
from firstfault.training.loop import Trainer

INTERRUPTED = 130  # the exit code of a run that was
FAILED = "failed.txt"  # in the folder of a run: what went wrong
TOLERANCE = 1.1  # what an iteration takes is known after it only, so budgets of tokens and calls can't be kept exactly

# runs are forked from a process that has imported everything and computed nothing
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
# who starts a process also looks which others have ended; of two that look at once, one would not learn how
ONE_AT_A_TIME = threading.Lock()


class CellError(Exception):
    """A run that ended without a result, with the last thing that it said."""


def train_cell(cell: Cell) -> None:
    """Train to the end, from the newest checkpoint if there is one."""
    config = cell.config
    folder = RunFolder(cell.folder)
    if not folder.checkpoints():  # a finished run whose result was removed, for it to be made again
        folder.rewind(0)
    Trainer(
        config,
        build_tasks(config.tasks),
        build_method(config.method),
        start=cell.start if config.model == "tiny" else None,
        resume=True,
        console=Console(file=sys.stderr, width=120),
    ).train()


def teach(asked: tuple[RunConfig, Path]) -> None:
    """The cold start of a family, into the folder of the comparison if it is not there.

    The same settings teach another policy on another machine: what differs in the last bits grows.
    """
    config, start = asked
    if start.exists():
        return
    use_threads(config.threads)
    source = build_tasks(config.tasks)
    taught = start_model(config, source, Console(file=sys.stderr, width=120), run_tools(config, source))
    with saving(start), whole(start) as partial:
        shutil.copytree(taught, partial)


def in_process(work: Callable[[Any], None], argument: Any, folder: Path, started: Callable[[Any], None]) -> None:
    """Do it in a process of its own, whose output goes to `folder/log.txt`; `started` hears of the process.

    One that an earlier command left behind at work in the same folder is waited for.

    Raises:
        CellError: if it fails.
        KeyboardInterrupt: if it was interrupted.
    """
    log = folder / "log.txt"
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(log, "")
    process = PROCESSES.Process(target=_child, args=(work, argument, folder, os.getcwd(), dict(os.environ)))
    with ONE_AT_A_TIME:
        _start(process)
    started(process)
    connection.wait([process.sentinel])
    with ONE_AT_A_TIME:
        process.join()
    if process.exitcode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.exitcode:
        lines = log.read_text(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        how = f"signal {-process.exitcode}" if process.exitcode < 0 else f"exit code {process.exitcode}"
        raise CellError(f"{how}: {said[:400]} ({log})")


def _start(process: BaseProcess) -> None:
    """The first one starts the server of processes, which is not to be interrupted while it imports."""
    resource_tracker.ensure_running()  # it would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _child(work: Callable[[Any], None], argument: Any, folder: Path, here: str, environment: dict[str, str]) -> None:
    os.chdir(here)  # the process that this one was forked from may be elsewhere, with another environment
    os.environ.clear()
    os.environ.update(environment)
    with open(folder / "log.txt", "a") as log, open(folder / "log.lock", "w") as lock:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            work(argument)
        except UserError as error:
            print(f"firstfault: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


@dataclass(frozen=True)
class Spend:
    """What the training of a run took; evaluations don't count."""

    rollouts: float
    generated_tokens: float
    tool_calls: float
    updates: float
    skipped_updates: float
    seconds: float

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Spend:
        names = ("rollouts", "generated_tokens", "tool_calls", "updates", "skipped_updates")
        total = {name: sum(row.get(name, 0) for row in rows) for name in names}
        return cls(**total, seconds=sum(row["seconds_explore"] + row["seconds_update"] for row in rows))


def audit(spend: Spend, budget: Budget, iterations: int, batch: int) -> tuple[float, str]:
    """The share of its budget that a run has spent; and what it spent, if that is too much.

    Rollouts are counted to the last one, tokens and calls may be 10 % more.

    >>> spend = Spend(rollouts=33, generated_tokens=900, tool_calls=40, updates=4, skipped_updates=0, seconds=1.0)
    >>> audit(spend, Budget("rollouts", 4), iterations=2, batch=4)
    (1.03125, '33 rollouts, 32 allowed')
    >>> audit(spend, Budget("tokens", 440), iterations=2, batch=4)[1]
    ''
    """
    name = {"rollouts": "rollouts", "tokens": "generated_tokens", "calls": "tool_calls"}[budget.kind]
    allowed = budget.amount * iterations * (batch if budget.kind == "rollouts" else 1)
    share = getattr(spend, name) / allowed
    if share <= (1 if budget.kind == "rollouts" else TOLERANCE):
        return share, ""
    return share, f"{getattr(spend, name):,.0f} {name.replace('_', ' ')}, {allowed:,} allowed"


class Evaluation(EvaluationRecord):
    """An evaluation of a run, with what had been spent by then."""

    sampled: float
    greedy: float
    calls_per_run: float
    spent: Spend


class Finished(BaseModel):
    """What `cell.json` holds of a finished run."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    family: str
    method: str
    multiple: float
    seed: int
    tunes: bool
    lr: float
    spend: Spend
    budget_share: float
    overspent: str
    evaluations: list[Evaluation] = Field(min_length=1)
    iterations: list[MetricsRow] = Field(min_length=1)
    firstfault: str
    code: str = ""
    config: dict[str, Any]
    files: dict[str, str] = {}

    @model_validator(mode="after")
    def _whole(self) -> Finished:
        """What `keep` and training see to."""
        spent = [{"iteration": record.iteration, **asdict(record.spent)} for record in self.evaluations]
        if any(spent[0].values()) or self.evaluations[-1].iteration != len(self.iterations):
            raise ValueError("there is no evaluation before all iterations, or none after them")
        if any(earlier[name] > later[name] for earlier, later in pairwise(spent) for name in earlier):
            raise ValueError("the evaluations do not stand in the order in which they were made")
        outcomes = [record.outcomes for record in self.evaluations]
        problems = {len(success) for each in outcomes for success in each.values()}
        if len(problems) != 1 or 0 in problems or not all("sampled" in each for each in outcomes):
            raise ValueError("the evaluations are not of the same problems")
        return self


def result(cell: Cell) -> dict[str, Any] | None:
    """What is kept of a finished run."""
    file = cell.folder / "cell.json"
    return read_cell(file) if file.exists() else None


def read_cell(file: Path) -> dict[str, Any]:
    """What a `cell.json` holds.

    Raises:
        UserError: if it can't be read, or is none.
    """
    try:
        text = file.read_text(encoding="utf-8")
        Finished.model_validate_json(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is no finished run ({what_is_wrong(error)}); remove it, and it is made again."
        ) from error
    return json.loads(text)


def keep(cell: Cell, budget: Budget, *, trees: bool) -> None:
    """Extract what a report needs from a finished run into `cell.json`, and drop its trees and checkpoints.

    Raises:
        CellError: if the run is not complete, or a file that its settings name has changed since the comparison began.
    """
    folder, config = RunFolder(cell.folder), cell.config
    rows, evaluations = folder.read_metrics(), folder.read_evaluation()
    if len(rows) != config.steps or not evaluations or evaluations[-1]["iteration"] != config.steps:
        raise CellError(f"it left {len(rows)} of {config.steps} iterations, or no evaluation after them")
    files = files_of(config.model_dump())
    changed = next((name for name, known in cell.files.items() if files.get(name) != known), None)
    if changed:
        raise CellError(f"{changed} was changed since the comparison began")
    spend = Spend.of(rows)
    share, overspent = audit(spend, budget, config.steps, config.batch)
    kept = {
        "family": cell.family,
        "method": cell.method,
        "multiple": cell.multiple,
        "seed": cell.seed,
        "tunes": cell.tunes,
        "lr": config.optimizer.lr if config.optimizer.name == "adamw" else config.optimizer.muon_lr,
        "spend": asdict(spend),
        "budget_share": share,
        "overspent": overspent,
        "evaluations": [{**record, "spent": asdict(Spend.of(_until(rows, record)))} for record in evaluations],
        "iterations": rows,
        "firstfault": __version__,
        "code": cell.code,
        "keeps_trees": trees,
        "config": config.model_dump(mode="json", exclude={"run_dir"}),  # which differs by machine
        "files": cell.files,
    }
    with saving(cell.folder):
        write_whole(cell.folder / "cell.json", json.dumps(kept))
        (cell.folder / FAILED).unlink(missing_ok=True)
    if not trees:
        tidy(cell)


def fail(cell: Cell, why: str) -> None:
    """Remember that a run failed, for later commands; `keep` forgets it."""
    with saving(cell.folder):
        write_whole(cell.folder / FAILED, why)


def failure(cell: Cell) -> str | None:
    """Why a run failed, if it did and has not finished since."""
    file = cell.folder / FAILED
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else None


def tidy(cell: Cell) -> None:
    """Drop what a finished run needs no more."""
    for name in ("trees", "checkpoints"):
        shutil.rmtree(cell.folder / name, ignore_errors=True)


def _until(rows: list[dict[str, Any]], record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [row for row in rows if row["iteration"] <= record["iteration"]]
