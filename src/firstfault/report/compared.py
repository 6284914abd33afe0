"""The report of a comparison: `report.html`, `results.md` and `results.json`, with the same tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from firstfault import __version__
from firstfault.evaluation.curves import AXES, SHARES, TRAINING
from firstfault.evaluation.plan import flat
from firstfault.files import saving, write_whole
from firstfault.report.curves import Band, bands
from firstfault.report.text import duration, with_interval
from firstfault.report.write import environment

Results = Mapping[str, Any]
SHOWN = 8  # methods that a chart can tell apart

REMARKS = [
    "A difference is one of the same seeds on the same problems. Its interval and p-value are those of the paired "
    "t-test over seeds, which knows how few they are; p-values are corrected by Holm for all pairs and families of a "
    "measure. A method is said to be ahead only if p < 0.05 after that, and if a bootstrap over seeds and problems, "
    "which knows that other problems might have been asked, leaves out 0 as well. Final success is the measure to go "
    "by; the others, along the way and at K, are corrected each for itself.",
    "Seeds needed: for a chance of 80 % to tell such a pair apart among as many comparisons, if mean and spread are as "
    "they were seen here. A spread of few seeds is known roughly, and so is this. Who adds seeds because a difference "
    "was nearly there tests again: looking at 5, 10, 15 and 20 seeds finds what is not there in 13 % of the cases, and "
    "not in 5 %. Seeds that have no part in the first look (--first-seed, with another --out) have no such flaw.",
    "Along rollouts, generated tokens and seconds, a pair is compared at the same spend, not after the same number of "
    "updates: a method whose iterations are cheaper has made more of them by then, and is further in the decay of its "
    "learning rate. With --budget tokens=N, each iteration of every method spends N tokens, and pairs are compared "
    "at nearly equal updates.",
    "All of it holds for these tasks, this policy, these settings and this budget. Not being told apart is no proof of "
    "being equal.",
]


@dataclass(frozen=True)
class Table:
    """Rows of text; the first `words` columns are no numbers. `marked` rows stand out."""

    title: str
    remark: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 2
    marked: Sequence[int] = field(default=())
    folded: bool = False


def write_comparison(results: Results, out: Path) -> Path:
    """Write all three into `out`; returns the page. Each appears whole or not at all."""
    tables = [table for table in _tables(results) if table.rows]
    page = (
        environment()
        .get_template("compared.html")
        .render(
            results=results,
            facts=_facts(results),
            warnings=_warnings(results),
            remarks=REMARKS,
            curves=_curves(results),
            tables=tables,
            settings="\n".join(f"{key} = {json.dumps(value)}" for key, value in flat(results["settings"]).items()),
            version=__version__,
        )
    )
    path = out / "report.html"
    with saving(out):
        write_whole(path, page)
        write_whole(out / "results.json", json.dumps(results, indent=1) + "\n")
        write_whole(out / "results.md", _markdown(results, tables))
    return path


def _facts(results: Results) -> list[tuple[str, str]]:
    spent = sum(run["spend"]["seconds"] for run in results["runs"])
    rates = results["lr_grid"]
    tuned = f"{', '.join(f'{m:g}' for m in rates)}, {results['tune_seeds']} runs each, on a validation split"
    return [
        ("budget", results["budget"]),
        (
            "seeds",
            f"{results['seeds']}, from {results['first_seed']} on" if results["first_seed"] else str(results["seeds"]),
        ),
        ("compared", f"all with {results['against']}" if results["against"] else "all pairs"),
        ("learning rates", tuned if len(rates) > 1 else f"{_of_recipe(rates[0])} for all, not tuned"),
        ("finished", f"{len(results['runs'])} of {results['wanted']} runs, {duration(spent)} of training"),
    ]


def _of_recipe(multiple: float) -> str:
    return "the recipe's" if multiple == 1 else f"{multiple:g} times the recipe's"


def _warnings(results: Results) -> list[str]:
    said = []
    missing = results["wanted"] - len(results["runs"])
    if missing:
        said.append(f"{missing} of {results['wanted']} runs are missing: the same command goes on.")
    for (family, method), own in _by_method(results).items():
        over = [f"{run['overspent']} with seed {run['seed']}" for run in own if run["overspent"]]
        if over:
            said.append(
                f"Refused: {method} on {family} spent {'; '.join(over)}. It has no part in levels, differences and "
                "conclusions there."
            )
        if not any(run["spend"]["updates"] for run in own):
            said.append(f"{method} was never updated on {family}: nothing there had a gradient.")
    said += [
        f"Failed, to be tried again by the same command: {name}: {why}" for name, why in results["failures"].items()
    ]
    if results["unlike_starts"]:
        where = "; ".join(results["unlike_starts"])
        said.append(
            f"Methods did not start alike on {where}: their first evaluations differ, so pairs are not matched."
        )
    if len(results["lr_grid"]) == 1:
        said.append(
            f"Learning rates were not tuned: all methods have {_of_recipe(results['lr_grid'][0])}, which may suit some "
            "better than others (--lr-grid tunes it for each, with the same trials)."
        )
    said += [
        f"{row['method']} on {row['family']} took {row['budget_share']:.0%} of the budget only."
        for row in results["spend"]
        if row["budget_share"] < 0.9
    ]
    made = Counter((run["code"], run["method"]) for run in results["runs"] if run["code"])
    codes = {code: [f"{n} of {method}" for (of, method), n in made.items() if of == code] for code, _ in made}
    if len(codes) > 1:
        which = "; ".join(f"{code}: {', '.join(runs)}" for code, runs in codes.items())
        said.append(
            f"The runs were made by {len(codes)} versions of firstfault's code, which may be what they differ by "
            f"({which if len(made) <= SHOWN else 'of each in results.json'})."
        )
    rewards = {method: reward for method, reward in results["rewards"].items() if reward != "judge"}
    if rewards:
        said.append(
            "Not all methods had the same reward: "
            + ", ".join(f"{method} had {reward}" for method, reward in rewards.items())
            + ", and all others the judge's."
        )
    return said


def _curves(results: Results) -> list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Of each family: figures of success along each axis, and of how training went."""
    found = []
    for family in dict.fromkeys(curve["family"] for curve in results["curves"]):
        own = [curve for curve in results["curves"] if curve["family"] == family]
        success = [
            figure for axis, words in AXES.items() for figure in _figures(own, "success", axis, f"along {words}")
        ]
        training = [
            figure for measure, words in TRAINING.items() for figure in _figures(own, measure, "iterations", words)
        ]
        found.append((family, success, training))
    return found


