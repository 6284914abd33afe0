"""The folder of a training run: what lies where, and how it is written and read."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from firstfault.config import RunConfig, to_toml
from firstfault.errors import UserError, what_is_wrong
from firstfault.files import saving, write_whole

T = TypeVar("T")

# what may differ when a run goes on; another optimizer is refused where its state is loaded
CHANGEABLE = {"run_dir", "steps", "checkpoint_every", "evaluation", "tracker", "threads", "device", "optimizer"}


# earlier versions wrote some shares of 0 and 1 as false and true
Number = Annotated[float, BeforeValidator(lambda value: float(value) if isinstance(value, bool) else value)]


class MetricsRow(BaseModel):
    """The metrics of an iteration, in a line of `metrics.jsonl`."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Number]
    iteration: int = Field(ge=1, lt=10**9)


class EvaluationRecord(BaseModel):
    """An evaluation, in `evaluation.json`: numbers, of which some have the ends of their interval beside them."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, float]
    iteration: int = Field(ge=0, lt=10**9)
    outcomes: dict[str, list[Annotated[float, Field(ge=0, le=1)]]] = {}
    families: dict[str, dict[str, float]] = {}

    @model_validator(mode="after")
    def _whole_intervals(self) -> EvaluationRecord:
        for name in self.model_fields_set:
            of = name.removesuffix("_low").removesuffix("_high")
            lacks = {of, f"{of}_low", f"{of}_high"} - self.model_fields_set
            if of != name and lacks:
                raise ValueError(f"{name} is there without {min(lacks)}")
        return self


RECORDS = TypeAdapter(list[EvaluationRecord])


class RunFolder:
    """`config.toml`, `metrics.jsonl`, `evaluation.json`, `trees/step-0001.jsonl.gz`, `checkpoints/step-0010/`.

    What can't be read raises a `UserError` that names the file; what is not there reads as nothing.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.toml"
        self.metrics = path / "metrics.jsonl"
        self.evaluation = path / "evaluation.json"

    @property
    def is_used(self) -> bool:
        return (self.path / "checkpoints").exists() or self.has_iterations

    @property
    def has_iterations(self) -> bool:
        return bool(self.read_metrics() or self.tree_files())

    def trees(self, iteration: int) -> Path:
        return self.path / "trees" / f"step-{iteration:04d}.jsonl.gz"

    def checkpoint(self, iteration: int) -> Path:
        return self.path / "checkpoints" / f"step-{iteration:04d}"

    def tree_files(self) -> dict[int, Path]:
        """The files of trees, by iteration."""
        return _by_iteration(self.path / "trees", r"step-(\d+)\.jsonl\.gz")

    def checkpoints(self) -> dict[int, Path]:
        """Checkpoints by iteration, the newest last."""
        return _by_iteration(self.path / "checkpoints", r"step-(\d+)")

    def last_checkpoint(self) -> tuple[int, Path] | None:
        """The newest checkpoint and its iteration."""
        return max(self.checkpoints().items(), default=None)

    def read_config_text(self) -> str:
        return _parse(self.config, str) or ""

    def read_config(self) -> dict[str, Any]:
        return _parse(self.config, tomllib.loads) or {}

    def read_metrics(self) -> list[dict[str, Any]]:
        """A row of each iteration, in order, but for a last one that a crash cut short."""
        return _parse(self.metrics, _metrics) or []

    def read_evaluation(self) -> list[dict[str, Any]]:
        """A record of each evaluation, in order."""
        return _parse(self.evaluation, _evaluations) or []

    def write_config(self, config: RunConfig) -> None:
        with saving(self.path):
            write_whole(self.config, to_toml(config))

    def check_same(self, config: RunConfig, started: RunConfig) -> None:
        """Refuse to go on with settings under which the run would not have come this far."""
        known = tomllib.loads(to_toml(started))
        for name, value in tomllib.loads(to_toml(config)).items():
            if name not in CHANGEABLE and value != known.get(name):
                raise UserError(
                    f"{self.path} was started with {name} = {known.get(name)}, not {value}; go on with "
                    "--resume and --run-dir alone, or give another --run-dir."
                )

    def rewind(self, iteration: int) -> None:
        """Forget what came after `iteration`: it will be computed again, to the same end."""
        rows = [row for row in self.read_metrics() if row["iteration"] <= iteration]
        records = [record for record in self.read_evaluation() if record["iteration"] <= iteration]
        with saving(self.path):
            write_whole(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
            write_whole(self.evaluation, json.dumps(records, indent=1))
            later = [path for number, path in self.tree_files().items() if number > iteration]
            for path in [*later, *(self.path / "trees").glob(".*.part")]:
                path.unlink()

    def log(self, row: Mapping[str, Any]) -> None:
        with saving(self.metrics), self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        # a resumed run may evaluate again where it stands
        earlier = [r for r in self.read_evaluation() if r["iteration"] != record["iteration"]]
        with saving(self.evaluation):
            write_whole(self.evaluation, json.dumps([*earlier, record], indent=1))


def _by_iteration(folder: Path, name: str) -> dict[int, Path]:
    found = ((re.fullmatch(name, path.name), path) for path in folder.glob("step-*"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _parse(file: Path, parse: Callable[[str], T]) -> T | None:
    if not file.exists():
        return None
    try:
        return parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # what pydantic, tomllib and the decoder raise, too
        raise UserError(
            f"{file} can't be read ({what_is_wrong(error)}): restore it as the run wrote it, or remove it."
        ) from error


def _metrics(text: str) -> list[dict[str, Any]]:
    """One row an iteration. A resumed run writes some iterations again: the last row of each counts."""
    lines = text.split("\n")
    rows: dict[int, dict[str, Any]] = {}
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            iteration = MetricsRow.model_validate_json(line).iteration
        except ValidationError as error:
            if i == len(lines) - 1 and error.errors()[0]["type"] == "json_invalid":
                break  # a run that is being written, or was killed while it wrote
            raise ValueError(f"line {i + 1}: {what_is_wrong(error)}") from error
        rows[iteration] = json.loads(line)
    return [rows[i] for i in sorted(rows)]


def _evaluations(text: str) -> list[dict[str, Any]]:
    RECORDS.validate_json(text)
    return sorted(json.loads(text), key=lambda record: record["iteration"])
