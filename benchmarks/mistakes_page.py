"""The page and the picture of what `mistakes.py` measures and `firstfault compare` trained."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from planted_page import draw_gains, gain, snr, table, told

from firstfault.credit import mean
from firstfault.evaluation.claims.compared import read_runs
from firstfault.evaluation.results import Kept, Runs, along, learnt

BUDGETS = {"16 rollouts a task": "mistakes", "16,000 tokens an iteration": "mistakes-tokens"}  # folders of results
MEASURES = ("after training", "along the way")
TOGETHER = ("silent", "dead end", "recoverable", "anywhere", "early", "late")  # parts of the families' names
RESULTS = Path(__file__).parent.parent / "docs" / "results"

SEARCHES = {
    "per prompt": "searches", "exact": "exact", "early": "early", "late": "late", "none": "none",
    "unfinished": "unfinished", "evidence": "evidence", "probes": "probe_share", "whole runs won": "success_whole",
    "probes won": "success_probe",
}  # fmt: skip
LEARNT = {
    "probes": "probes", "searches an iteration": "searches", "unfinished": "unfinished", "used": "used",
    "terms from the fault on": "localized", "of these cut": "clipped_localized", "of all cut": "clipped",
}  # fmt: skip


def trained(budget: str) -> Runs:
    """The runs of ELPO and GRPO at a budget of `BUDGETS`; a method that overspent on a family has none there."""
    return read_runs(RESULTS / BUDGETS[budget])[0]


def score(kept: Kept, measure: str) -> float:
    last = kept["evaluations"][-1]
    return last["sampled"] if measure == "after training" else along(kept, "iterations", last["iteration"]).mean()


def pairs(runs: Runs, families: Sequence[str]) -> list[list[tuple[Kept, Kept]]]:
    """ELPO's and GRPO's run on each of these families, for every seed that has them all."""
    seeds = sorted({seed for _, _, seed in runs})
    keys = [[[(family, method, seed) for method in ("elpo", "grpo")] for family in families] for seed in seeds]
    return [[(runs[a], runs[b]) for a, b in of] for of in keys if all(key in runs for pair in of for key in pair)]


def gains(runs: Runs, families: Sequence[str], measure: str) -> list[float]:
    """ELPO less GRPO, by seed: families share their tasks and seeds, so that their runs are not independent."""
    return [mean([score(a, measure) - score(b, measure) for a, b in of]) for of in pairs(runs, families)]


def shown(runs: Runs, groups: Mapping[str, Sequence[str]]) -> dict[str, dict[str, dict]]:
    """By measure and name of a group of families, what its gains show, corrected for the number of groups."""
    return {m: told({name: gains(runs, group, m) for name, group in groups.items()}) for m in MEASURES}


def training(budgets: Mapping[str, Runs], families: Sequence[str]) -> list[str]:
    lines = []
    head = [f"{what}{measure}" for measure in MEASURES for what in ("ELPO less GRPO, ", "p, ", "verdict, ")]
    for budget, runs in budgets.items():
        found, rows = shown(runs, {family: [family] for family in families}), []
        for family in families:
            elpo, grpo = zip(*(pair for [pair] in pairs(runs, [family])), strict=True)
            levels = [mean([kept["evaluations"][at]["sampled"] for kept in grpo]) for at in (0, -1)]
            tokens = [sum(kept["spend"]["generated_tokens"] for kept in own) for own in (elpo, grpo)]
            told_of = [text for measure in MEASURES for text in gain(found[measure][family])]
            rows.append([family, *(f"{x:.2f}" for x in levels), *told_of, f"{tokens[0] / tokens[1]:.2f}"])
        lines += [f"Equal budget of {budget}, {len(pairs(runs, families))} seeds:"]
        lines += table(["mistakes", "before", "GRPO, after", *head, "ELPO's tokens / GRPO's"], rows)
        groups = {part: [family for family in families if part in family] for part in TOGETHER} | {"all": families}
        found = shown(runs, groups)
        lines += ["The same of several forms together, a mean over them for every seed:"]
        rows = [[name, *(text for measure in MEASURES for text in gain(found[measure][name]))] for name in groups]
        lines += table(["mistakes", *head], rows)
    return lines


def mechanisms(runs: Runs, families: Sequence[str]) -> list[str]:
    rows = []
    for family in families:
        elpo, grpo = zip(*((learnt(a), learnt(b)) for [(a, b)] in pairs(runs, [family])), strict=True)
        shares = [f"{mean([way[key] or 0.0 for way in elpo]):.3f}" for key in LEARNT.values()]
        rows.append([family, *shares, *(f"{mean([way['idle'] for way in ways]):.2f}" for ways in (elpo, grpo))])
    return table(["mistakes", *LEARNT, "groups without gradient", "GRPO's"], rows)


def draw(budgets: Mapping[str, Runs], families: Sequence[str], path: Path) -> None:
    groups = {family: [family] for family in families}
    draw_gains({budget: shown(runs, groups) for budget, runs in budgets.items()}, "success of ELPO less GRPO's", path)


def quality(families: dict[str, dict], stage: str) -> list[str]:
    cells = {name: found[stage] for name, found in families.items()}
    methods = [row["method"] for row in next(iter(cells.values()))]

    def wide(what) -> list[str]:
        return table(["", *methods], [[name, *map(what, rows)] for name, rows in cells.items()])

    elpo = {name: next(row for row in rows if row["method"] == "ELPO") for name, rows in cells.items()}
    searched = [[name, *(f"{row[column]:.2f}" for column in SEARCHES.values())] for name, row in elpo.items()]
    later = [[name, f"{row['later']:+.2f} ± {row['later_error']:.2f}", f"{row['latest']:+.2f}"]
             for name, row in elpo.items()]  # fmt: skip
    return [
        "Success of whole runs: " + ", ".join(f"{n} {rows[0]['success_whole']:.3f}" for n, rows in cells.items()),
        "",
        "SNR per prompt, |E g|² / tr Cov(g), g being what a prompt adds to the gradient, ± bootstrap standard "
        "error over prompts:",
        *wide(lambda row: snr(row, digits=4)),
        "SNR per 1000 generated tokens:",
        *wide(lambda row: snr(row, 1000 / row["tokens"], 4)),
        "Generated tokens per prompt / share of prompts without any gradient:",
        *wide(lambda row: f"{row['tokens']:.0f} / {row['zero']:.2f}"),
        "ELPO's searches, against the first wrong step of the run that was searched (columns as in "
        "[planted mistakes](planted.md#searches)):",
        *table(["mistakes", *SEARCHES], searched),
        "How much later the run that ELPO searched went wrong than the three it was chosen from, in steps, ± "
        "standard error over searches; *latest* is what choosing the one that went wrong last would give:",
        *table(["", "chosen", "latest"], later),
    ]


def render(data: dict, budgets: Mapping[str, Runs]) -> str:
    families = list(data["families"])
    lines = [
        "# Mistakes of the tiny policy",
        "",
        "ELPO and GRPO on `arithmetic` with mistakes of nine forms, for a policy of 0.6M parameters with the settings "
        "of `recipes/mistakes.toml`: what [planted mistakes](planted.md) tell of a tabular policy, with the tasks' own "
        "knowledge of the first wrong step in the place of the exact values. Of silent mistakes and dead ends it is "
        "the first irrecoverable step; a recoverable one can be repaired after it. "
        "[What this says](../findings.md#the-same-mistakes-of-a-policy-that-reads).",
        "",
        "## Training",
        "",
        "Sampled success on 128 held-out problems after 8 iterations, and its mean along them; differences with 95 % "
        "t-intervals over seeds, p after Holm's correction over the rows of a table. All runs had as many updates to "
        "make; where a mini-batch has no gradient, one is left out.",
        "",
        "![Differences with their intervals](mistakes.svg)",
        "",
        *training(budgets, families),
        "How ELPO learnt at equal rollouts, means over iterations and seeds, shares but for the searches:",
        *mechanisms(next(iter(budgets.values())), families),
    ]
    stages = {
        "first": "the policy that training starts from",
        "half": f"the policy after {data['half']} iterations of GRPO",
    }
    for stage, title in stages.items():
        lines += [f"## Gradients and searches of {title}", "", *quality(data["families"], stage)]
    commands = (
        "`firstfault compare --config recipes/mistakes.toml --out docs/results/mistakes`, the same with "
        "`--budget tokens=16000 --batch 10 --out docs/results/mistakes-tokens`, `python benchmarks/mistakes.py`"
    )
    lines += [
        "Gradients are of 16 rollouts a prompt, and of prompts that no run is trained on: "
        f"{data['prompts']} of each form. Columns other than GRPO are ELPO: its default, λ_tree of 0 or 1, and "
        "shared steps counted *once*.",
        "",
        f"Commands: {commands}. Machine: {platform.machine()}, 1 thread a run, Python {platform.python_version()}, "
        f"torch {torch.__version__}. Data: [mistakes.json](mistakes.json), [runs](mistakes), "
        "[runs at equal tokens](mistakes-tokens).",
        "",
    ]
    return "\n".join(lines)