def _figures(curves: Sequence[Mapping[str, Any]], measure: str, axis: str, title: str) -> list[dict[str, Any]]:
    """As many as it takes to tell the methods apart."""
    own = [curve for curve in curves if (curve["measure"], curve["axis"]) == (measure, axis)]
    figures = []
    for first in range(0, len(own), SHOWN):
        some = own[first : first + SHOWN]
        what = TRAINING.get(measure, measure)
        svg = Markup(bands([_band(curve) for curve in some], what, AXES[axis], share=measure in SHARES))
        figures.append({"title": title, "names": [curve["method"] for curve in some], "svg": svg})
    return figures


def _band(curve: Mapping[str, Any]) -> Band:
    points = curve["points"]
    at, mean, low, high = ([point[name] for point in points] for name in ("at", "mean", "low", "high"))
    return Band(curve["method"], at, mean, low, high)


# tables


def _tables(results: Results) -> list[Table]:
    return [
        _levels(results),
        _at_k(results),
        *(_differences(results, measure) for measure in results["measures"]),
        _spend(results),
        _learnt(results),
        _trials(results),
        _runs(results),
    ]


def _levels(results: Results) -> Table:
    names = {"before": "before", "final": "after", "greedy": "after, greedy"}
    names |= {axis: f"along {words}" for axis, words in AXES.items() if axis in results["measures"]}
    remark = (
        "Success on held-out tasks, sampled if not said otherwise, with Student's 95 % interval over seeds; along the "
        "way: its mean (area under the curve), up to where the run that spent least on the family ended. Intervals of "
        "two methods that overlap say nothing of their difference: see below, where a pair is compared along the way "
        "up to where that run of the two methods ended that spent least."
    )
    return _of_levels("Success", remark, results, names)


def _at_k(results: Results) -> Table:
    names = {name: words for name, words in results["measures"].items() if "@" in name}
    remark = (
        "After training: the chance that one of K sampled runs of a task succeeds, and that their majority is right, "
        "with Student's 95 % interval over seeds."
    )
    return _of_levels("Pass@K and Major@K", remark, results, names)


def _by_method(results: Results) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The runs of each family and method."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in results["runs"]:
        found.setdefault((run["family"], run["method"]), []).append(run)
    return found


def _of_levels(title: str, remark: str, results: Results, names: Mapping[str, str]) -> Table:
    rows = [
        [level["family"], level["method"], str(level["seeds"])]
        + [with_interval(level[name]) if name in level else "" for name in names]
        for level in results["levels"] if names
    ]  # fmt: skip
    return Table(title, remark, ["family", "method", "seeds", *names.values()], rows)


def _differences(results: Results, measure: str) -> Table:
    own = [d for d in results["differences"] if d["measure"] == measure]
    rows = [
        [
            d["family"], d["first"], d["second"], str(d["seeds"]), with_interval(d, sign="+"),
            f"{d['bootstrap_low']:.3f} to {d['bootstrap_high']:.3f}", f"{d['p']:.2g}", f"{d['p_holm']:.2g}",
            "–" if d["seeds_needed"] is None else f"{d['seeds_needed']:,}", "yes" if d["told_apart"] else "no",
            *([", ".join(f"{made:.0f}" for made in d["updates"])] if "updates" in d else []),
        ]
        for d in own
    ]  # fmt: skip
    columns = ["family", "method", "minus", "seeds", "difference", "bootstrap", "p", "p, Holm", "seeds needed", "apart"]
    remark = (
        "Paired differences with the t-interval over seeds, then that of the bootstrap over seeds and problems, which "
        f"is too narrow for few seeds and knows of problems. Holm's correction is over the {len(own)} rows."
    )
    if any("updates" in d for d in own):
        columns.append("updates, at the limit")
        remark += " The last column: how many updates each of the two had made where the comparison ends, in the mean."
    marked = [i for i, d in enumerate(own) if d["told_apart"]]
    return Table(
        f"Differences: {results['measures'][measure]}", remark, columns, rows, 3, marked, folded=measure != "final"
    )


