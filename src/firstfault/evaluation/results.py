"""From finished runs to what can be said of their methods: levels, curves, paired differences, and words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from firstfault.errors import UserError
from firstfault.evaluation.curves import AXES, Kept, Runs, curves, interval, spent
from firstfault.evaluation.statistics import LEVEL, area_weights, bootstrap, holm, mean_t, p_value, seeds_needed

MEASURES = {"final": "final success"} | {axis: f"mean success along {name}" for axis, name in AXES.items()}
ALL = "all families"


def results(
    finished: Sequence[Kept],
    families: Sequence[str],
    methods: Sequence[str],
    failed: Collection[tuple[str, str]] = (),
    against: str = "",
) -> dict[str, Any]:
    """All that `results.json` says of finished runs: of every pair of methods, or of all `against` one.

    A method that overspent in any run of a family is refused there: it has no part in levels and differences. One that
    `failed` in any, by family and method, is told apart from nobody: its other runs are those that went well.

    Raises:
        UserError: if runs of a family were not evaluated alike.
    """
    check_alike(finished)
    refused = {(kept["family"], kept["method"]) for kept in finished if kept["overspent"]}
    runs = {
        (kept["family"], kept["method"], kept["seed"]): kept
        for kept in finished
        if (kept["family"], kept["method"]) not in refused
    }
    measures = MEASURES | {name: name.capitalize() for name in at_k(runs)}
    if any(len(kept["evaluations"]) < 3 for kept in runs.values()):  # nothing was seen on the way
        measures = {name: words for name, words in measures.items() if name not in AXES}
    others = [(method, against) for method in methods if method != against]
    pairs = others if against else list(itertools.combinations(methods, 2))
    differences = [d for measure in measures for d in _differences(runs, measure, families, pairs, failed)]
    for difference in differences:
        difference["words"] = in_words(difference, measures[difference["measure"]])
    return {
        "measures": measures,
        "runs": [_run(kept) for kept in finished],
        "spend": _spend(finished, families, methods),
        "refused": [{"family": family, "method": method} for family, method in sorted(refused)],
        "unlike_starts": unlike_starts(runs),
        "levels": _levels(runs, measures, families, methods),
        "curves": curves(runs, families, methods),
        "learnt": _learnt(runs, families, methods),
        "differences": differences,
        "conclusions": _conclusions(differences, families),
    }  # fmt: skip


def check_alike(finished: Iterable[Kept]) -> None:
    """Whether the runs of each family can be compared.

    Raises:
        UserError: if two were evaluated after different iterations, or on different numbers of problems.
    """
    known: dict[str, tuple[str, str]] = {}  # of each family, a run and how it was evaluated
    for kept in finished:
        problems = len(kept["evaluations"][0]["outcomes"]["sampled"])
        how = f"after iterations {', '.join(str(r['iteration']) for r in kept['evaluations'])} on {problems} problems"
        run = f"{kept['method']}, seed {kept['seed']}"
        first, known_how = known.setdefault(kept["family"], (run, how))
        if how != known_how:
            raise UserError(
                f"runs on {kept['family']} can't be compared: {first} was evaluated {known_how}, {run} {how}; remove "
                "the cell.json of those that are wrong, and they are made again."
            )


def _run(kept: Kept) -> dict[str, Any]:
    """What the report says of one run."""
    names = ("family", "method", "seed", "multiple", "lr", "spend", "budget_share", "overspent", "firstfault")
    before, after = kept["evaluations"][0], kept["evaluations"][-1]
    return {name: kept[name] for name in names} | {
        "code": kept.get("code", ""),
        "before": before["sampled"],
        "after": after["sampled"],
        "greedy": after["greedy"],
    }


def _spend(finished: Sequence[Kept], families: Sequence[str], methods: Sequence[str]) -> list[dict[str, Any]]:
    """What each method spent on each family: means over its runs, be they refused."""
    found = []
    for family, method in itertools.product(families, methods):
        own = [kept for kept in finished if (kept["family"], kept["method"]) == (family, method)]
        if own:
            means = {name: _mean([kept["spend"][name] for kept in own]) for name in own[0]["spend"]}
            share, refused = _mean([kept["budget_share"] for kept in own]), any(kept["overspent"] for kept in own)
            found.append({
                "family": family, "method": method, "seeds": len(own), **means, "budget_share": share,
                "refused": refused,
            })  # fmt: skip
    return found


def along(kept: Kept, axis: str, limit: float) -> np.ndarray:
    """The mean success along an axis until `limit` of it is spent, for each problem."""
    outcomes = np.array([record["outcomes"]["sampled"] for record in kept["evaluations"]])
    return area_weights(spent(kept, axis), limit) @ outcomes


def updates_at(kept: Kept, axis: str, limit: float) -> float:
    """The updates that a run had made when `limit` of an axis was spent, if it made them evenly between evaluations."""
    return float(np.interp(limit, spent(kept, axis), [record["spent"]["updates"] for record in kept["evaluations"]]))


def _limits(runs: Runs, family: str) -> dict[str, float]:
    """How far along each axis levels go: to where the run that spent least came."""
    own = [kept for (of, _, _), kept in runs.items() if of == family]
    return {axis: _limit(own, axis) for axis in AXES} if own else {}


def _limit(runs: Sequence[Kept], axis: str) -> float:
    return min(spent(kept, axis)[-1] for kept in runs)


def at_k(runs: Runs) -> list[str]:
    """Pass@K and Major@K as far as all runs have them."""
    last = [kept["evaluations"][-1]["outcomes"] for kept in runs.values()]
    return [name for name in (last[0] if last else []) if "@" in name and all(name in outcomes for outcomes in last)]


def _score(kept: Kept, measure: str, limit: float) -> np.ndarray:
    """Success at the end, or its mean along an axis until `limit` of it is spent, for each problem."""
    if measure in AXES:
        return along(kept, measure, limit)
    return np.array(kept["evaluations"][-1]["outcomes"]["sampled" if measure == "final" else measure])


def _differences(
    runs: Runs,
    measure: str,
    families: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    failed: Collection[tuple[str, str]],
) -> list[dict[str, Any]]:
    """Pairs of methods on every family and over all, by one measure, corrected for each other.

    Along an axis, a pair is compared up to where the run that spent least of the two methods' came. Along others
    than iterations, the two may have made unlike numbers of updates by then, whose means are kept.
    """
    found = []
    for group in [*([family] for family in families), *([list(families)] if len(families) > 1 else [])]:
        for pair in pairs:
            seeds = sorted({seed for _, _, seed in runs})
            seeds = [s for s in seeds if all((f, m, s) in runs for f in group for m in pair)]
            limits = [_limit([runs[f, m, s] for m in pair for s in seeds], measure) for f in group
                      if measure in AXES and seeds]  # fmt: skip
            if not seeds or 0 in limits:
                continue
            parts = []
            for f, limit in itertools.zip_longest(group, limits):
                first, second = ([_score(runs[f, m, s], measure, limit) for s in seeds] for m in pair)
                parts.append(np.array(first) - np.array(second))
            by_seed = np.mean([part.mean(axis=1) for part in parts], axis=0)
            mean, low, high = mean_t(by_seed)
            bootstrap_low, bootstrap_high = bootstrap(parts)
            found.append({
                "measure": measure, "family": group[0] if len(group) == 1 else ALL, "first": pair[0],
                "second": pair[1], "seeds": len(seeds), "mean": mean, "low": _finite(low), "high": _finite(high),
                "bootstrap_low": bootstrap_low, "bootstrap_high": bootstrap_high,
                "p": p_value(by_seed), "by_seed": by_seed.tolist(),
                "failed": [m for m in pair if any((f, m) in failed for f in group)],
            })  # fmt: skip
            if limits and measure != "iterations":
                ends = [*zip(group, limits, strict=True)]
                found[-1]["updates"] = [
                    float(np.mean([updates_at(runs[f, m, s], measure, end) for f, end in ends for s in seeds]))
                    for m in pair
                ]
    for difference, corrected in zip(found, holm([d["p"] for d in found]), strict=True):
        difference["p_holm"], difference["comparisons"] = corrected, len(found)
        difference["seeds_needed"] = seeds_needed(difference["by_seed"], LEVEL / len(found))
        across_problems = not difference["bootstrap_low"] <= 0 <= difference["bootstrap_high"]
        difference["told_apart"] = corrected < LEVEL and across_problems and not difference["failed"]
    return found


def in_words(d: Mapping[str, Any], measure: str) -> str:
    """What a difference by a measure, in words, says, and what it does not."""
    ahead, behind = (d["first"], d["second"]) if d["mean"] >= 0 else (d["second"], d["first"])
    what = "" if d["measure"] == "final" else f" by {measure}"
    on = f"on {d['family']}" if d["family"] != ALL else "over all families"
    if d["failed"]:
        return (
            f"{d['first']} and {d['second']} are not compared {on}{what}: runs of {' and '.join(d['failed'])} failed, "
            "and those that are left are the ones that went well."
        )
    if d["seeds"] < 2:
        return f"One seed can't tell {ahead} from {behind} {on}{what}: it does not show how runs differ by luck."
    cannot = f"{ahead} and {behind} cannot be told apart {on}{what}"
    if not any(d["by_seed"]):
        return f"{cannot}: no difference was seen in {d['seeds']} seeds."
    if d["low"] is None:
        return f"{cannot}: {ahead} has {abs(d['mean']):.3f} more with every seed, which does not show how seeds differ."
    low, high = (d["low"], d["high"]) if d["mean"] > 0 else (-d["high"], -d["low"])
    size = f"{abs(d['mean']):.3f} [{low:.3f}, {high:.3f}]"
    if d["told_apart"]:
        return f"With {d['seeds']} seeds, {ahead} is ahead of {behind} {on}{what} by {size}, p = {d['p_holm']:.2g}."
    seen = f"{cannot} ({ahead} has {size} more)"
    if d["p_holm"] < LEVEL:
        return f"{seen}: the seeds agree, but it hangs on few problems, and others could turn it."
    if d["p"] < LEVEL:
        alone = f"{seen}: p = {d['p']:.2g} is not enough among {d['comparisons']} comparisons (p = {d['p_holm']:.2g})"
        return f"{alone}{', and it hangs on few problems' if d['bootstrap_low'] <= 0 <= d['bootstrap_high'] else ''}."
    if d["seeds_needed"] is None:
        return f"{seen}: more seeds than anyone runs would be needed."
    return f"{seen}: about {d['seeds_needed']:,} seeds would be needed."


def _conclusions(differences: Sequence[Mapping[str, Any]], families: Sequence[str]) -> list[str]:
    """Sentences on final success first, then on what is told apart along the way only."""
    said = []
    for family in [*families, ALL]:
        own = [d for d in differences if d["family"] == family and d["measure"] == "final"]
        apart = [d for d in own if d["told_apart"]]
        said += [d["words"] for d in apart]
        if len(own) - len(apart) <= 3:
            said += [d["words"] for d in own if not d["told_apart"]]
            continue
        where = f"On {family}" if family != ALL else "Over all families"
        failed = dict.fromkeys(method for d in own for method in d["failed"])
        if failed:
            said.append(f"{where}, {', '.join(failed)} can be compared with no other: runs of theirs failed.")
        tested = [d for d in own if d["seeds"] > 1 and not d["failed"]]
        if tested:
            pairs = f"{len(tested) - len(apart)} of {len(tested)} pairs"
            said.append(f"{where}, {pairs} cannot be told apart by final success.")
        single = sum(d["seeds"] < 2 and not d["failed"] for d in own)
        if single:
            said.append(
                f"{where}, {single} of {len(own)} pairs have one seed only, which can't tell them apart: it does not "
                "show how runs differ by luck."
            )
    said += [d["words"] for d in differences if d["told_apart"] and d["measure"] != "final"]
    return said or ["Nothing: no two methods have finished runs of the same family and seed within the budget."]


def _levels(
    runs: Runs, measures: Iterable[str], families: Sequence[str], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """Means over seeds with their intervals, of each method on each family."""
    levels = []
    limits_of = {family: _limits(runs, family) for family in families}
    for family, method in itertools.product(families, methods):
        own = [kept for (f, m, _), kept in runs.items() if (f, m) == (family, method)]
        if not own:
            continue
        values = {
            "before": [kept["evaluations"][0]["sampled"] for kept in own],
            "greedy": [kept["evaluations"][-1]["greedy"] for kept in own],
        }
        for measure in measures:
            limit = limits_of[family].get(measure, 1.0)
            values |= {measure: [float(_score(kept, measure, limit).mean()) for kept in own]} if limit else {}
        levels.append({
            "family": family, "method": method, "seeds": len(own),
            **{name: interval(values_of) for name, values_of in values.items()},
        })  # fmt: skip
    return levels


def _learnt(runs: Runs, families: Sequence[str], methods: Sequence[str]) -> list[dict[str, Any]]:
    """How each method learnt on each family: means over its runs."""
    found = []
    for family, method in itertools.product(families, methods):
        own = [learnt(kept) for (f, m, _), kept in runs.items() if (f, m) == (family, method)]
        if own:
            means = {name: _mean([run[name] for run in own]) for name in own[0]}
            # a method without searches has no such figures
            means |= {name: means[name] or None for name in ("probes", "searches", "localized")}
            found.append({"family": family, "method": method, "seeds": len(own), **means})
    return found


def learnt(kept: Kept) -> dict[str, float | None]:
    """How a run learnt, over all of its iterations; None where there is nothing that could be told.

    Two iterations, in the first of which one of two searches came to an answer:

    >>> rows = [{"rollouts": 8, "probes": 4, "searches": 2, "searches_finished": 1, "entropy": 0.5}, {"rollouts": 8}]
    >>> found = learnt({"iterations": rows, "spend": {"seconds": 9.0},
    ...                 "evaluations": [{"sampled": 0.5, "calls_per_run": 4.0}]})
    >>> {name: found[name] for name in ("probes", "searches", "unfinished", "used", "clipped", "per_call")}
    {'probes': 0.25, 'searches': 1.0, 'unfinished': 0.5, 'used': 0.0, 'clipped': None, 'per_call': 0.125}
    """
    rows, last = kept["iterations"], kept["evaluations"][-1]
    names = ("rollouts", "probes", "searches", "searches_finished", "critical_steps")
    total = {name: sum(row.get(name, 0) for row in rows) for name in names}
    means = {
        "idle": "zero_gradient_groups",
        "clipped": "clip_share",
        "clipped_localized": "clip_share_localized",
        "gradient_norm": "gradient_norm",
        "together": "batch_occupancy",
    }
    return {
        "probes": _share(total["probes"], total["rollouts"]),
        "searches": total["searches"] / len(rows),
        "unfinished": _share(total["searches"] - total["searches_finished"], total["searches"]),
        "localized": _mean([row.get("localized_share") for row in rows]),
        "used": _share(total["critical_steps"], total["searches"]),
        **{name: _mean([row.get(metric) for row in rows]) for name, metric in means.items()},
        "entropy": next((row["entropy"] for row in reversed(rows) if "entropy" in row), None),
        "per_call": _share(last["sampled"], last["calls_per_run"]),
        "seconds": kept["spend"]["seconds"],
        "memory": peak_memory(kept),
    }


def peak_memory(kept: Kept) -> float | None:
    """The most memory (MB) that the training of a run had; None where it was not recorded."""
    return max((row["peak_memory_mb"] for row in kept["iterations"] if "peak_memory_mb" in row), default=None)


def _mean(values: Sequence[float | None]) -> float | None:
    """Over those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def unlike_starts(runs: Runs) -> list[str]:
    """Families and seeds of which methods did not start from the same policy: their first evaluations differ."""
    starts: dict[tuple[str, int], list[Any]] = {}
    for (family, _, seed), kept in runs.items():
        starts.setdefault((family, seed), []).append(kept["evaluations"][0]["outcomes"])
    return [
        f"{family}, seed {seed}" for (family, seed), all_of in starts.items() if any(o != all_of[0] for o in all_of)
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
