"""What there is to view at a path: the iterations of a run, those trees that are asked for, and its metrics."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.methods import METHODS
from firstfault.report.folder import Run, read_records
from firstfault.report.metrics import METRICS
from firstfault.run_folder import RunFolder
from firstfault.tree import Tree, load_trees
from firstfault.view.credit import Credit, as_written, credit_by, named
from firstfault.view.data import Decode, decoder, payload, plain, summary


class Recording:
    """A run folder, or one file of trees (an iteration); with `tree` one tree of that file, counted from 1.

    `credits` are methods whose credit is shown in the place of what was written.
    """

    def __init__(self, path: Path, tree: int | None = None, credits: tuple[str, ...] = ()):
        self.path = path
        self.files = {_iteration(path): path} if path.is_file() else RunFolder(path).tree_files()
        if not self.files:
            raise UserError(f"{path} holds no trees; give the folder of a run, or a file from its folder of trees.")
        if tree is not None and not path.is_file():
            raise UserError(f"--tree {tree} needs a file of trees, and {path} is a folder; give the file.")
        # a file in the trees of a run belongs to the run, whose method and tokenizer it needs; others stand alone
        folder = path.resolve().parent
        self.run: Run = read_records(folder.parent if path.is_file() and folder.name == "trees" else path)
        table = self.run.config.get("method", {})
        self.method = {"name": table} if isinstance(table, str) else table if isinstance(table, dict) else {}
        self.only = tree
        self.credits = credits
        for name in credits:
            named(name, self.method)
        # of a run that goes from iteration to iteration, one back and forth stays at hand
        self.trees = lru_cache(maxsize=2)(self._trees)
        self.credit = lru_cache(maxsize=4)(self._credit)
        first = self.trees(next(iter(self.files)))
        if path.is_file() and not first:
            which = "trees" if tree is None else f"tree {tree}, counted from 1"
            raise UserError(f"{path} holds no {which}; give a file from a run's trees folder.")

    def _trees(self, iteration: int) -> list[Tree]:
        trees = list(load_trees(self.files[iteration]))
        return trees if self.only is None else trees[self.only - 1 : self.only] if self.only > 0 else []

    def _credit(self, iteration: int, name: str) -> Credit:
        trees = self.trees(iteration)
        return credit_by(name, trees, self.method) if name else as_written(trees, self.method)

    @cached_property
    def decode(self) -> Decode | None:
        """The run's tokenizer, from its newest checkpoint that has one; None where there is none."""
        folders = RunFolder(self.run.path).checkpoints().values()
        folder = next((f for f in reversed(folders) if (f / "tokenizer_config.json").exists()), None)
        if folder is None:
            return None
        from transformers import AutoTokenizer

        try:
            return decoder(AutoTokenizer.from_pretrained(folder, local_files_only=True))
        except Exception:  # whatever comes of what is no tokenizer: the trees can be read without
            return None

    def index(self) -> dict[str, Any]:
        """What the page shows before any tree."""
        tasks = self.run.config.get("tasks", {})
        tasks = tasks.get("name", "") if isinstance(tasks, dict) else tasks
        return plain({
            "title": " on ".join(str(n) for n in (self.method.get("name"), tasks) if n) or "Rollout trees",
            "source": self.path.resolve().name,
            "iterations": list(self.files),
            "curves": self._curves(),
            "methods": list(METHODS),
            "credits": list(self.credits),
        })  # fmt: skip

    def _curves(self) -> list[dict[str, Any]]:
        """The metrics of the run over its iterations; before them what was evaluated, with intervals."""
        records = self.run.evaluations
        evaluated = [name for name in (records[0] if records else {}) if all(f"{name}_low" in r for r in records)]
        curves = [
            {
                "name": f"{name}, evaluated",
                "help": "success on held-out tasks, with its 95 % interval",
                "iterations": [record["iteration"] for record in records],
                **{key: [record[name + end] for record in records]
                   for key, end in (("values", ""), ("low", "_low"), ("high", "_high"))},
            }
            for name in evaluated
        ]  # fmt: skip
        iterations = self.run.iterations
        curves += [
            {"name": name, "help": METRICS.get(name, ""), "iterations": iterations, "values": self.run.series(name)}
            for name in self.run.names
        ]
        return [curve for curve in curves if len(curve["values"]) > 1]

    def summaries(self, iteration: int, credits: tuple[str, ...]) -> list[dict[str, Any]]:
        """The trees of an iteration, by the first of these credits: the one that filters ask in a tree, too."""
        first = self.credit(iteration, (credits or ("",))[0])
        return [summary(tree) for tree in first.trees]

    def tree(self, iteration: int, number: int, credits: tuple[str, ...]) -> dict[str, Any]:
        """A tree with credit: that which was written, or that of one or two methods."""
        tree = self.trees(iteration)[number]
        given = [self.credit(iteration, name) for name in credits or ("",)]
        return payload(tree, [credit.payload(number) for credit in given], self.decode)


def _iteration(file: Path) -> int:
    """The number in the name of a file of trees, else 1."""
    digits = file.name.partition(".")[0].rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 1
