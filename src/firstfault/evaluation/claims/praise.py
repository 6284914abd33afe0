"""A claim of CoRPO (2511.04439): where failures differ in reward, group advantages praise some, and CoRPO none."""

from __future__ import annotations

from collections.abc import Sequence

from firstfault.evaluation.claims.finding import Figure, Finding, difference, judged
from firstfault.evaluation.claims.measured import Row, Subject
from firstfault.methods import GRPO, RLOO, CoRPO, Method
from firstfault.tree import Tree

METHODS: dict[str, Method] = {  # with rewards of which a failure may get a part
    "grpo": GRPO(reward="progressive"),
    "rloo": RLOO(reward="progressive"),
    "corpo": CoRPO(reward="progressive"),
}
RUNS = 16  # of a group


async def measure(subject: Subject) -> Row | None:
    """Of a group of runs, the share of the failed ones that each method praises; None if no run failed."""
    tree = await subject.agent.run(subject.task, subject.key, RUNS)
    if all(leaf.success for leaf in tree.leaves):
        return None
    return {"task": subject.task.id, "praised": {name: praised(method, tree) for name, method in METHODS.items()}}


def praised(method: Method, tree: Tree) -> float:
    """The share of the failed runs of a group whose advantage is above 0.

    Two failures, of which one keeps to the form that is asked for:

    >>> from firstfault.tree import independent_runs
    >>> tree = independent_runs(0, 0)
    >>> tree.leaves[1].end = "max_steps"
    >>> {name: praised(method, tree) for name, method in METHODS.items()}
    {'grpo': 0.5, 'rloo': 0.5, 'corpo': 0.0}
    """
    method.shape([tree])
    method.credit([tree])
    failed = [leaf for leaf in tree.leaves if not leaf.success]
    return sum((leaf.advantage or 0) > 0 for leaf in failed) / len(failed)


def finding(family: str, rows: Sequence[Row]) -> Finding:
    """Means over groups of the share of failed runs that each method praises."""
    shares = {name: [row["praised"][name] for row in rows] for name in METHODS}
    levels = [Figure.of(name, values, "none" if name == "corpo" else "some") for name, values in shares.items()]
    differences = [difference(f"{name} - corpo", shares[name], shares["corpo"]) for name in METHODS if name != "corpo"]
    verdict, why = judged(differences)
    if any(shares["corpo"]):
        verdict, why = "does not hold", f"corpo praises failures: {levels[-1]}"
    return Finding("praise", family, [*levels, *differences], verdict, why)
