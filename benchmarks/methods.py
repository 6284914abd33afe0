"""Every method on `arithmetic`: trains what is missing, then writes docs/results/methods.md and its picture.

    python benchmarks/methods.py --jobs 2
    python benchmarks/methods.py --methods elpo grpo --seeds 1

Each run is a cell of its own under runs/cells, about six minutes on a core; an interrupted one goes on where it
stopped. What the page is made from is kept in docs/results/methods.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import torch
from families import RESULTS, cell, interval

from firstfault.methods import METHODS

ARGUMENTS = (
    "--config recipes/demo.toml --method {method} --method.rollouts 16{options} --seed {seed} "
    "--evaluation.every 2 --evaluation.samples 2 --threads 1"
)
OPTIONS = {  # a task here takes 4 to 12 calls, more than these methods allow at first
    "torl": " --method.calls 16",
    "cir": " --method.calls 8 --method.calls 12 --method.calls 16 --method.stage 5",
}
RUNS = {name: (name, OPTIONS.get(name, "")) for name in METHODS} | {  # and what some need to learn here
    "corpo, R_min 0.2": ("corpo", " --method.reward-min 0.2"),
    "astarpo, β₂ 0.5": ("astarpo", " --method.beta-2 0.5"),
    "rebel, η 1": ("rebel", " --method.eta 1"),
}
RECORD = RESULTS / "methods.json"


def render(cells: list[dict]) -> str:
    before = cells[0]["evaluations"][0]
    lines = [
        "# Every method on arithmetic",
        "",
        "A toy: a policy of 0.6M parameters, taught from demonstrations that are systematically wrong, then trained "
        "for 14 iterations of 16 tasks x 16 rollouts on a CPU, each method with its published options but this budget "
        "and the same optimizer. Success on 128 held-out problems with 95 % bootstrap intervals over problems, sampled "
        f"(2 runs each, temperature 1) and greedy; before training {interval(before, 'sampled')} and "
        f"{interval(before, 'greedy')}. *Along the way* is the mean of sampled success over the evaluations after "
        "every second iteration: who learns early has more.",
        "",
        "![Sampled success of each method over iterations, beside GRPO's](methods.svg)",
        "",
        "| method | seed | sampled after | greedy after | along the way | rollouts | tokens written | tool calls "
        "| minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        after = c["evaluations"][-1]
        minutes = (c["seconds_explore"] + c["seconds_update"]) / 60
        lines.append(
            f"| {c['method']} | {c['seed']} | {interval(after, 'sampled')} | {interval(after, 'greedy')} | "
            f"{along(c):.3f} | {c['rollouts']:,.0f} | {c['generated_tokens']:,.0f} | {c['tool_calls']:,.0f} | "
            f"{minutes:.1f} |"
        )
    lines += [
        "",
        "**These runs show which settings learn, not which method is better**: one seed, one task family, one learning "
        "rate that was chosen with GRPO and ELPO, and intervals as wide as most differences. `rollouts` are those that "
        "were spent; all count, also what is sampled only to know values or to be kept out.",
        "",
        "Three methods hardly learn at their published setting and this budget. The policy starts below CoRPO's "
        "threshold, so that nearly everything is pushed down by half and its entropy only rises: with R_min at the "
        "starting success it learns. VinePPO spends sixteen rollouts on the values of one or two runs; its published "
        "budget is 82. A*-PO has neither ratio nor clip, so that batches can't be used several times, as this recipe "
        "does: it compares with what the best policy near the reference would get, which is more than this one gets, "
        "pushes most runs down, the more the worse the policy gets, and collapses. A β₂ of 0.5 holds it near the "
        "reference and keeps it from that. With one update a batch (`--learner.epochs 1 --learner.mini-batch 16 "
        "--optimizer.lr 2e-4 --steps 40`) it learns at its published setting, slowly: sampled .227, .215, .270, .320,"
        " .348 and greedy .125, .172, .281, .352, .367 after 0, 10, 20, 30 and 40 iterations. Tried besides, with "
        "sampled success after 14: β₁ = 5 (.00), β₂ = 0.1 (.09), β₁ = β₂ = 0.25 (.27), one epoch of 2 or of 8 mini-"
        "batches (.18 and .00).",
        "",
        "Minutes are those of exploring and updating, on a machine that had other work to do as well.",
        "",
        f"Command of a cell: `firstfault train {ARGUMENTS.format(method='METHOD', options='', seed='SEED')}`"
        + "".join(f", for {name} with `{options.strip()}`" for name, (_, options) in RUNS.items() if options)
        + f"; all of them: `python benchmarks/methods.py`. Machine: {platform.machine()}, 1 thread each, Python "
        f"{platform.python_version()}, torch {torch.__version__}.",
        "",
    ]
    return "\n".join(lines)


def along(c: dict) -> float:
    return statistics.mean(record["sampled"] for record in c["evaluations"][1:])


def draw(cells: list[dict]) -> None:
    """A panel a method, in each GRPO's first run in grey."""
    methods = list(dict.fromkeys(c["method"] for c in cells))
    columns = 5
    rows = -(-len(methods) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(2 * columns, 1.7 * rows), sharex=True, sharey=True)
    beside = next((c for c in cells if c["method"] == "grpo"), cells[0])
    for panel, method in zip(panels.flat, methods, strict=False):
        panel.plot(*curve(beside), color="lightgrey", linewidth=3)
        for c in (c for c in cells if c["method"] == method):
            xs, sampled = curve(c)
            low, high = ([record[f"sampled_{end}"] for record in c["evaluations"]] for end in ("low", "high"))
            panel.plot(xs, sampled, color="tab:red", linewidth=1.2)
            panel.fill_between(xs, low, high, color="tab:red", alpha=0.12, linewidth=0)
        panel.set(ylim=(0, 1))
        panel.set_title(method, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels.flat[len(methods) :]:
        panel.axis("off")
    figure.supxlabel("iteration (grey: GRPO)", fontsize=9)
    figure.supylabel("sampled success", fontsize=9)
    figure.tight_layout()
    figure.savefig(RESULTS / "methods.svg", metadata={"Date": None})


def curve(c: dict) -> tuple[list[int], list[float]]:
    return [record["iteration"] for record in c["evaluations"]], [record["sampled"] for record in c["evaluations"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, a core each")
    parsed = parser.parse_args()
    known = {(c["method"], c["seed"]): c for c in json.loads(RECORD.read_text())} if RECORD.exists() else {}
    lock = threading.Lock()

    def run(key: tuple[str, int]) -> None:
        name, seed = key
        method, options = RUNS[name]
        folder = "-".join(["methods", method, *options.replace("--method.", "").split(), str(seed)])
        done = {"method": name, "seed": seed}
        done |= cell(folder, ARGUMENTS.format(method=method, options=options, seed=seed))
        with lock:
            known[key] = done
            cells = sorted(known.values(), key=lambda c: (list(RUNS).index(c["method"]), c["seed"]))
            RECORD.write_text(json.dumps(cells, indent=1) + "\n")
            print(key, done["evaluations"][-1], flush=True)

    wanted = [(method, seed) for seed in parsed.seeds for method in parsed.methods]
    with ThreadPoolExecutor(parsed.jobs) as pool:
        list(pool.map(run, [key for key in wanted if key not in known]))
    cells = json.loads(RECORD.read_text())
    (RESULTS / "methods.md").write_text(render(cells))
    draw(cells)


if __name__ == "__main__":
    main()
