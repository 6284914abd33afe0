"""Whole comparisons of a tiny policy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from firstfault.cli import main


@pytest.fixture
def compare(flags: list[str], tmp_path: Path) -> Callable[..., int]:
    """`compare(methods, *flags)` in the folder `out`: the exit code."""
    flags = list(flags)
    at = flags.index("--tasks")
    source = flags[at + 1]
    del flags[at : at + 2]
    at = flags.index("--tasks.operations-min")
    del flags[at : at + 4]
    recipe = tmp_path / "compare.toml"
    tasks = f"tasks = {{name = '{source}', operations_min = 1, operations_max = 2}}\n"
    recipe.write_text(f"[families.parity]\n{tasks}[families.again]\n{tasks}")

    def run(methods: str, *more: str, families: str = "parity", budget: str = "rollouts=4") -> int:
        return main([
            "compare", "--config", str(recipe), *flags, "--methods", methods, "--tasks", families,
            "--budget", budget, "--out", str(tmp_path / "out"), "--jobs", "2", *more,
        ])  # fmt: skip

    return run


@pytest.fixture
def results(tmp_path: Path) -> Callable[[], dict]:
    return lambda: json.loads((tmp_path / "out" / "results.json").read_text())
