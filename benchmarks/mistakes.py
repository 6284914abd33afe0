"""ELPO and GRPO on silent, dead-end and recoverable mistakes of the tiny policy: recipes/mistakes.toml.

python benchmarks/mistakes.py            # docs/results/mistakes.md and .json; goes on where it was interrupted
python benchmarks/mistakes.py --quick    # 20 prompts of one family; only prints

What benchmarks/planted.py measures of a tabular policy, as far as it can be known here. A family takes about
twenty minutes on a core.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch
from mistakes_page import BUDGETS, RESULTS, draw, render, trained
from planted_page import standard_error
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

RECORD = RESULTS / "mistakes.json"
RECIPE = Path(__file__).parent.parent / "recipes" / "mistakes.toml"
# Methods of one line explore alike: they give credit to the same trees.
SETTINGS: list[dict[str, Method]] = [
    {"GRPO": GRPO()},
    {
        "ELPO": ELPO(),
        "λ=0": ELPO(lambda_tree=0),
        "λ=1": ELPO(lambda_tree=1),
        "λ=0, once": ELPO(lambda_tree=0, shared="once"),
    },
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small samples of one family, and nothing is written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="families side by side")
    parsed = parser.parse_args()
    prompts = 20 if parsed.quick else 300
    data = {"prompts": prompts, "half": HALF, "families": {}}
    if RECORD.exists() and not parsed.quick:
        data = json.loads(RECORD.read_text())
    configs = families()
    waiting = [name for name in configs if name not in data["families"]][: 1 if parsed.quick else None]
    with ProcessPoolExecutor(parsed.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        asked = {pool.submit(both_policies, configs[name], prompts): name for name in waiting}
        for done in as_completed(asked):
            data["families"][asked[done]] = done.result()
            print(asked[done], flush=True)
            if not parsed.quick:
                RECORD.write_text(json.dumps(data) + "\n")
    data["families"] = {name: data["families"][name] for name in configs if name in data["families"]}
    budgets = {budget: trained(budget) for budget in BUDGETS}
    page = render(data, budgets)
    print(page)
    if not parsed.quick:
        (RESULTS / "mistakes.md").write_text(page)
        draw(budgets, list(data["families"]), RESULTS / "mistakes.svg")


if __name__ == "__main__":
    main()
