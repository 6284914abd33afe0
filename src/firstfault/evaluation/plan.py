"""What a comparison trains: methods, task families, seeds, budget; and the cells that follow from them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from firstfault.config import RunConfig, Settings, between_commas, merge, read_recipe, validated
from firstfault.errors import UserError
from firstfault.files import hash_of
from firstfault.policy import weights
from firstfault.training.build import build_method, build_tasks
from firstfault.training.validate import held_out

TUNE_SEEDS = 1000  # learning rates are tuned with seeds from here on, which no comparison comes to
OWN = ("method", "tasks", "seed", "run_dir", "budget")  # settings of a run that the comparison sets itself


class CompareConfig(Settings):
    """The settings of `firstfault compare`."""

    methods: list[str] = Field(
        [],
        description="NAME, NAME:OPTION=VALUE:..., or LABEL=NAME:..., with commas between; NAME may be file.py:Class; "
        "by default those of the recipe's [methods]",
    )
    tasks: list[str] = Field(
        [], description="task families, with commas between; by default those of the recipe's [families]"
    )
    budget: str = Field(
        "rollouts=16", description="rollouts=N per task; or tokens=N or calls=N, generated or made per iteration"
    )
    seeds: int = Field(
        5, ge=1, le=TUNE_SEEDS, description="runs of each method on each family, of the same seeds for all"
    )
    first_seed: int = Field(
        0, ge=0, description="the first of them; another one, with another --out, to test what was seen on seeds before"
    )
    against: str = Field(
        "", description="the one method that all others are compared with; by default all pairs are, which tells less"
    )
    lr_grid: list[float] = Field(
        [1.0], description="multiples of the learning rate to choose from, for each method, with commas between"
    )
    tune_seeds: int = Field(1, ge=1, description="runs of each multiple, apart from those that are compared")
    out: Path = Field(Path("runs/compare"), description="where everything goes; finished runs there are kept")
    jobs: int = Field(0, ge=0, description="runs side by side; 0: as many as there are cores (on a GPU, one)")
    keep_trees: bool = Field(False, description="keep rollout trees and checkpoints of finished runs")

    _listed = field_validator("methods", "tasks", "lr_grid", mode="before")(between_commas)

    @field_validator("lr_grid")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if not value or min(value) <= 0 or len({f"{multiple:g}" for multiple in value}) < len(value):
            raise ValueError("give multiples above 0, each once, such as 0.5,1,2")
        return value

    @model_validator(mode="after")
    def _apart_from_tuning(self) -> CompareConfig:
        if self.first_seed + self.seeds > TUNE_SEEDS:
            raise ValueError(f"seeds from {TUNE_SEEDS} on tune learning rates; let first_seed + seeds end before them")
        return self


@dataclass(frozen=True)
class Budget:
    """What is the same for all methods: rollouts per task, or generated tokens or tool calls per iteration."""

    kind: Literal["rollouts", "tokens", "calls"]
    amount: int

    @classmethod
    def parse(cls, text: str) -> Budget:
        match = re.fullmatch(r"(rollouts|tokens|calls)=(\d+)", text.strip().replace("_", ""))
        if not match or not int(match[2]):
            raise UserError(f"budget {text!r}: give rollouts=N, tokens=N or calls=N, such as rollouts=16.")
        return cls(match[1], int(match[2]))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.amount:,} " + {
            "rollouts": "rollouts per task",
            "tokens": "generated tokens per iteration",
            "calls": "tool calls per iteration",
        }[self.kind]  # fmt: skip


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """A label and a table of a method, from how they are written in one word.

    The label is what stands before a `=` in front of the first colon, or else all of it. Options follow the name (or
    `file.py:Class`), each after a colon; one that is given twice is a list.

    >>> parse_method("grpo")
    ('grpo', {'name': 'grpo'})
    >>> parse_method("elpo:search=posterior")
    ('elpo:search=posterior', {'name': 'elpo', 'search': 'posterior'})
    >>> parse_method("mine=my_method.py:Mine:clip_low=0.1")
    ('mine', {'name': 'my_method.py:Mine', 'clip_low': '0.1'})
    """
    match = re.fullmatch(r"(?:([^:=]+)=)?([^:=]+\.py:\w+|[^:=]+)((?::\w[\w-]*=[^:]*)*)", text)
    if not match:
        raise UserError(
            f"method {text!r}: give NAME, NAME:OPTION=VALUE:OPTION=VALUE or LABEL=NAME:..., where NAME may be "
            "file.py:Class; what can't be written so goes into a table [methods.LABEL] of a recipe."
        )
    label, name, options = match.groups()
    table: dict[str, Any] = {"name": name}
    for option in options.split(":")[1:]:
        key, _, value = option.partition("=")
        key = key.replace("-", "_")
        earlier = table.get(key, [])
        table[key] = [*(earlier if isinstance(earlier, list) else [earlier]), value] if key in table else value
    return label or text.rpartition("/")[2], table


@dataclass(frozen=True)
class Cell:
    """One training run. `multiple` is that of the learning rate; `tunes` says that it only helps to choose one.

    `start` is the folder of the policy that it starts from, where that is taught; `files` are those that its settings
    name (see `files_of`), `code` a hash of the package (see `own_code`).
    """

    family: str
    method: str
    multiple: float
    seed: int
    config: RunConfig
    start: Path
    files: dict[str, str]
    code: str

    @property
    def tunes(self) -> bool:
        return self.seed >= TUNE_SEEDS

    @property
    def folder(self) -> Path:
        return self.config.run_dir

    def __str__(self) -> str:
        rate = "" if self.multiple == 1 else f", learning rate x {self.multiple:g}"
        return f"{self.method} on {self.family}, seed {self.seed}{rate}"


class Plan:
    """All that a comparison is to do.

    Args:
        config: the settings of the comparison.
        shared: the settings of all runs.
        recipe: may have tables `families` and `methods`, by label: what differs by family, and methods with options.

    Raises:
        UserError: if anything can't be had, before any run starts.
    """

    def __init__(self, config: CompareConfig, shared: Mapping[str, Any], recipe: Mapping[str, Any]):
        self.config = config
        self.budget = Budget.parse(config.budget)
        self.methods = _methods(config.methods, recipe.get("methods", {}), self.budget)
        self.families = {
            label: self._family(label, shared, table)
            for label, table in _families(config.tasks, recipe.get("families", {})).items()
        }
        if config.against and config.against not in self.methods:
            raise UserError(f"against = {config.against!r} is not compared; choose of {', '.join(self.methods)}.")
        _apart([*self.methods], "methods")
        _apart([*self.families], "task families")
        for label, family in self.families.items():
            self._check(label, family)

    def _family(self, label: str, shared: Mapping[str, Any], table: Mapping[str, Any]) -> RunConfig:
        config = family_config(label, shared, table)
        # the same number of updates for all methods
        parts = config.learner.parts or -(-config.batch // config.learner.mini_batch)
        bound = {} if self.budget.kind == "rollouts" else {self.budget.kind: self.budget.amount}
        given = config.evaluation.model_fields_set
        seen = {} if "every" in given else {"every": max(1, config.steps // 4)}  # for curves
        own = {"learner": {"parts": parts}, "budget": bound, "evaluation": seen}
        return validated(RunConfig, merge(config.model_dump(), own), f"settings of {label}")

    def _check(self, label: str, family: RunConfig) -> None:
        wanted = family.evaluation
        if not family.steps or not wanted.problems:
            raise UserError(f"{label}: a comparison needs steps and evaluation.problems of 1 at least.")
        last = wanted if len(self.config.lr_grid) == 1 else self._validation(family).evaluation
        found = len(held_out(build_tasks(family.tasks), last))
        if found < last.problems:
            raise UserError(
                f"{label} has {last.first + found} held-out tasks, and {last.first + last.problems} are wanted: "
                f"{wanted.problems} to test on{' and as many to tune on' * (last is not wanted)}; lower "
                "evaluation.problems."
            )

    @staticmethod
    def _validation(family: RunConfig) -> RunConfig:
        """Evaluated on the tasks after those of the test, before and after."""
        split = {"first": family.evaluation.first + family.evaluation.problems, "every": 0}
        return validated(RunConfig, merge(family.model_dump(), {"evaluation": split}), "settings")

    def cell(self, family: str, method: str, multiple: float, seed: int) -> Cell:
        base = self.families[family]
        base = base if seed < TUNE_SEEDS else self._validation(base)
        folder = self.config.out / "cells" / slug(family) / slug(method) / f"lr-{multiple:g}" / f"seed-{seed}"
        rates = {name: multiple * getattr(base.optimizer, name) for name in ("lr", "muon_lr")}
        own = {"method": self.methods[method], "seed": seed, "run_dir": folder, "optimizer": rates}
        config = validated(RunConfig, merge(base.model_dump(), own), str(folder))
        files = files_of(config.model_dump())
        return Cell(family, method, multiple, seed, config, self.start(family), files, own_code())

    def start(self, family: str) -> Path:
        """Where the comparison keeps what the runs of a family start from."""
        return self.config.out / "starts" / slug(family)

    def tuning(self) -> list[Cell]:
        """The runs that learning rates are chosen by; none where there is nothing to choose."""
        if len(self.config.lr_grid) == 1:
            return []
        return [
            self.cell(family, method, multiple, TUNE_SEEDS + seed)
            for seed in range(self.config.tune_seeds)
            for family in self.families
            for method in self.methods
            for multiple in self.config.lr_grid
        ]

    def compared(self, chosen: Mapping[tuple[str, str], float]) -> list[Cell]:
        """The runs to compare, seed by seed, of all families and methods for which a learning rate is known."""
        return [
            self.cell(family, method, chosen[family, method], seed)
            for seed in range(self.config.first_seed, self.config.first_seed + self.config.seeds)
            for family in self.families
            for method in self.methods
            if (family, method) in chosen
        ]

    def settings(self) -> dict[str, Any]:
        """What must stay the same in a folder: others would not be comparable with what is there.

        Those of families and methods stand under their labels, with dots between the keys.
        """
        families, methods = {}, {}
        for label, family in self.families.items():
            values = family.model_dump(mode="json", exclude={"run_dir", "seed", "method", "threads", "device", "tasks"})
            tasks = {"name": family.tasks["name"], **build_tasks(family.tasks).model_dump(mode="json")}
            values |= {"tasks": tasks}
            families[label] = flat({**values, "files": files_of(values)})
        for label, table in self.methods.items():
            options = all_options(table)
            methods[label] = flat({**options, "files": files_of(options)})
        return {
            "budget": self.config.budget,
            "lr_grid": self.config.lr_grid,
            "tune_seeds": self.config.tune_seeds,
            "families": families,
            "methods": methods,
        }


def all_options(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a method with all its options, also those that are None, which TOML can't tell."""
    return {"name": table["name"], **build_method(table).model_dump(mode="json")}


