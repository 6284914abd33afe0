"""The page and the picture of what `planted.py` measures."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
import torch

from firstfault.credit import mean
from firstfault.evaluation.statistics import LEVEL, holm, mean_t, p_value

T = TypeVar("T")


def standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5


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
    return told(gains)


def told(gains: Mapping[T, Sequence[float]]) -> dict[T, dict]:
    """What each of some gains, by seed or by run, shows; p is corrected for their number."""
    corrected = holm([p_value(gain) for gain in gains.values()])
    found = {}
    for (key, gain), p in zip(gains.items(), corrected, strict=True):
        middle, low, high = mean_t(gain)
        verdict = "not told apart" if p > LEVEL else "ahead" if middle > 0 else "behind"
        found[key] = {"gain": middle, "low": low, "high": high, "p": p, "verdict": verdict}
    return found


def gain(row: dict) -> list[str]:
    p = f"{row['p']:.3f}" if row["p"] >= 0.001 else "< .001"
    return [f"{row['gain']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]", p, row["verdict"]]


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
    rows = []
    for name, cell in data["gradients"].items():
        searches = cell[stage] + (data["better"].get(name, []) if stage == "first" else [])
        shown = [row for row in searches if row["method"] in ("ELPO", "verified", "literal")]
        shown += [row for row in cell[stage] if row["method"] == "posterior"]
        rows += [[name, row["method"], *(f"{row[column]:.2f}" for column in SEARCHES.values())] for row in shown]
    return table(["process", "search", *SEARCHES], rows)


def entropy_tables(data: dict) -> list[str]:
    def later(row: dict) -> str:
        return f"{row['later']:+.2f} ± {row['later_error']:.2f}"

    chosen, signal = [], []
    for name, cell in data["gradients"].items():
        first, half = ({row["method"]: row for row in cell[stage]} for stage in ("first", "half"))
        told = list(cell["entropy"].values())
        chosen.append([name, later(first["ELPO"]), f"{first['ELPO']['latest']:+.2f}", later(half["ELPO"]),
                       f"{half['ELPO']['latest']:+.2f}", *(map(later, told) if told else ["", ""])])  # fmt: skip
        if told:
            told.insert(0, first["ELPO"])
            signal.append([name, snr(first["GRPO"]), *map(snr, told), *(f"{row['exact']:.2f}" for row in told)])
    made_up = ["half a nat more", "zero"]
    return [
        "ELPO searches that of three failed runs whose entropy rose most. How much later it was lost than the three "
        "on average, in steps, ± standard error over searches: below 0, the rule prefers early losses. *Latest* is "
        "what choosing the run lost last would give. In the last two columns, the first policy's entropies after the "
        "first mistake of a run are made up: half a nat more than its own, or zero.",
        *table(["", "first policy", "latest", "half-learnt policy", "latest", *made_up], chosen),
        "What that does to the gradient (SNR per prompt, first policy) and to the searches (exact):",
        *table(["", "GRPO", *(f"ELPO, {m}" for m in ("own", *made_up)), *(f"exact, {m}" for m in ("own", *made_up))],
               signal),
    ]  # fmt: skip


def clip_table(part: dict[str, list[dict]]) -> list[str]:
    rows = []
    for name, curves in part.items():
        shares = []
        for method in ("GRPO", "ELPO", "posterior"):
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
    for name, settings in data["better"].items():
        others = ("posterior", "verified", "literal")
        known = [row for row in data["gradients"][name]["first"] if row["method"] not in others]
        for row in known + settings:
            label = row["method"] if row["method"] in ("GRPO", "ELPO") else f"ELPO, {row['method']}"
            rows.setdefault(label, [label]).extend([snr(row), per_token(row), f"{row['zero']:.2f}"])
    columns = [
        f"{name.split(',')[0]}, {what}" for name in data["better"] for what in ("SNR", "per 1000 tokens", "none")
    ]
    return table(["", *columns], list(rows.values()))


def draw(data: dict, path: Path) -> None:
    panels = {}
    for equal in ("rollouts", "tokens"):
        found = differences(data, "curves", ("ELPO", "posterior"), equal)
        panels[f"equal {equal}"] = {
            label: {name: found[name, method] for name in data["curves"]}
            for method, label in (("ELPO", "ELPO"), ("posterior", "ELPO, posterior"))
        }
    draw_gains(panels, "mean of the curve, less GRPO's", path)


def draw_gains(panels: dict[str, dict[str, dict[str, dict]]], what: str, path: Path) -> None:
    """Gains as `told` has them, by title of a panel, label of a colour, and name of a row."""
    plt.rcParams |= {"svg.hashsalt": "firstfault", "svg.fonttype": "path"}
    rows = list(dict.fromkeys(name for panel in panels.values() for gains in panel.values() for name in gains))
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 4.2), sharey=True, sharex=True)
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        for shift, ((label, gains), colour) in enumerate(zip(panel.items(), ("tab:blue", "tab:red"), strict=True)):
            for name, one in gains.items():
                row = rows.index(name)
                at = -row - 0.24 * (shift - 0.5)
                axis.plot([one["low"], one["high"]], [at, at], color=colour, lw=1.4)
                axis.plot(one["gain"], at, "o", color=colour, ms=4, label=label if row == 0 else None)
        axis.axvline(0, color="#8c959f", lw=0.8, zorder=0)
        axis.set(title=title, xlabel=what)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks([-row for row in range(len(rows))], rows)
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def render(data: dict) -> str:
    best = dict.fromkeys(curve["method"] for curves in data["better curves"].values() for curve in curves)
    lines = [
        "# Planted mistakes",
        "",
        "ELPO and GRPO on a process whose truth is known ([what it is](../planted.md), "
        "[what this says of them](../findings.md#where-the-truth-is-known)), "
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
        f"says at 5 %. {data['steps']} steps; each is a batch of new tasks, cut into 4 mini-batches, each of which "
        f"moves the logits by {data['step_size']} along the method's direction: a step has the same length whatever "
        "the gradient's. *Equal rollouts*: 16 tasks a batch. *Equal tokens*: as many tasks as it takes to write the "
        "tokens that 16 tasks take GRPO at the start. Updates are as many in both.",
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
        *clip_table(data["curves"]),
        f"With steps of {data['long']} in the place of {data['step_size']}, two seeds:",
        *clip_table(data["long steps"]),
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
        *learning(data, "better curves", best),
        f"Command: `python benchmarks/planted.py`. {data['prompts']} prompts (seed 0) for gradients and searches, "
        f"seeds 1 to {data['seeds']} for the curves. Machine: {platform.machine()}, 1 thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}. Data: [planted.json](planted.json).",
        "",
    ]  # fmt: skip
    return "\n".join(lines)
