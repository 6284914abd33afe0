"""How good a method is where the truth is known: its gradient, its searches, its learning (on a planted process)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from firstfault.credit import mean
from firstfault.methods.base import Method
from firstfault.planted.process import PlantedProcess
from firstfault.planted.tabular import TabularPolicy, credit, gradients, grow, success_probability
from firstfault.tree import Node, Task, Tree, Verdict


def signal_to_noise(shares: Tensor, resamples: int = 200) -> tuple[float, float]:
    """SNR = |E g|² / tr Cov(g) of one prompt's gradient g, and its bootstrap standard error over prompts.

    `shares` [prompts, ...] are independent draws of g. Since E|ḡ|² = |E g|² + tr Cov(g) / n, the second term is taken
    off: an estimate of pure noise is 0 on average (and may be negative). 1 / SNR is how many prompts it takes until
    signal and noise are equal, the "noise scale".

    >>> noise = torch.randn(2_000, 4, generator=torch.Generator().manual_seed(0))
    >>> snr, error = signal_to_noise(noise + torch.tensor([1.0, 0, 0, 0]))  # 1² / 4
    >>> round(snr, 2), error < 0.02
    (0.25, True)
    """
    g = shares.flatten(1)
    n, inner = len(g), (g @ g.T).double()

    def snr(weights: Tensor) -> Tensor:
        """Of each row of weights [B, n], whose sum is 1."""
        signal = (weights @ inner * weights).sum(1)
        noise = (weights @ inner.diagonal() - signal) * n / (n - 1)
        return signal / noise - 1 / n

    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    weights = torch.zeros(resamples, n, dtype=inner.dtype).scatter_add_(
        1, drawn, torch.ones_like(drawn, dtype=inner.dtype) / n
    )
    return snr(torch.full((1, n), 1 / n, dtype=inner.dtype)).item(), snr(weights).std().item()


def cosine(shares: Tensor, exact: Tensor) -> float:
    """Of the angle between the mean gradient and the exact one."""
    return torch.cosine_similarity(shares.mean(0).flatten().double(), exact.flatten().double(), dim=0).item()


def probes(tree: Tree) -> list[Node]:
    """The leaves of the completions that began at a step instead of the prompt."""
    return [leaf for leaf in tree.leaves if leaf.is_probe]


def exploration(trees: Sequence[Tree]) -> dict[str, float]:
    """Action tokens per tree, the share of rollouts that are probes, and the success of whole runs and of probes."""
    begun = [leaf for tree in trees for leaf in probes(tree)]
    whole = [leaf for tree in trees for leaf in tree.leaves if not leaf.is_probe]
    return {
        "tokens": sum(map(action_tokens, trees)) / len(trees),
        "probe_share": len(begun) / (len(begun) + len(whole)),
        "success_whole": mean([leaf.success for leaf in whole]),
        "success_probe": mean([leaf.success for leaf in begun]),
    }


Truth = Callable[[Task, Node], int | None]  # the step (from 1) at which a failed run was lost


def judge(truth: int | None, verdict: Verdict) -> str:
    """One search against the step at which its run was lost.

    "unfinished" if the budget cut it off, "none" if it wrongly says that no step is at fault; else the step that it
    names is "exact", "early" or "late".
    """
    if not verdict.finished:
        return "unfinished"
    if verdict.step == truth:
        return "exact"
    if not verdict.names_step:
        return "none"
    return "early" if verdict.step < truth else "late"


def localization(truth: Truth, trees: Sequence[Tree]) -> dict[str, float]:
    """Searches per tree, and of the searches the shares with each outcome (see `judge`), and of those that had a probe
    that succeeded (`evidence`)."""
    searches = [(tree, verdict) for tree in trees for verdict in tree.verdicts]
    outcomes = Counter(judge(truth(tree.task, tree.nodes[verdict.leaf]), verdict) for tree, verdict in searches)
    shares = {name: outcomes[name] for name in ("exact", "early", "late", "none", "unfinished")}
    shares["evidence"] = sum(any(probe.successes for probe in verdict.probes) for _, verdict in searches)
    return {"searches": len(searches) / len(trees), **{k: n / max(1, len(searches)) for k, n in shares.items()}}


def choices(truth: Truth, trees: Sequence[Tree], failures: int = 3) -> list[tuple[float, float]]:
    """How late the runs that ELPO's bisections chose were lost, each among `failures` failed runs, in steps.

    Of each search: the step at which the run that was chosen was lost, and that of the run lost last, both less the
    mean over all it was chosen from. As `ELPO.explore` has it, each search takes the next failed whole runs.
    """
    found = []
    for tree in trees:
        failed = [leaf for leaf in tree.leaves if not leaf.is_probe and not leaf.success]
        failed.sort(key=lambda leaf: leaf.rollout)
        for number, verdict in enumerate(tree.verdicts):
            among = failed[number * failures : (number + 1) * failures]
            lost = {leaf.index: truth(tree.task, leaf) for leaf in among}
            average = mean(list(lost.values()))
            found.append((lost[verdict.leaf] - average, max(lost.values()) - average))
    return found


@dataclass
class Point:
    """One point of a learning curve: what was spent so far, the policy, and its exact success probability."""

    rollouts: int
    tokens: int  # action tokens; a shared one counts once
    success: float
    policy: TabularPolicy = field(compare=False, repr=False)
    clipped: Counter = field(default_factory=Counter)  # sums so far, of trees with a gradient: `metrics.count_clipped`


def learn(
    method: Method,
    process: PlantedProcess,
    *,
    steps: int,
    seed: int,
    prompts: int = 16,
    tokens: int | None = None,
    mini_batches: int = 4,
    step_size: float = 0.5,
    held_out: Sequence[Task],
) -> list[Point]:
    """A learning curve of `steps` batches with new tasks, a point before each and one after the last.

    A batch has `prompts` tasks; with `tokens`, as many as it takes to write so many action tokens. It is cut into
    mini-batches, each of which moves the logits by `step_size` along the method's ascent direction. All methods see
    the same tasks, and equal keys give equal rollouts, so that curves of one seed are paired. Success is that on the
    tasks `held_out`.
    """
    first, number = TabularPolicy.first(process), 0
    policy = first
    spent = Point(0, 0, success_probability(process, held_out, policy), policy)
    points = [spent]
    for _ in range(steps):
        trees: list[Tree] = []
        while not trees if tokens is None else sum(map(action_tokens, trees)) < tokens:
            tasks = process.train(seed, number, prompts if tokens is None else 1)
            trees += grow(method, process, policy, tasks, (seed, number), reference=first)
            number += len(tasks)
        credit(method, trees, process, reference=first)
        credited = [tree for tree in trees if tree.is_credited]
        logits, clipped = policy.logits, Counter(spent.clipped)
        for i in range(min(mini_batches, len(credited))):
            part = [tree for tree in credited[i::mini_batches] if tree.has_gradient or method.learns_from_ties]
            direction = gradients(method, part, logits, clipped).sum(0) if part else torch.zeros_like(logits)
            if norm := direction.norm():
                logits = logits + step_size * direction / norm
        policy = TabularPolicy(logits)
        rollouts = spent.rollouts + sum(len(tree.leaves) for tree in trees)
        written = spent.tokens + sum(map(action_tokens, trees))
        spent = Point(rollouts, written, success_probability(process, held_out, policy), policy, clipped)
        points.append(spent)
    return points


def action_tokens(tree: Tree) -> int:
    """How many tokens the policy wrote."""
    return sum(len(node.action_tokens) for node in tree.nodes)