def family_config(label: str, shared: Mapping[str, Any], table: Mapping[str, Any]) -> RunConfig:
    """The settings of runs on a family: what all share, and what differs for this one."""
    values = merge(merge({"threads": 1, "tasks": {"name": label}}, shared), table)
    return validated(RunConfig, values, f"settings of {label}")


def read_families(path: Path | None, given: Sequence[str], shared: Mapping[str, Any]) -> dict[str, RunConfig]:
    """The families of a recipe of a comparison, or those of them that were given, with their settings."""
    recipe = _read(path)
    wanted = given or between_commas(recipe.get("compare", {}).get("tasks", []))
    tables = _families(wanted, recipe.get("families", {}))
    return {label: family_config(label, _shared(recipe, shared), table) for label, table in tables.items()}


def read_plan(path: Path | None, flags: Mapping[str, Any], shared: Mapping[str, Any]) -> Plan:
    """The recipe of a comparison, if any, with flags over it.

    A recipe is one of a training run, with [compare] for the settings of the comparison, [families.LABEL] for what
    differs by family, and [methods.LABEL] for methods.
    """
    recipe = _read(path)
    where = f"{path} and flags" if path else "settings"
    config = validated(CompareConfig, merge(recipe.get("compare", {}), flags), where)
    return Plan(config, _shared(recipe, shared), recipe)


