"""Gradients and searches of the tiny policy on silent, dead-end and recoverable mistakes: recipes/mistakes.toml.

python benchmarks/mistakes.py            # docs/results/mistakes.md and .json; goes on where it was interrupted
python benchmarks/mistakes.py --quick    # a tenth of the prompts, one family; only prints

What benchmarks/planted.py measures of a tabular policy, as far as it can be known here. A family takes a quarter of an
hour on a core.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import tempfile
from functools import partial
from pathlib import Path

import torch
from planted_page import snr, standard_error, table
from rich.console import Console
from torch import Tensor

from firstfault.config import RunConfig, merge, read_recipe, validated
from firstfault.credit import mean
from firstfault.losses import TermBatch
from firstfault.methods import ELPO, GRPO, Method
from firstfault.planted.quality import choices, exploration, localization, signal_to_noise
from firstfault.training.build import build_tasks
from firstfault.training.learner import Learner, term_batch, total_weight
from firstfault.training.loop import Trainer, grow
from firstfault.training.pack import pack
from firstfault.tree import Tree

RESULTS = Path(__file__).parent.parent / "docs" / "results"
RECORD = RESULTS / "mistakes.json"
RECIPE = Path(__file__).parent.parent / "recipes" / "mistakes.toml"
ONCE = {"lambda_tree": 0, "shared": "once"}
# Methods of one line explore alike: they give credit to the same trees.
SETTINGS: list[dict[str, Method]] = [
    {"GRPO": GRPO()},
    {"ELPO": ELPO(), "λ=0": ELPO(lambda_tree=0), "λ=1": ELPO(lambda_tree=1), "λ=0, once": ELPO(**ONCE)},
    {"posterior": ELPO(search="posterior"), "posterior, λ=0, once": ELPO(search="posterior", **ONCE)},
]
HALF = 4  # iterations of GRPO behind which everything is measured again


def gradients(learner: Learner, trees: list[Tree], loss) -> Tensor:
    """What each tree adds to the loss's gradient, were all trees one mini-batch, [trees, parameters]."""
    total = total_weight(trees)
    parameters = list(learner.model.parameters())
    shares = torch.zeros(len(trees), sum(p.numel() for p in parameters))
    for share, tree in zip(shares, trees, strict=True):
        if tree.has_gradient:
            packed = pack([tree])
            logprobs, _ = learner.logprobs(packed, learner.hidden(packed))
            terms: TermBatch = term_batch(packed, logprobs, total)
            loss(terms).backward()
            share.copy_(torch.cat([p.grad.flatten() for p in parameters]))
            learner.model.zero_grad()
    return shares


async def measure(trainer: Trainer, prompts: int) -> list[dict]:
    """Of each method: its gradient, and the searches it made."""
    source, rows = trainer.source, []
    tasks = source.train(seed=1000, first=0, n=prompts)  # no run is trained on these
    for methods in SETTINGS:
        trees = await grow(next(iter(methods.values())), trainer.agent, tasks, key=(1000, 1))
        found = {
            **exploration(trees),
            **localization(source.first_wrong_step, trees),
        }
        for label, method in methods.items():
            method.credit(trees)
            signal, error = signal_to_noise(gradients(trainer.learner, trees, method.loss))
            quality = {"snr": signal, "snr_error": error, "zero": mean([not tree.has_gradient for tree in trees])}
            if label == "ELPO":
                chosen, latest = zip(*choices(source.first_wrong_step, trees), strict=True)
                quality |= {"later": mean(chosen), "later_error": standard_error(chosen), "latest": mean(latest)}
            rows.append({"method": label, **{key: round(value, 5) for key, value in (quality | found).items()}})
        del trees
        gc.collect()
    await trainer.agent.session.close()
    return rows


