"""`firstfault compare`: train what is missing of a comparison, and say what follows from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from firstfault.errors import UserError, what_is_wrong
from firstfault.evaluation.cells import CellError, fail, failure, in_process, keep, result, teach, tidy, train_cell
from firstfault.evaluation.plan import Cell, Plan, all_options, flat, slug
from firstfault.evaluation.results import results
from firstfault.evaluation.statistics import scipy_stats
from firstfault.files import alone, saving, write_whole
from firstfault.policy import pick_device
from firstfault.progress import LONG, progress


class FolderSettings(BaseModel):
    """`settings.json`: what the runs of a folder were made with, as far as it is there (see `Plan.settings`)."""

    model_config = ConfigDict(extra="forbid")
    budget: str = ""
    lr_grid: list[float] = []
    tune_seeds: int = 0
    families: dict[str, dict[str, Any]] = {}
    methods: dict[str, dict[str, Any]] = {}


class Comparison:
    """A comparison in its folder. `failures` has what went wrong with runs of this time, by their names."""

    def __init__(self, plan: Plan, console: Console):
        scipy_stats()
        self.plan = plan
        self.console = console
        self.failures: dict[str, str] = {}
        on_cpu = all(pick_device(family.device) == "cpu" for family in plan.families.values())
        self.jobs = plan.config.jobs or (_cores() if on_cpu else 1)
        self._running: set[BaseProcess] = set()
        self._stopping = False

    def run(self) -> None:
        """Train what is missing. What fails does not stop the others; it is tried again the next time."""
        plan = self.plan
        with alone(self.plan.config.out):
            self._check_same()
            waiting = [cell for cell in (*plan.tuning(), *plan.compared(self.chosen())) if result(cell) is None]
            taught = [cell for cell in waiting if cell.config.model == "tiny" and not cell.start.exists()]
            families = dict.fromkeys(cell.family for cell in taught)
            self._all("cold starts", [(_cold_start(family), partial(self._teach, family)) for family in families])
            self._cells("tuning runs", plan.tuning())
            self._cells("runs", plan.compared(self.chosen()))

    def chosen(self) -> dict[tuple[str, str], float]:
        """The multiple of the learning rate for each family and method: the best on the validation split.

        The smaller one of equals. A multiple of which a trial failed is not chosen: what is left is what went well.
        """
        plan = self.plan
        if len(plan.config.lr_grid) == 1:
            return {(family, method): plan.config.lr_grid[0] for family in plan.families for method in plan.methods}
        found: dict[tuple[str, str], dict[float, list[float]]] = {}
        for kept in self.trials():
            by_multiple = found.setdefault((kept["family"], kept["method"]), {})
            by_multiple.setdefault(kept["multiple"], []).append(kept["evaluations"][-1]["sampled"])
        able = {
            key: {multiple: np.mean(of) for multiple, of in scores.items() if len(of) == plan.config.tune_seeds}
            for key, scores in found.items()
        }
        return {key: max(sorted(means), key=means.__getitem__) for key, means in able.items() if means}

    def trials(self) -> list[dict[str, Any]]:
        return [kept for cell in self.plan.tuning() if (kept := result(cell))]

    def results(self) -> dict[str, Any]:
        """What is known by now, as `results.json` has it.

        Raises:
            UserError: if no run has finished.
        """
        plan = self.plan
        chosen = self.chosen()
        cells = plan.compared(chosen)
        finished = [kept for cell in cells if (kept := result(cell))]
        failures = self.failures | {str(cell): why for cell in cells if (why := failure(cell))}
        failed = {
            (cell.family, cell.method) for cell in cells if {str(cell), _cold_start(cell.family)} & failures.keys()
        }
        if not finished:
            first = next(iter(failures.items()), None)
            raise UserError(
                f"{plan.config.out} has no finished run to report on" + (f"; {first[0]}: {first[1]}" if first else ".")
            )
        return {
            "title": f"{', '.join(plan.methods)} on {', '.join(plan.families)}",
            "budget": str(plan.budget),
            "seeds": plan.config.seeds,
            "first_seed": plan.config.first_seed,
            "against": plan.config.against,
            "lr_grid": plan.config.lr_grid,
            "tune_seeds": plan.config.tune_seeds,
            "chosen": [
                {"family": family, "method": method, "multiple": multiple}
                for (family, method), multiple in chosen.items()
            ],
            "trials": [_trial(kept) for kept in self.trials()],
            "failures": failures,
            "rewards": {label: table["reward"] for label, table in plan.methods.items()},
            "wanted": len(cells),
            **results(finished, list(plan.families), list(plan.methods), failed, plan.config.against),
            "settings": plan.settings(),
        }

    def _cells(self, title: str, cells: Sequence[Cell]) -> None:
        waiting, finished = [], 0
        for cell in cells:
            kept = result(cell)
            if kept and not kept.get("keeps_trees"):
                tidy(cell)  # an earlier command may have been stopped in between
            if _cold_start(cell.family) in self.failures:
                continue
            if kept:
                finished += 1
            else:
                waiting.append((str(cell), partial(self._train, cell)))
        self._all(title, waiting, finished)

    def _train(self, cell: Cell) -> None:
        try:
            in_process(train_cell, cell, cell.folder, self._started)
            keep(cell, self.plan.budget, trees=self.plan.config.keep_trees)
        except CellError as error:
            if not self._stopping:
                fail(cell, str(error))
            raise

    def _teach(self, family: str) -> None:
        asked = self.plan.families[family], self.plan.start(family)
        in_process(teach, asked, self.plan.config.out / "cold" / slug(family), self._started)

    def _all(self, title: str, work: Sequence[tuple[str, Callable[[], None]]], before: int = 0) -> None:
        """Do it side by side, in order."""
        if not work:
            return
        with progress(self.console, over=LONG) as bar, ThreadPoolExecutor(self.jobs) as pool:
            row = bar.add_task(title, total=before + len(work), completed=before, unit="runs")
            futures = {pool.submit(task): name for name, task in work}
            try:
                for future in as_completed(futures):
                    try:
                        future.result()
                    except (CellError, UserError) as error:
                        self.failures[futures[future]] = str(error)
                        bar.console.print(f"{futures[future]}: {error}", style="red", markup=False, highlight=False)
                    bar.advance(row)
            except BaseException:
                self._stopping = True
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self._running):
                    process.terminate()
                raise

    def _started(self, process: BaseProcess) -> None:
        self._running.add(process)
        if self._stopping:  # what a run has saved stands; it goes on from there the next time
            process.terminate()

    def _check_same(self) -> None:
        """Refuse a folder of a comparison with other settings; more methods, families and seeds are welcome.

        So are other settings of a method or a family that has no finished run yet: what it has begun is dropped.
        """
        out = self.plan.config.out
        settings = json.loads(json.dumps(self.plan.settings()))
        known = _known(out / "settings.json")
        if change := _change(known, {name: settings[name] for name in ("budget", "lr_grid", "tune_seeds")}):
            self._refuse(*change)
        changed = {
            (kind, label): change
            for kind in ("families", "methods")
            for label, table in settings[kind].items()
            if (change := _change(known.get(kind, {}).get(label, {}), table, f"{kind}.{label}."))
        }
        begun: list[Path] = []
        for (kind, label), change in changed.items():
            runs = f"cells/{slug(label)}/*" if kind == "families" else f"cells/*/{slug(label)}"
            if any(out.glob(f"{runs}/lr-*/seed-*/cell.json")):  # asked for now or not
                self._refuse(*change)
            begun += out.glob(runs)
            begun += [out / "starts" / slug(label), out / "cold" / slug(label)] if kind == "families" else []
        for cell in (*self.plan.tuning(), *self.plan.compared(self.chosen())):
            if kept := result(cell):
                config = cell.config.model_dump(mode="json", exclude={"run_dir", "threads", "device"})
                if change := _change(_told(kept["config"], kept.get("files", {})), _told(config, cell.files)):
                    self._refuse(*change)
        for folder in begun:
            shutil.rmtree(folder, ignore_errors=True)
        for kind in ("families", "methods"):
            settings[kind] = known.get(kind, {}) | settings[kind]
        with saving(out):
            write_whole(out / "settings.json", json.dumps(settings, indent=1))

    def _refuse(self, key: str, known: Any, wanted: Any) -> None:
        what = f"{key} = {known}, not {wanted}"
        if "files." in key:
            what = f"another {key.rpartition('files.')[2]}"
        raise UserError(
            f"{self.plan.config.out} holds a comparison with {what}; give another folder with --out, the settings that "
            "it was started with, or of a method another label (LABEL=NAME)."
        )


def _known(file: Path) -> dict[str, Any]:
    try:
        known = FolderSettings.model_validate_json(file.read_bytes()) if file.exists() else FolderSettings()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} can't be read ({what_is_wrong(error)}); remove it if the runs beside it are to be kept."
        ) from error
    return known.model_dump(exclude_unset=True)


def _told(config: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a run that another one is to share, with dots between the keys."""
    return flat({**config, "method": all_options(config["method"]), "files": files})


def _change(known: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> tuple[str, Any, Any] | None:
    """The first setting that is known and not what is wanted: its name, what is known, what is wanted."""
    changed = (key for key in wanted if known.get(key, wanted[key]) != wanted[key])
    return next(((prefix + key, known[key], wanted[key]) for key in changed), None)


def _cold_start(family: str) -> str:
    return f"cold start of {family}"


def _trial(kept: dict[str, Any]) -> dict[str, Any]:
    names = ("family", "method", "multiple", "seed")
    return {**{name: kept[name] for name in names}, "sampled": kept["evaluations"][-1]["sampled"]}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
