"""The demo for several methods and seeds: trains what is missing, then writes docs/results/demo.md.

    python benchmarks/demo.py --methods elpo grpo --seeds 0 1 2

Each run is a cell of its own under runs/demo-cells; an interrupted one goes on where it stopped. What the table is
made from is kept in docs/results/demo.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from firstfault.training.checkpoint import RunFolder

ROOT = Path(__file__).parent.parent
CELLS = ROOT / "runs" / "demo-cells"
RESULTS = ROOT / "docs" / "results"
COMMAND = (
    "firstfault train --config recipes/demo.toml --method {method} --seed {seed} --evaluation.problems 256 --threads 1"
)
TOTALS = ("rollouts", "probes", "generated_tokens", "trained_tokens", "tool_calls", "seconds_explore", "seconds_update")


def cell(method: str, seed: int) -> dict:
    """The result of one run, which is trained unless it stands there finished."""
    folder = RunFolder(CELLS / f"{method}-{seed}")
    records = folder.read_evaluation()
    if len(records) < 2 or records[-1]["iteration"] == 0:
        arguments = COMMAND.format(method=method, seed=seed).split()[1:]
        command = [sys.executable, "-m", "firstfault", *arguments, "--run-dir", str(folder.path), "--resume"]
        subprocess.run(command, check=True, cwd=ROOT)
        records = folder.read_evaluation()
    rows = folder.read_metrics()
    totals = {name: sum(row[name] for row in rows) for name in TOTALS}
    return {"method": method, "seed": seed, "before": records[0], "after": records[-1], **totals}


def render(cells: list[dict]) -> str:
    lines = [
        "# The demo, several seeds",
        "",
        "A toy: a policy of 0.6M parameters on `arithmetic` (4 to 12 chained operations, one Python call each), taught "
        "from demonstrations that are systematically wrong, then trained for 14 iterations of 16 tasks x 16 rollouts. "
        "Success on 256 held-out problems, sampled (4 runs each, temperature 1) and greedy, with 95 % bootstrap "
        "intervals over problems. All runs start from the same cold start; seeds differ in tasks, sampling and order.",
        "",
        "| method | seed | sampled before | sampled after | greedy before | greedy after | tokens written | probes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        lines.append(
            f"| {c['method']} | {c['seed']} | "
            + " | ".join(_interval(c[when], kind) for kind in ("sampled", "greedy") for when in ("before", "after"))
            + f" | {c['generated_tokens']:,.0f} | {c['probes']:.0f} of {c['rollouts']:.0f} |"
        )
    lines += [
        "",
        "| method | sampled after, mean ± SD over seeds | greedy after | tokens written |",
        "|---|---|---|---|",
    ]
    for method in dict.fromkeys(c["method"] for c in cells):
        mine = [c for c in cells if c["method"] == method]
        spread = [_spread([c["after"][kind] for c in mine]) for kind in ("sampled", "greedy")]
        tokens = statistics.mean(c["generated_tokens"] for c in mine)
        lines.append(f"| {method} | {spread[0]} | {spread[1]} | {tokens:,.0f} |")
    lines += [
        "",
        "Three seeds do not rank the methods: they show that both learn.",
        "",
        f"Command of a cell: `{COMMAND}`; all of them: `python benchmarks/demo.py`. "
        f"Machine: {platform.machine()}, 1 thread each, Python {platform.python_version()}, torch {torch.__version__}.",
        "",
    ]
    return "\n".join(lines)


def _interval(record: dict, kind: str) -> str:
    return f"{record[kind]:.3f} [{record[f'{kind}_low']:.3f}, {record[f'{kind}_high']:.3f}]"


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["elpo", "grpo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parsed = parser.parse_args()
    cells = [cell(method, seed) for method in parsed.methods for seed in parsed.seeds]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "demo.json").write_text(json.dumps(cells, indent=1) + "\n")
    (RESULTS / "demo.md").write_text(render(cells))
    print(RESULTS / "demo.md")


if __name__ == "__main__":
    main()
