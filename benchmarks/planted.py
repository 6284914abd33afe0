"""Methods where the truth is known: gradients, searches and learning curves on planted mistakes.

python benchmarks/planted.py            # docs/results/planted.md, .json and .svg; goes on where it was interrupted
python benchmarks/planted.py --fresh    # the same from the start
python benchmarks/planted.py --quick    # a tenth of the prompts, 2 seeds; only prints
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from firstfault.credit import mean
from firstfault.evaluation.statistics import LEVEL, holm, mean_t, p_value
from firstfault.methods import ELPO, GRPO, Method
from firstfault.tasks.planted import PlantedProcess, traps
from firstfault.training.quality import (
    action_tokens,
    choices,
    cosine,
    learn,
    localization,
    probes,
    signal_to_noise,
)
from firstfault.training.tabular import TabularPolicy, exact_gradient, gradients, grow, success_probability
from firstfault.tree import Task

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PROCESSES = {
    f"{mistake}, {where}": PlantedProcess(traps=traps(mistake), where=where)
    for mistake in ("silent", "dead end", "recoverable")
    for where in ("anywhere", "early", "late")
}
ANYWHERE = [name for name in PROCESSES if "anywhere" in name]
ENTROPIES = ("own", "raised", "zero")


def elpo(**settings) -> ELPO:
    return ELPO(aggregation="token", **settings)


ONCE = {"lambda_tree": 0, "shared": "once"}
GRPO_ = GRPO(aggregation="token", clip_high=0.315)
# Methods of one line explore alike: they give credit to the same trees.
SETTINGS: list[dict[str, Method]] = [
    {"GRPO": GRPO_},
    {"ELPO": elpo(), "λ=0": elpo(lambda_tree=0), "λ=1": elpo(lambda_tree=1), "once": elpo(shared="once"),
     "λ=0, once": elpo(**ONCE)},
    {"posterior": elpo(search="posterior")},
    {"verified": elpo(search="verified")},
    {"literal": elpo(literal=True)},
]  # fmt: skip
BETTER: list[dict[str, Method]] = [
    {name: elpo(**settings), f"{name}, λ=0, once": elpo(**settings, **ONCE)}
    for name, settings in {
        "6 failures": {"failures": 6},
        "10 failures": {"failures": 10},
        "one try": {"tries_max": 1},
        "6 failures, one try": {"failures": 6, "tries_max": 1},
        "posterior": {"search": "posterior"},
        "random anchors": {"search": "random"},
    }.items()
]
LEARNING: dict[str, Method] = {"GRPO": GRPO_, "ELPO": elpo(), "posterior": elpo(search="posterior")}
BEST = {name: methods[name] for methods in BETTER for name in ("one try, λ=0, once", "posterior, λ=0, once")
        if name in methods}  # these learn, too  # fmt: skip
STEPS, STEP_SIZE = 12, 0.1
RECORD = RESULTS / "planted.json"


def measure(process: PlantedProcess, policy: TabularPolicy, methods: dict[str, Method], prompts: int) -> list[dict]:
    """Of each of `methods`, which explore alike: its gradient, and the searches it made."""
    tasks = process.train(seed=0, first=0, n=prompts)
    exact = exact_gradient(process, tasks, policy)
    trees = grow(next(iter(methods.values())), process, policy, tasks, key=(0,))
    begun = [leaf for tree in trees for leaf in probes(tree)]
    whole = [leaf for tree in trees for leaf in tree.leaves if leaf.anchor is tree.root]
    found = {
        "tokens": sum(map(action_tokens, trees)) / prompts,
        "probe_share": len(begun) / (len(begun) + len(whole)),
        "success_whole": mean([leaf.success for leaf in whole]),
        "success_probe": mean([leaf.success for leaf in begun]) if begun else 0.0,
        **localization(process, trees),
    }
    rows = []
    for label, method in methods.items():
        method.credit(trees)
        shares = gradients(method, trees, policy.logits)
        snr, error = signal_to_noise(shares)
        zero = mean([not tree.has_gradient for tree in trees])
        quality = {"snr": snr, "snr_error": error, "zero": zero, "cosine": cosine(shares, exact)}
        if label == "ELPO":
            chosen, latest = zip(*choices(process, trees), strict=True)
            quality |= {"later": mean(chosen), "later_error": standard_error(chosen), "latest": mean(latest)}
        rows.append({"method": label, **{column: round(number, 5) for column, number in {**quality, **found}.items()}})
    gc.collect()
    return rows


def measure_all(process: PlantedProcess, policy: TabularPolicy, settings: list[dict], prompts: int) -> list[dict]:
    return [row for methods in settings for row in measure(process, policy, methods, prompts)]


def gradients_and_searches(process: PlantedProcess, prompts: int) -> dict:
    """Of the first policy and of a half-learnt one; and of the first with other entropies after a mistake."""
    first, tasks = TabularPolicy.first(process), process.train(seed=0, first=0, n=prompts)
    points = learn(GRPO_, process, steps=20, step_size=STEP_SIZE, seed=0, held_out=held_out(process))
    half = min(points, key=lambda point: abs(point.success - 0.5)).policy
    found: dict = {"success": {}, "entropy": {}}
    for stage, policy, settings in [("first", first, SETTINGS), ("half", half, SETTINGS[:3])]:
        found["success"][stage] = round(success_probability(process, tasks, policy), 4)
        found[stage] = measure_all(process, policy, settings, prompts)
    for entropy in ENTROPIES[1:]:
        told = replace(process, entropy=entropy)
        [found["entropy"][entropy]] = measure(told, first, {"ELPO": elpo()}, prompts)
    return found


def held_out(process: PlantedProcess) -> list[Task]:
    return process.train(seed=-1, first=0, n=64)


def curves(process: PlantedProcess, methods: dict[str, Method], tokens: int, seeds: int) -> list[dict]:
    """Learning curves with batches of 16 prompts, and of `tokens` tokens."""
    found = []
    for seed in range(1, seeds + 1):
        for equal, size in [("rollouts", {"prompts": 16}), ("tokens", {"tokens": tokens})]:
            for label, method in methods.items():
                options = {"steps": STEPS, "step_size": STEP_SIZE, "seed": seed, "held_out": held_out(process)}
                points = learn(method, process, **size, **options)
                success = [round(point.success, 4) for point in points]
                found.append({"method": label, "equal": equal, "seed": seed, "success": success,
                              "tokens": points[-1].tokens, **points[-1].clipped})  # fmt: skip
                gc.collect()
    return found


def measure_everything(prompts: int, seeds: int, data: dict, keep) -> None:
    """Adds to `data` what isn't there yet, and calls `keep` after each part."""

    def tokens(name: str) -> int:
        """What 16 prompts take GRPO at the start."""
        return round(16 * data["gradients"][name]["first"][0]["tokens"])

    parts = {
        "gradients": (PROCESSES, lambda name, process: gradients_and_searches(process, prompts)),
        "curves": (PROCESSES, lambda name, process: curves(process, LEARNING, tokens(name), seeds)),
        "better": (ANYWHERE, lambda name, process: measure_all(process, TabularPolicy.first(process), BETTER, prompts)),
        "better curves": (ANYWHERE, lambda name, process: curves(process, BEST, tokens(name), seeds)),
    }
    for part, (names, measured) in parts.items():
        for name in names:
            if name not in data[part]:
                data[part][name] = measured(name, PROCESSES[name])
                keep()


