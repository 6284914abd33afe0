"""Methods where the truth is known: gradients, searches and learning curves on planted mistakes.

python benchmarks/planted.py            # docs/results/planted.md, .json and .svg; goes on where it was interrupted
python benchmarks/planted.py --fresh    # the same from the start
python benchmarks/planted.py --quick    # a tenth of the prompts, 2 seeds; only prints
"""

from __future__ import annotations

import argparse
import gc
import json
from dataclasses import replace
from pathlib import Path

import torch
from planted_page import draw, render, standard_error

from firstfault.credit import mean
from firstfault.methods import ELPO, GRPO, Method
from firstfault.planted.process import PlantedProcess, traps
from firstfault.planted.quality import (
    choices,
    cosine,
    exploration,
    learn,
    localization,
    signal_to_noise,
)
from firstfault.planted.tabular import TabularPolicy, exact_gradient, gradients, grow, success_probability
from firstfault.tree import Task

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PROCESSES = {
    f"{mistake}, {where}": PlantedProcess(traps=traps(mistake), where=where)
    for mistake in ("silent", "dead end", "recoverable")
    for where in ("anywhere", "early", "late")
}
ANYWHERE = [name for name in PROCESSES if "anywhere" in name]


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
        "literal": {"literal": True},
    }.items()
]
LEARNING: dict[str, Method] = {"GRPO": GRPO_, "ELPO": elpo(), "posterior": elpo(search="posterior")}
BEST: dict[str, Method] = {  # those of `BETTER` that learn, too
    "one try, λ=0, once": elpo(tries_max=1, **ONCE),
    "posterior, λ=0, once": elpo(search="posterior", **ONCE),
}
STEPS, STEP_SIZE, LONG = 10, 0.1, 0.3
RECORD = RESULTS / "planted.json"


def measure(process: PlantedProcess, policy: TabularPolicy, methods: dict[str, Method], prompts: int) -> list[dict]:
    """Of each of `methods`, which explore alike: its gradient, and the searches it made."""
    tasks = process.train(seed=0, first=0, n=prompts)
    exact = exact_gradient(process, tasks, policy)
    trees = grow(next(iter(methods.values())), process, policy, tasks, key=(0,))
    found = {
        **exploration(trees),
        **localization(process.first_irrecoverable, trees),
        "first_wrong": localization(process.first_wrong, trees)["exact"],
    }
    rows = []
    for label, method in methods.items():
        method.credit(trees)
        shares = gradients(method, trees, policy.logits)
        snr, error = signal_to_noise(shares)
        zero = mean([not tree.has_gradient for tree in trees])
        quality = {"snr": snr, "snr_error": error, "zero": zero, "cosine": cosine(shares, exact)}
        if label == "ELPO":
            chosen, latest = zip(*choices(process.first_irrecoverable, trees), strict=True)
            quality |= {"later": mean(chosen), "later_error": standard_error(chosen), "latest": mean(latest)}
        rows.append({"method": label, **{column: round(number, 5) for column, number in {**quality, **found}.items()}})
    gc.collect()
    return rows


def measure_all(process: PlantedProcess, policy: TabularPolicy, settings: list[dict], prompts: int) -> list[dict]:
    return [row for methods in settings for row in measure(process, policy, methods, prompts)]


def gradients_and_searches(name: str, process: PlantedProcess, prompts: int) -> dict:
    """Of the first policy and of a half-learnt one; with traps anywhere, also with other entropies after a mistake."""
    first, tasks = TabularPolicy.first(process), process.train(seed=0, first=0, n=prompts)
    points = learn(GRPO_, process, steps=20, step_size=STEP_SIZE, seed=0, held_out=held_out(process))
    half = min(points, key=lambda point: abs(point.success - 0.5)).policy
    found: dict = {"success": {}, "entropy": {}}
    for stage, policy, settings in [("first", first, SETTINGS), ("half", half, SETTINGS[:3])]:
        found["success"][stage] = round(success_probability(process, tasks, policy), 4)
        found[stage] = measure_all(process, policy, settings, prompts)
    for entropy in ("raised", "zero") if name in ANYWHERE else ():
        told = replace(process, entropy=entropy)
        [found["entropy"][entropy]] = measure(told, first, {"ELPO": elpo()}, prompts)
    return found


def held_out(process: PlantedProcess) -> list[Task]:
    return process.train(seed=-1, first=0, n=64)


def curves(
    process: PlantedProcess, methods: dict[str, Method], tokens: int, seeds: int, step_size: float = STEP_SIZE
) -> list[dict]:
    """Learning curves with batches of 16 prompts, and of `tokens` tokens."""
    found = []
    for seed in range(1, seeds + 1):
        for equal, size in [("rollouts", {"prompts": 16}), ("tokens", {"tokens": tokens})]:
            for label, method in methods.items():
                options = {"steps": STEPS, "step_size": step_size, "seed": seed, "held_out": held_out(process)}
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
        "gradients": (PROCESSES, lambda name, process: gradients_and_searches(name, process, prompts)),
        "curves": (PROCESSES, lambda name, process: curves(process, LEARNING, tokens(name), seeds)),
        "long steps": (ANYWHERE, lambda name, process: curves(process, LEARNING, tokens(name), 2, LONG)),
        "better": (ANYWHERE, lambda name, process: measure_all(process, TabularPolicy.first(process), BETTER, prompts)),
        "better curves": (ANYWHERE, lambda name, process: curves(process, BEST, tokens(name), seeds)),
    }
    for part, (names, measured) in parts.items():
        for name in names:
            if name not in data[part]:
                data[part][name] = measured(name, PROCESSES[name])
                keep()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small samples, and nothing is written")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()
    gc.disable()  # trees are many objects: all are collected when they are done with, which halves the time
    prompts, seeds = (40, 2) if parsed.quick else (400, 10)
    data: dict = {"prompts": prompts, "seeds": seeds, "steps": STEPS, "step_size": STEP_SIZE, "long": LONG}
    data |= {part: {} for part in ("gradients", "curves", "long steps", "better", "better curves")}
    if RECORD.exists() and not parsed.fresh and not parsed.quick:
        data |= json.loads(RECORD.read_text())

    def keep() -> None:
        print({part: len(found) for part, found in data.items() if isinstance(found, dict)}, flush=True)
        if not parsed.quick:
            RECORD.write_text(json.dumps(data) + "\n")

    measure_everything(prompts, seeds, data, keep)
    page = render(data)
    print(page)
    if not parsed.quick:
        (RESULTS / "planted.md").write_text(page)
        draw(data, RESULTS / "planted.svg")


if __name__ == "__main__":
    main()
