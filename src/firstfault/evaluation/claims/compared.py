"""Claims that read a comparison: its finished runs, and figures over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firstfault.errors import UserError
from firstfault.evaluation.cells import FAILED, read_cell
from firstfault.evaluation.claims.finding import Figure, Finding, judged
from firstfault.evaluation.plan import TUNE_SEEDS, slug
from firstfault.evaluation.results import Kept, Runs, at_k, check_alike, unlike_starts
from firstfault.evaluation.statistics import area_weights

TOGETHER = "together:"  # a family's name begins so if it is several
Value = float | np.ndarray | None  # one number, or one for each problem; None where the run can't tell


class Compared:
    """The finished runs of a comparison on a family, or on several together. Families weigh the same.

    `left_out` says why runs of some methods are not among them, by family and method.
    """

    def __init__(self, families: Sequence[str], runs: Runs, left_out: Mapping[tuple[str, str], str] | None = None):
        self.families = families
        self.family = families[0] if len(families) == 1 else f"{TOGETHER} {', '.join(families)}"
        self.left_out = {key: why for key, why in (left_out or {}).items() if key[0] in families}
        self.runs = {key: kept for key, kept in runs.items() if key[0] in families}
        self.seeds = sorted({seed for _, _, seed in self.runs})
        has = {(family, method) for family, method, _ in self.runs}
        every = dict.fromkeys(method for _, method, _ in self.runs)
        self.methods = [method for method in every if all((family, method) in has for family in families)]

    def only(self, methods: Sequence[str]) -> Compared:
        """The same runs, but of other methods."""
        runs = {key: kept for key, kept in self.runs.items() if key[1] in methods}
        return Compared(self.families, runs, {key: why for key, why in self.left_out.items() if key[1] in methods})

    @property
    def ks(self) -> list[int]:
        """K of Pass@K and Major@K, as far as all runs have them."""
        return sorted(int(name[5:]) for name in at_k(self.runs) if name[:5] == "pass@")

    def figure(self, name: str, methods: Sequence[str], measure: Callable[..., Value], paper: str = "") -> Figure:
        """The mean over seeds of `measure`, which is given one run of each of these methods, alike in seed and family.

        A seed counts if it has all these runs, and all of them can tell.
        """
        values = []
        for seed in self.seeds:
            runs = [[self.runs.get((family, method, seed)) for method in methods] for family in self.families]
            if all(None not in own for own in runs):
                measured = [measure(*own) for own in runs]
                if all(value is not None for value in measured):
                    values.append(measured)
        return Figure.over_seeds(name, values, paper)

    def finding(
        self,
        claim: str,
        claimed: Sequence[Figure],
        beside: Sequence[Figure] = (),
        levels: Sequence[Figure] | None = None,
        notes: Sequence[str] = (),
    ) -> Finding:
        """What is `claimed` to be positive, judged, with the levels of all methods, and what claims nothing."""
        verdict, why = judged(claimed)
        levels = self.levels(final) if levels is None else levels
        left_out = [f"{method} on {family} is left out: {why}" for (family, method), why in self.left_out.items()]
        unlike = [f"the runs did not start alike on {where}" for where in unlike_starts(self.runs)]
        codes = {kept.get("code", "") for kept in self.runs.values()} - {""}
        mixed = [f"the runs were made by {len(codes)} versions of the code"] if len(codes) > 1 else []
        notes = [*notes, *left_out, *unlike, *mixed]
        return Finding(claim, self.family, [*levels, *claimed, *beside], verdict, why, notes)

    def levels(self, measure: Callable[[Kept], Value], name: str = "{}") -> list[Figure]:
        """The measure of every method; `name` has {} for that of the method."""
        return [self.figure(name.format(method), [method], measure) for method in self.methods]

    def difference(
        self, first: str, second: str, measure: Callable[[Kept], Value], paper: str = "", name: str = "{}"
    ) -> Figure:
        """By how much the first method has more; `name` has {} for both."""

        def less(a: Kept, b: Kept) -> Value:
            of_a, of_b = measure(a), measure(b)
            return None if of_a is None or of_b is None else of_a - of_b

        return self.figure(name.format(f"{first} - {second}"), [first, second], less, paper)

    def saved(
        self, first: str, second: str, measure: Callable[[Kept], float | None], paper: str = "", name: str = "{}"
    ) -> Figure:
        """The share of what the second method takes that the first does not: 1 - a / b."""

        def share(a: Kept, b: Kept) -> float | None:
            of_a, of_b = measure(a), measure(b)
            return 1 - of_a / of_b if of_a is not None and of_b else None

        return self.figure(name.format(f"{first} for {second}"), [first, second], share, paper)


@dataclass(frozen=True)
class Read:
    """A claim that is read from a comparison.

    It needs these `methods`, and if it is `at_k`, Pass@K and Major@K for two K. What it says of those `beside` claims
    nothing; None are all that there are. `recipe` is the one of `recipes/` that has them, and `apart` says that it
    can't share its folder with the others, for it has another budget.
    """

    recipe: str
    methods: Sequence[str]
    finding: Callable[[Compared], Finding]
    beside: Sequence[str] | None = ()
    at_k: bool = False
    apart: bool = False

    def judge(self, compared: Compared) -> Finding:
        """What these runs say of it."""
        return self.finding(compared if self.beside is None else compared.only([*self.methods, *self.beside]))

    def lacks(self, compared: Compared) -> str:
        """What it needs and these runs don't have."""
        missing = [method for method in self.methods if method not in compared.methods]
        if missing:
            reasons = [compared.left_out[key] for key in compared.left_out if key[1] in missing]
            why = f" ({'; '.join(reasons)})" if reasons else ""
            return (f"the methods {', '.join(missing)}" if len(missing) > 1 else f"the method {missing[0]}") + why
        return "Pass@K for two K (--evaluation.k 4,16,32)" if self.at_k and len(compared.ks) < 2 else ""


