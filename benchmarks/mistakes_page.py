"""The page and the picture of what `mistakes.py` measures and `firstfault compare` trained."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from planted_page import draw_gains, gain, snr, table, told

from firstfault.credit import mean
from firstfault.evaluation.findings import along, learnt
from firstfault.evaluation.statistics import mean_t, p_value

BUDGETS = {"16 rollouts a task": "mistakes", "16,000 tokens an iteration": "mistakes-tokens"}  # folders of results
MEASURES = ("after training", "along the way")
TOGETHER = ("silent", "dead end", "recoverable", "anywhere", "early", "late", "")  # parts of the families' names

SEARCHES = {
    "per prompt": "searches", "exact": "exact", "early": "early", "late": "late", "none": "none",
    "unfinished": "unfinished", "evidence": "evidence", "probes": "probe_share", "whole runs won": "success_whole",
    "probes won": "success_probe",
}  # fmt: skip
LEARNT = {
    "probes": "probes", "searches an iteration": "searches", "unfinished": "unfinished", "used": "used",
    "terms from the fault on": "localized", "of these cut": "clipped_localized", "of all cut": "clipped",
}  # fmt: skip


class Trained:
    """A comparison of ELPO with GRPO on the families of the recipe, from the cells that it left."""

    def __init__(self, folder: Path, families: Sequence[str]):
        cells = [json.loads(path.read_text()) for path in folder.glob("cells/*/*/*/*/cell.json")]
        self.runs = {(cell["family"], cell["method"], cell["seed"]): cell for cell in cells}
        self.families = [family for family in families if self.seeds(family)]

    def seeds(self, family: str) -> list[int]:
        """Those with which both methods were trained."""
        seeds = sorted({seed for _, _, seed in self.runs})
        return [s for s in seeds if all((family, method, s) in self.runs for method in ("grpo", "elpo"))]

    def of(self, family: str, method: str) -> list[dict]:
        return [self.runs[family, method, seed] for seed in self.seeds(family)]

    def scores(self, family: str, method: str, measure: str) -> list[float]:
        """By seed."""
        if measure == "after training":
            return [run["evaluations"][-1]["sampled"] for run in self.of(family, method)]
        ends = [run["evaluations"][-1]["iteration"] for run in self.of(family, method)]
        return [along(run, "iterations", end).mean() for run, end in zip(self.of(family, method), ends, strict=True)]

    def gains(self, family: str, measure: str) -> list[float]:
        """ELPO less GRPO, by seed."""
        return [a - b for a, b in zip(*(self.scores(family, m, measure) for m in ("elpo", "grpo")), strict=True)]

    def told(self, measure: str) -> dict[str, dict]:
        """Of each family, what its gains show, corrected for the number of families."""
        return told({family: self.gains(family, measure) for family in self.families})

    def together(self, part: str, measure: str) -> str:
        """The mean gain over all seeds of the families that have `part` in their name, with its interval and p."""
        gains = [gain for family in self.families if part in family for gain in self.gains(family, measure)]
        middle, low, high = mean_t(gains)
        return f"{middle:+.3f} [{low:+.3f}, {high:+.3f}], p = {p_value(gains):.2g}"


def training(trained: dict[str, Trained]) -> list[str]:
    lines = []
    for budget, those in trained.items():
        seeds = sorted({len(those.seeds(family)) for family in those.families})
        lines += [f"Equal budget of {budget}, {' to '.join(map(str, seeds))} seeds:"]
        shown = {measure: those.told(measure) for measure in MEASURES}
        rows = []
        for family in those.families:
            grpo = mean(those.scores(family, "grpo", "after training"))
            before = mean([run["evaluations"][0]["sampled"] for run in those.of(family, "grpo")])
            tokens = [sum(run["spend"]["generated_tokens"] for run in those.of(family, m)) for m in ("elpo", "grpo")]
            gains = [text for measure in MEASURES for text in gain(shown[measure][family])]
            rows.append([family, f"{before:.2f}", f"{grpo:.2f}", *gains, f"{tokens[0] / tokens[1]:.2f}"])
        head = [f"{what}{measure}" for measure in MEASURES for what in ("ELPO less GRPO, ", "p, ", "verdict, ")]
        lines += table(["mistakes", "before", "GRPO, after", *head, "ELPO's tokens / GRPO's"], rows)
    rows = [
        [part or "all", *(those.together(part, measure) for those in trained.values() for measure in MEASURES)]
        for part in TOGETHER
        if all(any(part in family for family in those.families) for those in trained.values())
    ]
    lines += ["Several forms together, every pair of runs one difference; p is not corrected:"]
    return lines + table(["mistakes", *(f"{budget}, {m}" for budget in trained for m in MEASURES)], rows)


def mechanisms(those: Trained) -> list[str]:
    rows = []
    for family in those.families:
        ways = {m: [learnt(run) for run in those.of(family, m)] for m in ("grpo", "elpo")}
        shown = [[way[key] for way in ways["elpo"]] for key in LEARNT.values()]
        idle = [f"{mean([way['idle'] for way in ways[m]]):.2f}" for m in ("elpo", "grpo")]
        rows.append([family, *(f"{mean([v or 0.0 for v in values]):.3f}" for values in shown), *idle])
    return table(["mistakes", *LEARNT, "groups without gradient", "GRPO's"], rows)


def draw(trained: dict[str, Trained], path: Path) -> None:
    panels = {budget: {m: those.told(m) for m in MEASURES} for budget, those in trained.items()}
    draw_gains(panels, "success of ELPO less GRPO's", path)


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


def render(data: dict, trained: dict[str, Trained]) -> str:
    lines = [
        "# Mistakes of the tiny policy",
        "",
        "ELPO and GRPO on `arithmetic` with mistakes of nine forms, for a policy of 0.6M parameters with the settings "
        "of `recipes/mistakes.toml`: what [planted mistakes](planted.md) tell of a tabular policy, with the tasks' own "
        "knowledge of the first wrong step in the place of the exact values. Of silent mistakes and dead ends it is "
        "the first irrecoverable step; a recoverable one can be repaired after it. [What this says](../planted.md).",
        "",
        "## Training",
        "",
        "Sampled success on 128 held-out problems after 8 iterations, and its mean along them; differences with 95 % "
        "t-intervals over seeds, p after Holm's correction over the nine. All runs have as many updates.",
        "",
        "![Differences with their intervals](mistakes.svg)",
        "",
        *training(trained),
        "How ELPO learnt at equal rollouts, means over iterations and seeds, shares but for the searches:",
        *mechanisms(next(iter(trained.values()))),
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
