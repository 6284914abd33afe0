"""Methods where the truth is known: gradients, searches and learning curves on planted mistakes, in minutes.

python benchmarks/planted.py            # writes docs/results/planted.md and .json
python benchmarks/planted.py --quick    # a tenth of the prompts, 2 seeds; only prints
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from itertools import pairwise
from pathlib import Path

import torch

from firstfault.credit import mean
from firstfault.methods import ELPO, GRPO, Method
from firstfault.tasks.planted import PlantedProcess, traps
from firstfault.training.quality import action_tokens, cosine, learn, localization, probes, signal_to_noise
from firstfault.training.tabular import TabularPolicy, exact_gradient, gradients, grow, success_probability

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PROCESSES = {
    "silent, anywhere": PlantedProcess(),
    "silent, early": PlantedProcess(where="early"),
    "silent, late": PlantedProcess(where="late"),
    "dead end": PlantedProcess(traps=traps("dead end")),
    "recoverable": PlantedProcess(traps=traps("recoverable")),
}
TOKEN = {"aggregation": "token"}
GRPO_, ELPO_ = GRPO(clip_high=0.315, **TOKEN), ELPO(**TOKEN)
# Methods of one line explore alike: they give credit to the same trees.
SETTINGS: list[dict[str, Method]] = [
    {"GRPO": GRPO_},
    {
        "ELPO": ELPO_,
        "ELPO λ=0": ELPO(lambda_tree=0, **TOKEN),
        "ELPO λ=1": ELPO(lambda_tree=1, **TOKEN),
        "ELPO shared once": ELPO(shared="once", **TOKEN),
    },
    {"ELPO verified": ELPO(search="verified", **TOKEN)},
    {"ELPO one try": ELPO(tries_max=1, **TOKEN)},
]
ENTROPIES = {
    "GRPO": ("own", GRPO_),
    "ELPO, entropy as the policy has it": ("own", ELPO(shared="once", **TOKEN)),
    "ELPO, half a nat more after the first mistake": ("raised", ELPO(shared="once", **TOKEN)),
    "ELPO, zero after the first mistake": ("zero", ELPO(shared="once", **TOKEN)),
}
SEARCHES = {
    "per prompt": "searches",
    "exact": "exact",
    "early": "early",
    "none": "none",
    "first wrong": "first_wrong",
    "evidence": "evidence",
    "probes, share of rollouts": "probe_share",
    "whole runs won": "success_whole",
    "probes won": "success_probe",
}
STEPS, SHOWN, STEP_SIZE = 20, (5, 10, 15, 20), 0.1


def measure(name: str, process: PlantedProcess, methods: dict[str, Method], prompts: int) -> list[dict]:
    """Of each of `methods`, which explore alike: its gradient, and the searches it made."""
    policy, tasks = TabularPolicy.first(process), process.train(seed=0, first=0, n=prompts)
    exact = exact_gradient(process, tasks, policy)
    trees = grow(next(iter(methods.values())), process, policy, tasks, key=(0,))
    begun = [leaf for tree in trees for leaf in probes(tree)]
    whole = [leaf for tree in trees for leaf in tree.leaves if leaf.anchor is tree.root]
    found = {
        "p0": success_probability(process, tasks, policy),
        "tokens": sum(map(action_tokens, trees)) / prompts,
        "rollouts": (len(begun) + len(whole)) / prompts,
        "probe_share": len(begun) / (len(begun) + len(whole)),
        "success_whole": mean([leaf.success for leaf in whole]),
        "success_probe": mean([leaf.success for leaf in begun]),
        **localization(process, trees),
    }
    rows = []
    for label, method in methods.items():
        method.credit(trees)
        shares = gradients(method, trees, policy.logits)
        snr, error = signal_to_noise(shares)
        zero = mean([not tree.has_gradient for tree in trees])
        quality = {"snr": snr, "snr_error": error, "zero": zero, "cosine": cosine(shares, exact)}
        numbers = {column: round(number, 5) for column, number in {**quality, **found}.items()}
        rows.append({"process": name, "method": label, **numbers})
    return rows


def curves(name: str, process: PlantedProcess, tokens: float, seeds: int) -> list[dict]:
    """Learning curves of GRPO and ELPO, with batches of 16 prompts and with batches of `tokens` tokens."""
    held_out = process.train(seed=-1, first=0, n=64)
    options = {"steps": STEPS, "step_size": STEP_SIZE, "held_out": held_out}
    return [
        {
            "process": name,
            "method": label,
            "equal": equal,
            "seed": seed,
            "tokens": points[-1].tokens,
            "success": [round(point.success, 4) for point in points],
        }
        for seed in range(1, seeds + 1)
        for equal, size in [("rollouts", {"prompts": 16}), ("tokens", {"tokens": int(tokens)})]
        for label, method in [("GRPO", GRPO_), ("ELPO", ELPO_)]
        for points in [learn(method, process, seed=seed, **size, **options)]
    ]


# The page


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["", *("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]), ""]


def snr(row: dict, per: float = 1.0, digits: int = 3) -> str:
    return f"{row['snr'] * per:.{digits}f} ± {row['snr_error'] * per:.{digits}f}"


def spread(values: list[float], sign: str = "") -> str:
    return f"{statistics.mean(values):{sign}.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def quality_tables(rows: list[dict]) -> list[str]:
    processes, methods = list(PROCESSES), [label for setting in SETTINGS for label in setting]
    cell = {(row["process"], row["method"]): row for row in rows}

    def wide(what) -> list[str]:
        return table(["", *processes], [[m, *(what(cell[p, m]) for p in processes)] for m in methods])

    searching = [row for row in rows if row["method"] in ("ELPO", "ELPO verified", "ELPO one try")]
    return [
        "## Gradients of the first policy",
        "",
        "Success probability of the first policy: "
        + ", ".join(f"{p} {cell[p, 'GRPO']['p0']:.3f}" for p in processes)
        + ".",
        "",
        "SNR per prompt of 16 rollouts, |E g|² / tr Cov(g), ± bootstrap standard error over prompts:",
        *wide(snr),
        "SNR per 1000 action tokens:",
        *wide(lambda row: snr(row, 1000 / row["tokens"], 2)),
        "Action tokens per prompt / share of prompts without any gradient (all runs scored alike) / cosine with the "
        "exact gradient of the mean success probability:",
        *wide(lambda row: f"{row['tokens']:.0f} / {row['zero']:.2f} / {row['cosine']:.3f}"),
        "## Searches",
        "",
        "Against the first irrecoverable step of the run that was searched. Too late a step is never named, since a "
        "success is proof; and ELPO begins no search that it can't finish. *None*: the search wrongly says that no "
        "step is at fault. *First wrong*: it names the first mistake (which is the first irrecoverable step, unless "
        "mistakes are recoverable). *Evidence*: a probe of the search succeeded; without any in the whole tree, "
        "nothing is marked. The last columns are the success rates of whole runs and of probes.",
        *table(
            ["process", "search", *SEARCHES],
            [
                [row["process"], row["method"], *(f"{row[column]:.3f}" for column in SEARCHES.values())]
                for row in sorted(searching, key=lambda row: processes.index(row["process"]))
            ],
        ),
    ]


def entropy_table(rows: list[dict]) -> list[str]:
    return [
        "## What entropy tells",
        "",
        "ELPO searches the failed run whose entropy rose most. Silent mistakes anywhere, `shared = once`; what is "
        "recorded as entropy after the first mistake of a run is made up:",
        *table(
            ["", "SNR per prompt", "per 1000 tokens", "without gradient", "exact"],
            [
                [row["method"], snr(row), snr(row, 1000 / row["tokens"], 2), f"{row['zero']:.2f}",
                 f"{row['exact']:.2f}" if row["searches"] else ""]
                for row in rows
            ],
        ),
    ]  # fmt: skip


def area(curve: dict) -> float:
    """The mean success probability over the curve, by trapezoids."""
    return mean([(a + b) / 2 for a, b in pairwise(curve["success"])])


def curve_tables(curves: list[dict]) -> list[str]:
    lines = []
    for equal in ("rollouts", "tokens"):
        rows, ahead = [], {"GRPO": [], "ELPO": []}
        for process in PROCESSES:
            cell = {method: [c for c in curves if (c["process"], c["equal"], c["method"]) == (process, equal, method)]
                    for method in ahead}  # fmt: skip
            gains = [area(elpo) - area(grpo) for grpo, elpo in zip(cell["GRPO"], cell["ELPO"], strict=True)]
            if abs(statistics.mean(gains)) > 2 * statistics.stdev(gains) / len(gains) ** 0.5:
                ahead["ELPO" if statistics.mean(gains) > 0 else "GRPO"].append(f"*{process}*")
            for method, mine in cell.items():
                shown = [spread([curve["success"][step] for curve in mine]) for step in SHOWN]
                thousands = statistics.mean(curve["tokens"] for curve in mine) / 1000
                gain = spread(gains, "+") if method == "ELPO" else ""
                rows.append([process, method, *shown, spread([*map(area, mine)]), gain, f"{thousands:.1f}"])
        head = ["process", "method", *(f"step {step}" for step in SHOWN), "mean of the curve", "ELPO − GRPO"]
        wins = "; ".join(f"{method} on {', '.join(where) or 'none'}" for method, where in ahead.items())
        lines += [f"Equal {equal}:", *table([*head, "1000 tokens"], rows)]
        lines += [f"Ahead by more than two standard errors of the paired difference: {wins}.", ""]
    return lines


def render(data: dict) -> str:
    lines = [
        "# Planted mistakes",
        "",
        "The methods on a process whose truth is known ([what it is](../planted.md)), with a tabular policy in the "
        "place of a language model. It tells how a method's gradient and its searches behave where mistakes have a "
        "given form; it tells nothing about a language model's mistakes.",
        "",
        "8 to 10 contexts a task, drawn from 8 clean ones and 8 traps, in which the first policy is wrong with "
        "probability .3 or .7 (*early*, *late*: the first or last third are traps, all else is clean). One token a "
        "step. 16 rollouts a prompt, `aggregation = token`, and an upper clip bound of .315 for all; else each "
        "method's defaults.",
        "",
        *quality_tables(data["quality"]),
        *entropy_table(data["entropy"]),
        "## Learning curves",
        "",
        f"Exact success probability on 64 held-out tasks, mean ± standard error over {data['seeds']} seeds; seeds are "
        "paired (same tasks, equal keys). A step is a batch of new tasks, cut into 4 mini-batches, each of which moves "
        f"the logits by {STEP_SIZE} along the method's direction: a step has the same length whatever the gradient's. "
        "*Equal rollouts*: 16 tasks a batch. *Equal tokens*: as many tasks as it takes to write the tokens that 16 "
        "tasks take GRPO at the start, so that updates are as many too.",
        "",
        *curve_tables(data["curves"]),
        f"Command: `python benchmarks/planted.py`. {data['prompts']} prompts (seed 0) for gradients and searches, "
        f"seeds 1 to {data['seeds']} for the curves. Machine: {platform.machine()}, 1 thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}. Data: [planted.json](planted.json).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small samples, and nothing is written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    prompts, seeds = (100, 2) if quick else (1000, 6)
    data: dict = {"prompts": prompts, "seeds": seeds, "quality": [], "entropy": [], "curves": []}
    for name, process in PROCESSES.items():
        rows = [row for setting in SETTINGS for row in measure(name, process, setting, prompts)]
        data["quality"] += rows
        data["curves"] += curves(name, process, 16 * rows[0]["tokens"], seeds)
    for label, (entropy, method) in ENTROPIES.items():
        data["entropy"] += measure("silent, anywhere", PlantedProcess(entropy=entropy), {label: method}, prompts)
    page = render(data)
    print(page)
    if not quick:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "planted.json").write_text(json.dumps(data) + "\n")
        (RESULTS / "planted.md").write_text(page)


if __name__ == "__main__":
    main()