def standard_error(values) -> float:
    return statistics.stdev(values) / len(values) ** 0.5


# The page


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["", *("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]), ""]


def area(curve: dict) -> float:
    """The mean success probability over the curve, by trapezoids."""
    return mean([(a + b) / 2 for a, b in pairwise(curve["success"])])


def areas(curves: list[dict], method: str, equal: str) -> list[float]:
    """By seed."""
    return [area(curve) for curve in curves if (curve["method"], curve["equal"]) == (method, equal)]


def differences(data: dict, part: str, methods: Iterable[str], equal: str) -> dict[tuple[str, str], dict]:
    """By process and method: the mean of the curve less GRPO's on the same seeds, and what it shows."""
    gains = {
        (name, method): [a - b for a, b in zip(areas(curves, method, equal),
                                               areas(data["curves"][name], "GRPO", equal), strict=True)]
        for name, curves in data[part].items()
        for method in methods
    }  # fmt: skip
    corrected = holm([p_value(gain) for gain in gains.values()])
    found = {}
    for (key, gain), p in zip(gains.items(), corrected, strict=True):
        middle, low, high = mean_t(gain)
        verdict = "not told apart" if p > LEVEL else "ahead" if middle > 0 else "behind"
        found[key] = {"gain": middle, "low": low, "high": high, "p": p, "verdict": verdict}
    return found


def gain(row: dict) -> list[str]:
    return [f"{row['gain']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]", f"{row['p']:.3f}", row["verdict"]]


def learning(data: dict, part: str, methods: Iterable[str]) -> list[str]:
    lines = []
    for equal in ("rollouts", "tokens"):
        found = differences(data, part, methods, equal)
        head = ["", "GRPO"] + [f"{text}{method}" for method in methods for text in ("", "p, ", "verdict, ")]
        rows = []
        for name in data[part]:
            grpo = areas(data["curves"][name], "GRPO", equal)
            mine = [text for method in methods for text in gain(found[name, method])]
            rows.append([name, f"{mean(grpo):.3f} ± {standard_error(grpo):.3f}", *mine])
        lines += [f"Equal {equal}:", *table(head, rows)]
    return lines


def snr(row: dict, per: float = 1.0, digits: int = 3) -> str:
    return f"{row['snr'] * per:.{digits}f} ± {row['snr_error'] * per:.{digits}f}"


def per_token(row: dict) -> str:
    return snr(row, 1000 / row["tokens"], 2)


def quality_tables(data: dict, stage: str) -> list[str]:
    cells = data["gradients"]
    methods = [row["method"] for row in next(iter(cells.values()))[stage]]

    def wide(what) -> list[str]:
        return table(["", *methods], [[n, *map(what, cell[stage])] for n, cell in cells.items()])

    return [
        "Success probability: " + ", ".join(f"{n} {cell['success'][stage]:.3f}" for n, cell in cells.items()) + ".",
        "",
        "SNR per prompt of 16 rollouts, |E g|² / tr Cov(g), ± bootstrap standard error over prompts:",
        *wide(snr),
        "SNR per 1000 action tokens:",
        *wide(per_token),
        "Action tokens per prompt / share of prompts without any gradient (all runs scored alike) / cosine with the "
        "exact gradient of the mean success probability:",
        *wide(lambda row: f"{row['tokens']:.0f} / {row['zero']:.2f} / {row['cosine']:.3f}"),
    ]


SEARCHES = {
    "per prompt": "searches", "exact": "exact", "early": "early", "late": "late", "none": "none",
    "unfinished": "unfinished", "first wrong": "first_wrong", "evidence": "evidence", "probes": "probe_share",
    "whole runs won": "success_whole", "probes won": "success_probe",
}  # fmt: skip


def search_table(data: dict, stage: str) -> list[str]:
    rows = [
        [name, row["method"], *(f"{row[column]:.2f}" for column in SEARCHES.values())]
        for name, cell in data["gradients"].items()
        for row in cell[stage]
        if row["method"] in ("ELPO", "posterior", "verified", "literal")
    ]
    return table(["process", "search", *SEARCHES], rows)


def entropy_tables(data: dict) -> list[str]:
    chosen, signal = [], []
    for name, cell in data["gradients"].items():
        first, half = ({row["method"]: row for row in cell[stage]} for stage in ("first", "half"))
        told = [first["ELPO"], *(cell["entropy"][entropy] for entropy in ENTROPIES[1:])]
        late = [f"{row['later']:+.2f} ± {row['later_error']:.2f}" for row in (*told, half["ELPO"])]
        chosen.append([name, *late, f"{told[0]['latest']:+.2f}"])
        signal.append([name, snr(first["GRPO"]), *map(snr, told), *(f"{row['exact']:.2f}" for row in told)])
    modes = ["own", "half a nat more", "zero"]
    return [
        "ELPO searches that of three failed runs whose entropy rose most. How much later it was lost than the three "
        "on average, in steps: below 0, the rule prefers early losses. With the policy's *own* entropies, and where "
        "those after the first mistake of a run are made up: *half a nat more*, or *zero*; the last column is what "
        "choosing the run lost last would give.",
        *table(["", *modes, "own, half-learnt policy", "latest"], chosen),
        "What that does to the gradient (SNR per prompt, first policy) and to the searches (exact):",
        *table(["", "GRPO", *(f"ELPO, {m}" for m in modes), *(f"exact, {m}" for m in modes)], signal),
    ]


def clip_table(data: dict) -> list[str]:
    rows = []
    for name, curves in data["curves"].items():
        shares = []
        for method in LEARNING:
            mine = [c for c in curves if (c["method"], c["equal"]) == (method, "rollouts")]
            terms, cut, behind, cut_behind = (
                sum(c[count] for c in mine)
                for count in ("terms", "clip_share", "localized_terms", "clip_share_localized")
            )
            shares.append(f"{cut / terms:.2%}")
            if behind:
                shares += [f"{behind / terms:.1%}", f"{cut_behind / behind:.2%}"]
        rows.append([name, *shares])
    head = [f"{method}, {what}" for method in ("ELPO", "posterior") for what in ("cut", "localized", "cut of these")]
    return table(["", "GRPO, cut", *head], rows)


def better_tables(data: dict) -> list[str]:
    rows: dict[str, list[str]] = {}
    for name in ANYWHERE:
        others = ("posterior", "verified", "literal")
        known = [row for row in data["gradients"][name]["first"] if row["method"] not in others]
        for row in known + data["better"][name]:
            label = row["method"] if row["method"] in ("GRPO", "ELPO") else f"ELPO, {row['method']}"
            rows.setdefault(label, [label]).extend([snr(row), per_token(row), f"{row['zero']:.2f}"])
    columns = [f"{name.split(',')[0]}, {what}" for name in ANYWHERE for what in ("SNR", "per 1000 tokens", "none")]
    return table(["", *columns], list(rows.values()))


def draw(data: dict) -> None:
    plt.rcParams |= {"svg.hashsalt": "firstfault", "svg.fonttype": "path"}
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, sharex=True)
    for axis, equal in zip(axes, ("rollouts", "tokens"), strict=True):
        found = differences(data, "curves", ("ELPO", "posterior"), equal)
        for shift, (method, label, colour) in enumerate([("ELPO", "ELPO", "tab:blue"),
                                                         ("posterior", "ELPO, posterior", "tab:red")]):  # fmt: skip
            for row, name in enumerate(PROCESSES):
                one = found[name, method]
                at = -row - 0.24 * (shift - 0.5)
                axis.plot([one["low"], one["high"]], [at, at], color=colour, lw=1.4)
                axis.plot(one["gain"], at, "o", color=colour, ms=4, label=label if row == 0 else None)
        axis.axvline(0, color="#8c959f", lw=0.8, zorder=0)
        axis.set(title=f"equal {equal}", xlabel="mean of the curve, less GRPO's")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks([-row for row in range(len(PROCESSES))], list(PROCESSES))
    axes[1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / "planted.svg", metadata={"Date": None})


def render(data: dict) -> str:
    lines = [
        "# Planted mistakes",
        "",
        "ELPO and GRPO on a process whose truth is known ([what it is](../planted.md), and what this says of them), "
        "with a tabular policy in the place of a language model. It tells how a method's gradient and its searches "
        "behave where mistakes have a given form; it tells nothing about a language model's mistakes.",
        "",
        "8 to 10 contexts a task, drawn from 8 clean ones and 8 traps, in which the first policy is wrong with "
        "probability .3 or .7 (*early*, *late*: the first or last third are traps, all else is clean). One token a "
        "step. 16 rollouts a prompt, `aggregation = token`, and an upper clip bound of .315 for all; else each "
        "method's defaults. Columns without GRPO's name are ELPO: its default, λ_tree of 0 or 1, steps that runs "
        "share counted *once*, other searches (*posterior*, *verified*), and *literal*, Algorithm 1 as printed.",
        "",
        "## Learning",
        "",
        f"Exact success probability on 64 held-out tasks over {data['seeds']} paired seeds (same tasks, equal keys): "
        "the mean of the curve from the first policy on. GRPO's with its standard error; of the others the difference "
        "to GRPO's with its 95 % t-interval, p after Holm's correction over all differences of a table, and what that "
        f"says at 5 %. {STEPS} steps; each is a batch of new tasks, cut into 4 mini-batches, each of which moves the "
        f"logits by {STEP_SIZE} along the method's direction: a step has the same length whatever the gradient's. "
        "*Equal rollouts*: 16 tasks a batch. *Equal tokens*: as many tasks as it takes to write the tokens that 16 "
        "tasks take GRPO at the start. Updates are as many in both.",
        "",
        "![Differences to GRPO with their intervals](planted.svg)",
        "",
        *learning(data, "curves", ("ELPO", "posterior")),
        "## Gradients of the first policy",
        "",
        *quality_tables(data, "first"),
        "## Gradients of a half-learnt policy",
        "",
        "The policy of GRPO's curve (seed 0) whose success is nearest to .5.",
        "",
        *quality_tables(data, "half"),
        "## Searches",
        "",
        "Against the first irrecoverable step of the run that was searched. *None*: the search wrongly says that no "
        "step is at fault. *Unfinished*: the budget cut it off, or it had nothing to ask (a run of one step), or the "
        "posterior was not sure; such a verdict is not used, except in *literal*. *First wrong*: it names the first "
        "mistake (which is the first irrecoverable step, unless mistakes are recoverable). *Evidence*: a probe of the "
        "search succeeded; without any in the whole tree, ELPO's bisections mark nothing. *Probes*: their share of "
        "the rollouts. The last columns are success rates.",
        "",
        "First policy:",
        *search_table(data, "first"),
        "Half-learnt policy:",
        *search_table(data, "half"),
        "## Which failure is searched",
        "",
        *entropy_tables(data),
        "## What the clip cuts off",
        "",
        "Along the learning curves at equal rollouts, over all seeds: the share of terms whose gradient the clip cuts "
        "off (of trees with a gradient, all four mini-batches; in the first of a batch all ratios are 1), the share of "
        "terms at or behind a critical step (*localized*), and how many of these the clip cuts off, with the lower "
        "bound relaxed there.",
        *clip_table(data),
        "## What would help",
        "",
        "Other settings of ELPO: B_max (`failures`), one try an anchor (`tries_max = 1`), the posterior, completions "
        "from steps at random in the place of a search; each with the default credit, and with λ_tree = 0 and shared "
        "steps counted once. First policy, traps anywhere; SNR per prompt, per 1000 action tokens, and the share of "
        "prompts without gradient (*none*).",
        *better_tables(data),
        "Two of them learn, too, on the same seeds as above. They were picked by a look at such a table of 300 "
        "prompts, which the seeds of the curves have no part in.",
        "",
        *learning(data, "better curves", BEST),
        f"Command: `python benchmarks/planted.py`. {data['prompts']} prompts (seed 0) for gradients and searches, "
        f"seeds 1 to {data['seeds']} for the curves. Machine: {platform.machine()}, 1 thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}. Data: [planted.json](planted.json).",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small samples, and nothing is written")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()
    gc.disable()  # trees are many objects: all are collected when they are done with, which halves the time
    prompts, seeds = (40, 2) if parsed.quick else (400, 10)
    data: dict = {"prompts": prompts, "seeds": seeds, "gradients": {}, "curves": {}, "better": {}, "better curves": {}}
    if RECORD.exists() and not parsed.fresh and not parsed.quick:
        data = json.loads(RECORD.read_text())

    def keep() -> None:
        print({part: len(found) for part, found in data.items() if isinstance(found, dict)}, flush=True)
        if not parsed.quick:
            RECORD.write_text(json.dumps(data) + "\n")

    measure_everything(prompts, seeds, data, keep)
    page = render(data)
    print(page)
    if not parsed.quick:
        (RESULTS / "planted.md").write_text(page)
        draw(data)


if __name__ == "__main__":
    main()
