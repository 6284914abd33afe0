"""What a run leaves on disk, and how it goes on from there. Everything appears whole or not at all."""

from __future__ import annotations

import json
import pickle
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from firstfault.config import RunConfig, to_toml, validated
from firstfault.errors import UserError
from firstfault.files import saving, write_whole

STATE = "training_state.pt"
# what may differ when a run goes on; another optimizer is refused where its state is loaded
CHANGEABLE = {"run_dir", "steps", "checkpoint_every", "evaluation", "tracker", "threads", "device", "optimizer"}


class RunFolder:
    """`config.toml`, `metrics.jsonl`, `evaluation.json`, `trees/step-0001.jsonl.gz`, `checkpoints/step-0010/`."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.evaluation = path / "evaluation.json"

    @property
    def is_used(self) -> bool:
        return (self.path / "checkpoints").exists()

    def trees(self, iteration: int) -> Path:
        return self.path / "trees" / f"step-{iteration:04d}.jsonl.gz"

    def checkpoint(self, iteration: int) -> Path:
        return self.path / "checkpoints" / f"step-{iteration:04d}"

    def last_checkpoint(self) -> tuple[int, Path] | None:
        """The newest checkpoint and its iteration."""
        found = [p for p in (self.path / "checkpoints").glob("step-*") if p.suffix != ".part"]
        return max(((_iteration(path), path) for path in found), default=None)

    def create(self) -> None:
        with saving(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: RunConfig) -> None:
        with saving(self.path):
            write_whole(self.path / "config.toml", to_toml(config))

    def check_same(self, config: RunConfig) -> None:
        """Refuse to go on with settings under which the run would not have come this far."""
        # settings that were not there yet when it was started had their defaults
        written = validated(RunConfig, tomllib.loads((self.path / "config.toml").read_text()), str(self.path))
        started = tomllib.loads(to_toml(written))
        for name, value in tomllib.loads(to_toml(config)).items():
            if name not in CHANGEABLE and value != started.get(name):
                raise UserError(
                    f"{self.path} was started with {name} = {started.get(name)}, not {value}; go on with "
                    "--resume and --run-dir alone, or give another --run-dir."
                )

    def rewind(self, iteration: int) -> None:
        """Forget what came after `iteration`: it will be computed again, to the same end."""
        rows = [row for row in self.read_metrics() if row["iteration"] <= iteration]
        records = [record for record in self.read_evaluation() if record["iteration"] <= iteration]
        with saving(self.path):
            write_whole(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
            write_whole(self.evaluation, json.dumps(records, indent=1))
            for path in self.path.glob("trees/step-*"):
                if _iteration(path) > iteration:
                    path.unlink()

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines but a last one that a crash cut short."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                if number < len(lines):
                    raise UserError(f"{self.metrics}, line {number} is not JSON; mend it or take it out.") from error
        return rows

    def read_evaluation(self) -> list[dict[str, Any]]:
        return json.loads(self.evaluation.read_text()) if self.evaluation.exists() else []

    def log(self, row: Mapping[str, Any]) -> None:
        with saving(self.metrics), self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        with saving(self.evaluation):
            # a resumed run may evaluate again where it stands
            earlier = [r for r in self.read_evaluation() if r["iteration"] != record["iteration"]]
            write_whole(self.evaluation, json.dumps([*earlier, record], indent=1))

    def save_checkpoint(
        self, iteration: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any]
    ) -> Path:
        """A folder that `from_pretrained` reads, with the state of the learner beside."""
        path = self.checkpoint(iteration)
        partial = path.with_suffix(".part")
        with saving(path):
            shutil.rmtree(partial, ignore_errors=True)
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            torch.save(dict(state), partial / STATE)
            if path.exists():  # a checkpoint is there or not, never half of it
                shutil.rmtree(old := path.with_suffix(".old.part"), ignore_errors=True)
                path.rename(old)
            partial.rename(path)
            shutil.rmtree(path.with_suffix(".old.part"), ignore_errors=True)
        return path


def _iteration(path: Path) -> int:
    return int(path.name.split(".")[0].removeprefix("step-"))


def load_state(checkpoint: Path) -> dict[str, Any]:
    try:
        return torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{checkpoint / STATE} can't be read ({str(error).splitlines()[0]}); remove {checkpoint} to go on from an "
            "earlier checkpoint."
        ) from error