def read_runs(folder: Path) -> tuple[Runs, dict[tuple[str, str], str]]:
    """The finished runs of the comparison in a folder, and which family and method is left out, and why.

    Methods are left out that overspent on a family, and those of which a run failed: the others are those that went
    well.

    Raises:
        UserError: if there are none, one can't be read, or they were not evaluated alike.
    """
    found: Runs = {}
    left_out: dict[tuple[str, str], str] = {}
    seeds = {f"seed-{seed}" for seed in range(TUNE_SEEDS)}
    failed = {file.parts[-5:-3] for file in folder.glob(f"cells/*/*/lr-*/seed-*/{FAILED}")
              if file.parts[-2] in seeds}  # fmt: skip
    for file in sorted(folder.glob("cells/*/*/lr-*/seed-*/cell.json")):
        kept = read_cell(file)
        key = kept["family"], kept["method"], kept["seed"]
        if kept["tunes"]:
            continue
        if key in found:
            raise UserError(
                f"{folder} has {key[1]} on {key[0]}, seed {key[2]}, at two learning rates; remove the one that was not "
                "chosen."
            )
        found[key] = kept
        if kept["overspent"]:
            left_out[key[:2]] = f"it spent {kept['overspent']}"
        elif (slug(key[0]), slug(key[1])) in failed:
            left_out[key[:2]] = "runs of it failed"
    runs = {key: kept for key, kept in found.items() if key[:2] not in left_out}
    if not runs:
        raise UserError(f"{folder} has no finished run of a comparison; give the --out of firstfault compare.")
    check_alike(runs.values())
    return runs, left_out


# what claims measure in a run


def final(kept: Kept) -> np.ndarray:
    """Sampled success after training, of each problem."""
    return np.array(kept["evaluations"][-1]["outcomes"]["sampled"])


def per_call(kept: Kept) -> float | None:
    """Successes per 100 tool calls of held-out runs, as a mean over the iterations of training.

    Half of the runs succeed before training and all of them after it, at 5 calls a run:

    >>> per_call({"evaluations": [{"iteration": i, "sampled": s, "calls_per_run": 5} for i, s in ((0, 0.5), (9, 1))]})
    15.0
    """
    records = kept["evaluations"]
    if not all(record["calls_per_run"] for record in records):
        return None
    iterations = [record["iteration"] for record in records]
    rates = [100 * record["sampled"] / record["calls_per_run"] for record in records]
    return float(area_weights(iterations, iterations[-1]) @ np.array(rates))


def mean_of(name: str) -> Callable[[Kept], float | None]:
    """A metric of training, as a mean over the iterations that have it.

    >>> mean_of("entropy")({"iterations": [{"entropy": 1.0}, {}, {"entropy": 2.0}]})
    1.5
    """

    def measure(kept: Kept) -> float | None:
        values = [row[name] for row in kept["iterations"] if name in row]
        return sum(values) / len(values) if values else None

    return measure


def spend(name: str) -> Callable[[Kept], float]:
    """What the training of a run took."""
    return lambda kept: kept["spend"][name]