def both_policies(config: RunConfig, prompts: int) -> dict[str, list[dict]]:
    """Of the policy that training starts from, and of one that GRPO has taught for a while."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        config = validated(RunConfig, merge(config.model_dump(), {"run_dir": folder}), "settings")
        trainer = partial(Trainer, config, build_tasks(config.tasks), GRPO(), resume=True, console=Console(quiet=True))
        found["first"] = asyncio.run(measure(trainer(), prompts))
        trainer().train()
        found["half"] = asyncio.run(measure(trainer(), prompts))
    return found


def families() -> dict[str, RunConfig]:
    """The settings of each family of the recipe; runs are as long as it takes to half-learn."""
    recipe = read_recipe(RECIPE)
    recipe.pop("compare")
    own = recipe.pop("families")
    half = {"steps": HALF, "method": {"name": "grpo"}, "evaluation": {"problems": 0}, "threads": 1, "tracker": "none"}
    recipe["optimizer"]["schedule"] = "constant"
    return {name: validated(RunConfig, merge(merge(recipe, of), half), "settings") for name, of in own.items()}


SEARCHES = {
    "per prompt": "searches", "exact": "exact", "early": "early", "late": "late", "none": "none",
    "unfinished": "unfinished", "evidence": "evidence", "probes": "probe_share", "whole runs won": "success_whole",
    "probes won": "success_probe",
}  # fmt: skip


def render(data: dict) -> str:
    lines = [
        "# Mistakes of the tiny policy",
        "",
        "ELPO's and GRPO's gradients and searches on `arithmetic` with mistakes of nine forms, for a policy of 0.6M "
        "parameters with the settings of `recipes/mistakes.toml`: what [planted mistakes](planted.md) tell of a "
        "tabular policy, with the tasks' own knowledge of the first wrong step in the place of the exact values. Of "
        "silent mistakes and dead ends it is the first irrecoverable step; a recoverable one can be repaired behind "
        "it. 16 rollouts a prompt. Columns other than GRPO are ELPO: its default, λ_tree of 0 or 1, shared steps "
        "counted *once*, and the *posterior*.",
        "",
    ]
    stages = {"first": "The policy that training starts from", "half": f"Behind {HALF} iterations of GRPO"}
    for stage, title in stages.items():
        cells = {name: found[stage] for name, found in data["families"].items()}
        methods = [row["method"] for row in next(iter(cells.values()))]

        def wide(what, cells=cells, methods=methods) -> list[str]:
            return table(["", *methods], [[name, *map(what, rows)] for name, rows in cells.items()])

        searched = [
            [name, row["method"], *(f"{row[column]:.2f}" for column in SEARCHES.values())]
            for name, rows in cells.items()
            for row in rows
            if row["method"] in ("ELPO", "posterior")
        ]
        later = [[name, f"{row['later']:+.2f} ± {row['later_error']:.2f}", f"{row['latest']:+.2f}"]
                 for name, rows in cells.items() for row in rows if row["method"] == "ELPO"]  # fmt: skip
        lines += [
            f"## {title}",
            "",
            "Success of whole runs: " + ", ".join(f"{n} {rows[0]['success_whole']:.3f}" for n, rows in cells.items()),
            "",
            "SNR per prompt, |E g|² / tr Cov(g), g being what a prompt adds to the gradient, ± bootstrap standard "
            "error over prompts:",
            *wide(lambda row: snr(row, digits=4)),
            "SNR per 1000 generated tokens:",
            *wide(
                lambda row: f"{1000 * row['snr'] / row['tokens']:.4f} ± {1000 * row['snr_error'] / row['tokens']:.4f}"
            ),
            "Generated tokens per prompt / share of prompts without any gradient:",
            *wide(lambda row: f"{row['tokens']:.0f} / {row['zero']:.2f}"),
            "Searches, against the first wrong step of the run that was searched (columns as in "
            "[planted mistakes](planted.md#searches)):",
            *table(["mistakes", "search", *SEARCHES], searched),
            "How much later the run that ELPO searched went wrong than the three it was chosen from, in steps, ± "
            "standard error over searches; *latest* is what choosing the one that went wrong last would give:",
            *table(["", "chosen", "latest"], later),
        ]
    lines += [
        f"Command: `python benchmarks/mistakes.py`. {data['prompts']} prompts that no run is trained on. Machine: "
        f"{platform.machine()}, 1 thread, Python {platform.python_version()}, torch {torch.__version__}. Data: "
        "[mistakes.json](mistakes.json).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small samples of one family, and nothing is written")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    prompts = 20 if parsed.quick else 400
    data = {"prompts": prompts, "half": HALF, "families": {}}
    if RECORD.exists() and not parsed.quick:
        data = json.loads(RECORD.read_text())
    for name, config in list(families().items())[: 1 if parsed.quick else None]:
        if name not in data["families"]:
            data["families"][name] = both_policies(config, prompts)
            print(name, flush=True)
            if not parsed.quick:
                RECORD.write_text(json.dumps(data) + "\n")
    page = render(data)
    print(page)
    if not parsed.quick:
        (RESULTS / "mistakes.md").write_text(page)


if __name__ == "__main__":
    main()