def _spend(results: Results) -> Table:
    rows = [
        [
            row["family"], row["method"], *(f"{row[name]:,.1f}".removesuffix(".0") for name in SPENT),
            duration(row["seconds"]), f"{row['budget_share']:.0%} of budget{', refused' * row['refused']}",
        ]
        for row in results["spend"]
    ]  # fmt: skip
    remark = (
        f"Means over runs. The budget was {results['budget']}. Counted where it is spent, whatever became of it; "
        "evaluations don't count. Without an update: mini-batches in which nothing had a gradient. Time is that of "
        "training, on a machine that may have had other work to do."
    )
    columns = ["family", "method", *SPENT.values(), "time", "audit"]
    return Table("What each run spent", remark, columns, rows)


SPENT = {
    "rollouts": "rollouts",
    "generated_tokens": "generated tokens",
    "tool_calls": "tool calls",
    "updates": "updates",
    "skipped_updates": "without an update",
}


LEARNT = {
    "probes": ("probes", ".0%"),
    "searches": ("searches", ".1f"),
    "unfinished": ("not finished", ".0%"),
    "used": ("used", ".0%"),
    "idle": ("no gradient", ".0%"),
    "localized": ("localized", ".1%"),
    "clipped": ("clipped", ".2%"),
    "clipped_localized": ("clipped, localized", ".2%"),
    "entropy": ("entropy", ".3f"),
    "gradient_norm": ("gradient", ".3f"),
    "per_call": ("successes per call", ".3f"),
    "together": ("together", ".1f"),
    "seconds": ("seconds", ",.0f"),
    "memory": ("memory", ",.0f"),
}


def _learnt(results: Results) -> Table:
    rows = [
        [row["family"], row["method"]]
        + ["" if row[name] is None else format(row[name], form) for name, (_, form) in LEARNT.items()]
        for row in results["learnt"]
    ]
    remark = (
        "Means over runs and iterations; blank where a method has none. Probes: share of the rollouts that start in "
        "the middle of a run. Searches for a critical step per iteration, the shares of them that came to no answer "
        "and that the method used. No gradient: share of the trees that teach nothing. Localized: share of the terms "
        "from a critical step on; clipped: share of all terms, and of these, whose gradient the clip cuts off. "
        "Entropy (nats) in the last iteration with an update; norm of the gradient; successes per tool call of "
        "held-out runs after training; completions decoded together; seconds of training, and the most memory (MB) "
        "that its process had."
    )
    columns = ["family", "method", *(words for words, _ in LEARNT.values())]
    return Table("How they learnt", remark, columns, rows, folded=True)


def _trials(results: Results) -> Table:
    chosen = {(c["family"], c["method"]): c["multiple"] for c in results["chosen"]}
    rows = [
        [t["family"], t["method"], f"{t['multiple']:g}", str(t["seed"]), f"{t['sampled']:.3f}",
         "chosen" if chosen.get((t["family"], t["method"])) == t["multiple"] else ""]
        for t in results["trials"]
    ]  # fmt: skip
    remark = (
        "Final success on the validation split, by multiples of the learning rate; the same trials for each method."
    )
    return Table("Learning rates", remark, ["family", "method", "multiple", "seed", "success", ""], rows, folded=True)


def _runs(results: Results) -> Table:
    rows = []
    for run in results["runs"]:
        success = [f"{run[name]:.3f}" for name in ("before", "after", "greedy")]
        spent = [f"{run['spend'][name]:,.0f}" for name in SPENT]
        rate, time = f"{run['lr']:g}", duration(run["spend"]["seconds"])
        rows.append([run["family"], run["method"], str(run["seed"]), rate, *success, *spent, time])
    columns = ["family", "method", "seed", "lr", "before", "after", "greedy", *SPENT.values(), "time"]
    return Table("Every run", "Before and after: sampled success.", columns, rows, folded=True)


def _markdown(results: Results, tables: Sequence[Table]) -> str:
    lines = [f"# {results['title']}", ""]
    lines += [f"- {name}: {fact}" for name, fact in _facts(results)] + [""]
    lines += [f"**{warning}**\n" for warning in _warnings(results)]
    lines += ["## What can be concluded", "", *(f"- {sentence}" for sentence in results["conclusions"]), ""]
    lines += [f"{remark}\n" for remark in REMARKS]
    for table in tables:
        lines += [f"## {table.title}", "", table.remark, "", _row(table.columns)]
        lines += [_row(["---" if i < table.words else "---:" for i in range(len(table.columns))])]
        lines += [*map(_row, table.rows), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
