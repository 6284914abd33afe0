"""What is drawn of finished runs: success along what was spent, and how training went, means over seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from firstfault.evaluation.statistics import mean_t

Kept = Mapping[str, Any]  # a cell.json
Runs = dict[tuple[str, str, int], Kept]  # by family, method and seed

AXES = {
    "iterations": "iterations",
    "rollouts": "rollouts",
    "generated_tokens": "generated tokens",
    "seconds": "seconds of training",
}
# what has curves along iterations beside success; `training` says what it is of one run
TRAINING = {
    "per_100_calls": "successes per 100 tool calls",
    "success_whole": "success of whole rollouts in training",
    "gradient": "share of groups with a gradient",
    "entropy": "entropy in nats",
}
SHARES = ("success", "success_whole", "gradient")


def spent(kept: Kept, axis: str) -> list[float]:
    """What was spent by the time of each evaluation."""
    if axis == "iterations":
        return [record["iteration"] for record in kept["evaluations"]]
    return [record["spent"][axis] for record in kept["evaluations"]]


def curves(runs: Runs, families: Sequence[str], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Means over seeds, by measure and axis.

    Sampled success is that of each evaluation, at the mean of what the seeds had spent by then. All others are along
    iterations, those in which every seed has the measure.
    """
    drawn = []
    for family, method in itertools.product(families, methods):
        own = [kept for (f, m, _), kept in runs.items() if (f, m) == (family, method)]
        if not own:
            continue
        found = {}
        for axis in AXES:
            at = np.mean([spent(kept, axis) for kept in own], axis=0)
            success = np.array([[record["sampled"] for record in kept["evaluations"]] for kept in own])
            found["success", axis] = [
                {"at": float(x), **interval(values)} for x, values in zip(at, success.T, strict=True)
            ]
        trained = [training(kept) for kept in own]
        for measure in TRAINING:
            of_runs = [run[measure] for run in trained]
            most = 1.0 if measure in SHARES else math.inf
            found[measure, "iterations"] = [
                {"at": float(i), **interval([values[i] for values in of_runs], most)}
                for i in of_runs[0]
                if all(i in values for values in of_runs)
            ]
        drawn += [
            {"family": family, "method": method, "measure": measure, "axis": axis, "points": points}
            for (measure, axis), points in found.items()
            if points
        ]
    return drawn


def training(kept: Kept) -> dict[str, dict[int, float]]:
    """The measures of `TRAINING` by iteration, where they are known.

    Two iterations of a run, in the second of which nothing had a gradient:

    >>> rows = [{"iteration": 1, "zero_gradient_groups": 0.25, "entropy": 0.5},
    ...         {"iteration": 2, "zero_gradient_groups": 1.0}]
    >>> training({"iterations": rows, "evaluations": [{"iteration": 0, "sampled": 0.5, "calls_per_run": 4.0}]})
    {'per_100_calls': {0: 12.5}, 'success_whole': {}, 'gradient': {1: 0.75, 2: 0.0}, 'entropy': {1: 0.5}}
    """
    rows = kept["iterations"]
    found = {
        "per_100_calls": {
            record["iteration"]: 100 * record["sampled"] / record["calls_per_run"]
            for record in kept["evaluations"]
            if record["calls_per_run"]
        },
        "gradient": {
            row["iteration"]: 1 - row["zero_gradient_groups"] for row in rows if "zero_gradient_groups" in row
        },
        **{name: {row["iteration"]: row[name] for row in rows if name in row} for name in ("success_whole", "entropy")},
    }
    return {name: {i: value for i, value in found[name].items() if math.isfinite(value)} for name in TRAINING}


def interval(values: Sequence[float], most: float = 1.0) -> dict[str, float | None]:
    """Of what nothing takes below 0 or above `most`; None where nothing tells how seeds differ."""
    mean, low, high = mean_t(values)
    unknown = math.isinf(low)
    return {"mean": mean, "low": None if unknown else max(0.0, low), "high": None if unknown else min(most, high)}