def _shared(recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all runs."""
    common = {key: value for key, value in recipe.items() if key not in ("compare", "families", "methods")}
    for name in OWN:
        if name in common or name in flags:
            raise UserError(f"{name} is not a setting of comparisons and claims, which say it; leave it out.")
    return merge(common, flags)


def _read(path: Path | None) -> dict[str, Any]:
    """The recipe, if any, whose tables are tables."""
    recipe = read_recipe(path) if path else {}
    for name in ("compare", "families", "methods"):
        table = recipe.get(name, {})
        if not isinstance(table, Mapping):
            raise UserError(f"{path}: {name} = {table!r} is no table; write [{name}].")
        for label, inner in table.items():
            if name != "compare" and not isinstance(inner, Mapping):
                raise UserError(f"{path}: {name}.{label} = {inner!r} is no table; write [{name}.{label}].")
    return recipe


def _methods(given: Sequence[str], tables: Mapping[str, Any], budget: Budget) -> dict[str, dict[str, Any]]:
    """Tables by label, complete with all options, of the methods that were given, or else of all in the recipe."""
    known = {label: {"name": label, **table} for label, table in tables.items()}
    for label, table in known.items():
        if not isinstance(table["name"], str):
            raise UserError(f"[methods.{label}] has name = {table['name']!r}; give the name of a method in quotes.")
    chosen = [(text, known[text]) if text in known else parse_method(text) for text in given] or [*known.items()]
    if len(chosen) < 2:
        raise UserError("a comparison needs two methods at least; give --methods, such as --methods grpo,elpo.")
    methods: dict[str, dict[str, Any]] = {}
    for label, table in chosen:
        if label in methods:
            raise UserError(f"method {label} is named twice; name it once, or give one a label: LABEL={label}.")
        if budget.kind == "rollouts":
            if "rollouts" in table:
                raise UserError(f"method {label}: rollouts are what the budget says for all; leave them out there.")
            table = {**table, "rollouts": budget.amount}
        table = {"reward": "judge", **table}  # the same for all, whatever each was published with
        methods[label] = {"name": table["name"], **build_method(table).model_dump(mode="json", exclude_none=True)}
    return methods


def _families(given: Sequence[str], tables: Mapping[str, Any]) -> dict[str, Any]:
    """What differs by family, of those that were given, or else of all in the recipe."""
    wanted = list(given) or list(tables)
    if not wanted:
        raise UserError("there are no tasks; give --tasks, such as --tasks arithmetic,lore.")
    twice = next((label for label in wanted if wanted.count(label) > 1), None)
    if twice is not None:
        raise UserError(f"the task family {twice} is named twice; name it once.")
    for label in wanted:
        table = tables.get(label, {})
        own = next((name for name in OWN if name != "tasks" and name in table), None)
        if own:
            raise UserError(f"[families.{label}] has {own}, which is the comparison's to say; leave it out.")
    return {label: tables.get(label, {}) for label in wanted}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A table of tables as one, with dots between the keys.

    >>> flat({"agent": {"max_steps": 4}, "steps": 2})
    {'agent.max_steps': 4, 'steps': 2}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def files_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of the files that settings name: code of methods, tasks and tools, rows, corpora, weights."""
    values = [text for value in flat(settings).values() for text in (value if isinstance(value, list) else [value])]
    names = [text.rpartition(":")[0] if ".py:" in text else text for text in values if isinstance(text, str)]
    model = settings.get("model", "tiny")
    if model != "tiny":
        names += map(str, weights(model))
    return {name: hash_of(name) for name in sorted(names) if os.path.isfile(name)}


@functools.cache
def own_code() -> str:
    """A hash of this package's sources, as they are when it is first asked for."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in sorted(file.relative_to(package).as_posix() for file in package.rglob("*.py")):
        digest.update(f"{name}\0".encode() + (package / name).read_bytes())
    return digest.hexdigest()[:12]


def slug(label: str) -> str:
    """A label as the name of a folder."""
    return re.sub(r"[^\w.=-]+", "_", label)


def _apart(labels: Sequence[str], what: str) -> None:
    folders = [slug(label) for label in labels]
    for label, folder in zip(labels, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"{what}: {label} and another would share the folder {folder}; give one another label.")
