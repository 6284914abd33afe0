"""Learning on the generated families: trains what is missing, then writes docs/results/families.md and its pictures.

    python benchmarks/families.py --families arithmetic lore --methods elpo grpo --seeds 0 1 2 --jobs 2

Each run is a cell of its own under runs/cells; an interrupted one goes on where it stopped. What the page is made from
is kept in docs/results/families.json, so that cells of other machines and days can stand beside each other.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from firstfault.run_folder import RunFolder

try:
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("the curves are drawn with matplotlib; pip install matplotlib.")

ROOT = Path(__file__).parent.parent
CELLS = ROOT / "runs" / "cells"
RESULTS = ROOT / "docs" / "results"
FAMILIES = {  # where each has its settings
    "arithmetic": "recipes/demo.toml",
    "stateful": "recipes/families.toml --tasks stateful --cold-start.steps 240",
    "lore": "recipes/lore.toml",
    "programs": "recipes/families.toml --tasks programs --cold-start.steps 240",
    "all three": "recipes/families.toml",
}
ARGUMENTS = (
    "--config {settings} --method {method} --seed {seed} --evaluation.every 4 --evaluation.samples 2 --threads 1"
)
TOTALS = ("rollouts", "probes", "generated_tokens", "tool_calls", "seconds_explore", "seconds_update")
COLOURS = {"elpo": "tab:red", "grpo": "tab:blue"}


def cell(name: str, arguments: str) -> dict:
    """What the run `firstfault train ARGUMENTS` spent and reached; it is trained unless it stands there finished."""
    CELLS.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(CELLS / name)
    command = [sys.executable, "-m", "firstfault", "train", *arguments.split(), "--run-dir", str(folder.path)]
    with open(f"{folder.path}.log", "w") as log:
        subprocess.run([*command, "--resume"], check=True, cwd=ROOT, stdout=log, stderr=log)
    rows = folder.read_metrics()
    totals = {total: sum(row[total] for row in rows) for total in TOTALS}
    totals |= {"evaluations": folder.read_evaluation()}
    return json.loads(json.dumps(totals), parse_float=lambda number: round(float(number), 4))


def render(cells: list[dict]) -> str:
    lines = [
        "# Learning on the generated families",
        "",
        "Toys: a policy of 0.6M parameters, taught from demonstrations that are systematically wrong, then trained for "
        "14 iterations of 16 tasks x 16 rollouts on a CPU. Success on 128 held-out problems, sampled (2 runs each, "
        "temperature 1) and greedy, with 95 % bootstrap intervals over problems. All runs of a family start from the "
        'same cold start; seeds differ in tasks, sampling and order. "All three" is one policy, taught and trained on '
        "arithmetic, lore and programs at once.",
        "",
        "![Success on held-out tasks over iterations](families.svg)",
        "",
        "| family | method | seed | sampled before | sampled after | greedy before | greedy after | tokens written "
        "| tool calls | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        before, after = c["evaluations"][0], c["evaluations"][-1]
        minutes = (c["seconds_explore"] + c["seconds_update"]) / 60
        lines.append(
            f"| {c['family']} | {c['method']} | {c['seed']} | "
            + " | ".join(interval(record, kind) for kind in ("sampled", "greedy") for record in (before, after))
            + f" | {c['generated_tokens']:,.0f} | {c['tool_calls']:,.0f} | {minutes:.1f} |"
        )
    lines += [
        "",
        "| family | method | seeds | sampled after, mean ± SD over seeds | greedy after |",
        "|---|---|---|---|---|",
    ]
    for family, method in dict.fromkeys((c["family"], c["method"]) for c in cells):
        mine = [c["evaluations"][-1] for c in cells if (c["family"], c["method"]) == (family, method)]
        spread = " | ".join(_spread([record[kind] for record in mine]) for kind in ("sampled", "greedy"))
        lines.append(f"| {family} | {method} | {len(mine)} | {spread} |")
    lines += [
        "",
        *by_family(cells),
        "So few seeds do not rank methods: they show that both learn.",
        "",
        "Minutes are those of exploring and updating, on a machine that had other work to do as well.",
        "",
        f"Command of a cell: `firstfault train {ARGUMENTS}`; all of them: `python benchmarks/families.py`. "
        f"Machine: {platform.machine()}, 1 thread each, Python {platform.python_version()}, torch {torch.__version__}.",
        "",
    ]
    return "\n".join(lines)


def by_family(cells: list[dict]) -> list[str]:
    """What the policies of all three families do in each, before and after."""
    mixed = [c for c in cells if "families" in c["evaluations"][-1]]
    if not mixed:
        return []
    families = list(mixed[0]["evaluations"][-1]["families"])
    lines = ["All three at once, in each family (sampled / greedy):", ""]
    lines += [f"| method | seed | | {' | '.join(families)} |", "|---|---|---|" + "---|" * len(families)]
    for c in mixed:
        for when, record in (("before", c["evaluations"][0]), ("after", c["evaluations"][-1])):
            scores = [record["families"][family] for family in families]
            cells_of = " | ".join(f"{s['sampled']:.2f} / {s['greedy']:.2f}" for s in scores)
            lines.append(f"| {c['method']} | {c['seed']} | {when} | {cells_of} |")
    return [*lines, ""]


def draw(cells: list[dict], path: Path) -> None:
    """A panel a family: sampled success with its interval, greedy success dashed; a line a run."""
    families = list(dict.fromkeys(c["family"] for c in cells))
    figure, panels = plt.subplots(1, len(families), figsize=(3 * len(families), 2.8), sharey=True, squeeze=False)
    for panel, family in zip(panels[0], families, strict=True):
        for c in (c for c in cells if c["family"] == family):
            xs = [record["iteration"] for record in c["evaluations"]]
            colour = COLOURS.get(c["method"])
            first = all(line.get_label() != c["method"] for line in panel.get_lines())
            sampled = [record["sampled"] for record in c["evaluations"]]
            panel.plot(xs, sampled, color=colour, label=c["method"] if first else None)
            low, high = ([record[f"sampled_{end}"] for record in c["evaluations"]] for end in ("low", "high"))
            panel.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0)
            panel.plot(xs, [record["greedy"] for record in c["evaluations"]], color=colour, linestyle=":", linewidth=1)
        panel.set(title=family, xlabel="iteration", ylim=(0, 1))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("success (dotted: greedy)")
    panels[0][-1].legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def interval(record: dict, kind: str) -> str:
    return f"{record[kind]:.3f} [{record[f'{kind}_low']:.3f}, {record[f'{kind}_high']:.3f}]"


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--methods", nargs="+", default=["elpo", "grpo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, a core each")
    parsed = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = RESULTS / "families.json"
    known = (
        {(c["family"], c["method"], c["seed"]): c for c in json.loads(record.read_text())} if record.exists() else {}
    )
    # side by side stand cells of different families: those of one wait for the same cold start
    wanted = [(f, m, s) for s in parsed.seeds for m in parsed.methods for f in parsed.families]

    lock = threading.Lock()

    def run(key: tuple[str, str, int]) -> None:
        family, method, seed = key
        arguments = ARGUMENTS.format(settings=FAMILIES[family], method=method, seed=seed)
        done = {"family": family, "method": method, "seed": seed}
        done |= cell(f"{family.replace(' ', '-')}-{method}-{seed}", arguments)
        with lock:
            known[key] = done
            cells = sorted(known.values(), key=lambda c: (list(FAMILIES).index(c["family"]), c["method"], c["seed"]))
            record.write_text(json.dumps(cells, indent=1) + "\n")
            (RESULTS / "families.md").write_text(render(cells))
            print(key, done["evaluations"][-1], flush=True)

    with ThreadPoolExecutor(parsed.jobs) as pool:
        list(pool.map(run, [key for key in wanted if key not in known]))
    draw(json.loads(record.read_text()), RESULTS / "families.svg")


if __name__ == "__main__":
    main()
