"""Claim 2 (Sec. 6.2): how well a method's credit orders the branches of its own trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from random import Random
from statistics import mean
from typing import Any

from firstfault.agent.base import Rollouts
from firstfault.evaluation.claims.finding import Figure, Finding, difference, judged
from firstfault.evaluation.claims.measured import Row, Subject
from firstfault.evaluation.statistics import scipy_stats
from firstfault.localize.search import action_of
from firstfault.methods import AEPO, ARPO, ELPO, Method, TreeGRPO, VinePPO
from firstfault.tree import Node

COMPLETIONS = 32  # Mean@32 of each branch
METHODS: dict[str, Method] = {  # the paper's three, and the others that branch
    "elpo": ELPO(),
    "elpo, random branching": ELPO(search="random"),
    "elpo, posterior": ELPO(search="posterior"),
    "aepo": AEPO(),
    "arpo": ARPO(),
    "tree-grpo": TreeGRPO(),
    "vineppo, 82 rollouts": VinePPO(),  # of 16 it makes one run of, and no siblings
}
CLAIMED = ("elpo", "elpo, random branching", "aepo")  # each better than the next
BESIDE = [("elpo", "aepo"), ("elpo, posterior", "elpo"), ("elpo, posterior", "elpo, random branching")]
BRANCHINGS = 4  # of a tree, at random: the truth costs more than the tree


async def measure(method: Method, subject: Subject) -> Row:
    """A tree of the method, and at some of its branchings the credit and the true worth of each branch.

    A branching is a step with children that act differently; children that make the same calls are one branch, and
    its credit is their mean. The true worth is the mean success of 32 completions after the branch.
    """
    tree = subject.agent.tree(subject.task, subject.key)
    async with subject.agent.rollouts(tree, method.rollouts) as rollouts:
        await method.explore(tree, rollouts)
        method.shape([tree])
        method.credit([tree])
        found = [branches for node in list(tree.nodes) if len(branches := credited(node)) > 1]
        chosen = Random(f"{subject.key} branchings").sample(found, min(BRANCHINGS, len(found)))
        worths = [[await worth(rollouts, branch[0]) for branch in branches] for branches in chosen]
        credits = [[sum(node.advantage for node in branch) / len(branch) for branch in branches] for branches in chosen]
        return {"task": subject.task.id, "branchings": len(found), "credit": credits, "worth": worths}


def credited(node: Node) -> list[list[Node]]:
    """The credited children of a step, those that act alike together."""
    branches: dict[str, list[Node]] = {}
    for child in node.children:
        if child.terms:
            branches.setdefault(repr(action_of(child)), []).append(child)
    return list(branches.values())


async def worth(rollouts: Rollouts, node: Node) -> float:
    if node.is_leaf:
        return float(node.success)
    rollouts.allow(COMPLETIONS)
    ends = await rollouts.continue_from(node, COMPLETIONS)
    return sum(leaf.success for leaf in ends) / max(1, len(ends))


def ordering(row: Mapping[str, Any], measure: Callable[[Sequence[float], Sequence[float]], float]) -> float | None:
    """How far credit orders branches as worth does, a mean over the branchings of a tree where worth differs.

    None if there are none. Where credit is the same for all branches, it orders as many pairs rightly as wrongly.

    >>> ordering({"credit": [[1.0, 0.0, 0.0], [1.0, 0.0]], "worth": [[0.5, 0.25, 0.0], [0.5, 0.5]]}, pairwise_accuracy)
    0.8333333333333334
    """
    pairs = [pair for pair in zip(row["credit"], row["worth"], strict=True) if len(set(pair[1])) > 1]
    return sum(measure(*pair) for pair in pairs) / len(pairs) if pairs else None


def pairwise_accuracy(credit: Sequence[float], worth: Sequence[float]) -> float:
    """The share of the pairs of different worth that credit orders alike; equal credit counts half.

    Of these two, one is ordered alike, and one has equal credit:

    >>> pairwise_accuracy([1, 1, 3], [0, 1, 1])
    0.75
    """
    pairs = combinations(zip(credit, worth, strict=True), 2)
    return mean(0.5 if a == b else float((a < b) == (v < w)) for (a, v), (b, w) in pairs if v != w)


def kendall_tau(credit: Sequence[float], worth: Sequence[float]) -> float:
    """Kendall's τ_b, which accounts for ties; 0 where credit is the same for all."""
    return float(scipy_stats().kendalltau(credit, worth).statistic) if len(set(credit)) > 1 else 0.0


def finding(family: str, *by_method: Sequence[Row]) -> Finding:
    """Pairwise accuracy and Kendall's τ of each method, over tasks whose tree has branches of different worth."""
    tasks = min(map(len, by_method))  # the first ones, which are the same for all
    measured = {name: rows[:tasks] for name, rows in zip(METHODS, by_method, strict=True)}
    scores = {name: [ordering(row, pairwise_accuracy) for row in measured[name]] for name in METHODS}
    figures = [Figure.of(name, [s for s in of if s is not None]) for name, of in scores.items()]
    for name in METHODS:
        taus = [ordering(row, kendall_tau) for row in measured[name]]
        figures.append(Figure.of(f"{name}: τ", [value for value in taus if value is not None]))
    differences = [replace(difference(f"{a} - {b}", scores[a], scores[b]), paper="more") for a, b in pairwise(CLAIMED)]
    beside = [difference(f"{a} - {b}", scores[a], scores[b]) for a, b in BESIDE]
    verdict, why = judged(differences)
    branchings = [sum(row["branchings"] for row in measured[name]) for name in METHODS]
    notes = [f"branchings with different actions: {', '.join(map(str, branchings))}, in this order"]
    return Finding("ranking", family, [*figures, *differences, *beside], verdict, why, notes)
