"""Claim 4: ELPO's gains in Pass@K and Major@K grow with K, most on Major@K."""

from __future__ import annotations

from functools import partial

import numpy as np

from firstfault.evaluation.claims.compared import Compared
from firstfault.evaluation.claims.finding import Finding
from firstfault.evaluation.results import Kept

PAPER = "grows with K, most on Major@K"
CEILING = 0.95


def at_the_end(kept: Kept, name: str) -> np.ndarray:
    """What a run has of it after training, of each problem."""
    return np.array(kept["evaluations"][-1]["outcomes"][name])


def gain(a: Kept, b: Kept, name: str) -> np.ndarray:
    """By how much the first run has more of it, of each problem."""
    return at_the_end(a, name) - at_the_end(b, name)


def growth(a: Kept, b: Kept, name: str, few: int, many: int) -> np.ndarray:
    """What more samples add to the gain.

    Of two problems, the first is gained at 4 samples, both are at 32:

    >>> run = lambda *outcomes: {"evaluations": [{"outcomes": dict(zip(("pass@4", "pass@32"), outcomes))}]}
    >>> growth(run([1, 0], [1, 1]), run([0, 0], [0, 0]), "pass", 4, 32).tolist()
    [0, 1]
    """
    return gain(a, b, f"{name}@{many}") - gain(a, b, f"{name}@{few}")


def finding(compared: Compared) -> Finding:
    """The gains over GRPO at each K, by how much they grow from the least to the largest, and which is larger there."""
    few, many = compared.ks[0], compared.ks[-1]
    pair = ["elpo", "grpo"]
    gains = [
        compared.figure(f"{name}@{k}: elpo - grpo", pair, partial(gain, name=f"{name.lower()}@{k}"))
        for name in ("Pass", "Major")
        for k in compared.ks
    ]
    differences = [
        compared.figure(
            f"{name}@K: gain at {many} - at {few}", pair, partial(growth, name=name.lower(), few=few, many=many), PAPER
        )
        for name in ("Pass", "Major")
    ]

    def at_most(a: Kept, b: Kept) -> np.ndarray:
        return gain(a, b, f"major@{many}") - gain(a, b, f"pass@{many}")

    differences.append(compared.figure(f"gain in Major@{many} - in Pass@{many}", pair, at_most, PAPER))
    of_grpo = compared.figure("grpo", ["grpo"], partial(at_the_end, name=f"pass@{many}"))
    full = (of_grpo.mean or 0) > CEILING
    notes = [f"GRPO's Pass@{many} is {of_grpo.mean:.3f}: hardly any room for a gain"] if full else []
    return compared.finding("pass-at-k", differences, levels=gains, notes=notes)
