"""The page and the picture of what `localization.py` measures."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from planted_page import table, told

from firstfault.credit import mean
from firstfault.intervals import mean_interval, wilson

FAMILIES = {
    "a": "p_m = q before the fault, 0 from it on; q = .1, .2, .3, .5, .8",
    "b": "falls evenly to 35 % of its start, then to 0, .01 or .02; start .3, .5, .8",
    "c": "logit p_m walks at random (sd .7 a step), then 0; start .2, .5",
    "d": "one to three partial errors (each times .3 to .7), then 0; start .5, .8",
    "f": "rises to the fault as under a constant hazard, p_m = q^((K + 1 - m) / (K + 1)), then 0; q = .05, .2, .5",
    "e": "no irrecoverable step: flat, or a walk as in c; start .1, .2, .5, .8",
}
WITH_FAULT = "abcdf"
OTHERS = "posterior, 15 other runs"
MODELS = [f"reward model right in {share}, 15 other runs" for share in (".9", ".6", ".3")]
PAIRS = [  # a search and its rollouts, and what it is compared to
    ("printed, 3 tries", 8, "printed, 2 tries", 8),
    ("filled", 8, "printed, 2 tries", 8),
    ("posterior", 8, "printed, 2 tries", 8),
    ("posterior", 8, "printed, 3 tries", 8),
    ("posterior", 8, "filled", 8),
    ("posterior, stops at .9", 24, "printed, 3 tries", 24),
    ("posterior, counts only", 8, "filled", 8),
    ("posterior", 8, "posterior, counts only", 8),
    ("posterior", 8, "posterior, counts only", 16),
    (OTHERS, 4, "posterior", 4),
    (OTHERS, 8, "posterior", 8),
    (OTHERS, 4, "posterior, counts only", 16),
    ("entropies", 4, "posterior", 4),
    ("entropies", 8, "posterior", 8),
    ("entropies, 15 other runs", 8, OTHERS, 8),
    ("entropies of other steps, 15 other runs", 8, OTHERS, 8),
    ("rates of other tasks", 8, "posterior", 8),
    ("places of other tasks", 8, "posterior", 8),
    *((model, 8, OTHERS, 8) for model in MODELS),
]
STYLES = {
    "printed, 2 tries": {"color": "tab:blue", "linestyle": ":"},
    "printed, 3 tries": {"color": "tab:blue"},
    "filled": {"color": "tab:green"},
    "posterior": {"color": "tab:red"},
    OTHERS: {"color": "tab:red", "linestyle": "--"},
}


def short(number: float, sign: str = "") -> str:
    return f"{number:{sign}.2f}".replace("0.", ".", 1)


def interval(middle: float, low: float, high: float, sign: str = "") -> str:
    return f"{short(middle, sign)} [{short(low, sign)}, {short(high, sign)}]"


def of_runs(values: Sequence[float], sign: str = "") -> str:
    """The mean over runs with its bootstrap interval."""
    return interval(*mean_interval(values), sign)


def simulated_table(scores: dict, families: Sequence[str], name: str) -> list[str]:
    rows = [
        [search, *(f"{mean([scored[f][name] for f in families]):.3f}" for scored in by_budget.values())]
        for search, by_budget in scores.items()
        if name in by_budget["8"][families[0]]
    ]
    return table(["search", *scores["posterior"]], rows)


def shares(searches: dict) -> list[str]:
    rows = [[name, *(of_runs(found["exact"]) for found in by.values())] for name, by in searches.items()]
    return table(["search", *searches["posterior"]], rows)


def differences(real: dict) -> list[str]:
    def exact(family: str, search: str, budget: int) -> list[float]:
        return real[family]["searches"][search][str(budget)]["exact"]

    found = told({
        (pair, family): [a - b for a, b in zip(exact(family, *pair[:2]), exact(family, *pair[2:]), strict=True)]
        for pair in PAIRS
        for family in real
    })  # fmt: skip

    def cell(one: dict) -> str:
        text = interval(one["gain"], one["low"], one["high"], "+")
        return text if one["verdict"] == "not told apart" else f"**{text}**"

    def label(search: str, budget: int) -> str:
        return search if budget == 8 else f"{search} at {budget}"

    rows = [
        [f"{label(*pair[:2])} **less** {label(*pair[2:])}", *(cell(found[pair, family]) for family in real)]
        for pair in PAIRS
    ]
    return table(["exact", *real], rows)


def modesty(real: dict) -> list[str]:
    """How much oftener a search is right than it says, at 8 rollouts."""
    rows = []
    for search in next(iter(real.values()))["searches"]:
        found = [real[family]["searches"][search]["8"] for family in real]
        if found[0]["said"]:
            gaps = [[a - b for a, b in zip(one["exact"], one["said"], strict=True)] for one in found]
            rows.append([search, *(of_runs(gap, "+") for gap in gaps)])
    return table(["right - said", *real], rows)


def accusations(real: dict) -> list[str]:
    """Of all families' runs without an irrecoverable step, how often one is named."""
    searches = next(iter(real.values()))["searches"]

    def cell(search: str, budget: str) -> str:
        named = [
            share
            for of in real.values()
            for share, run in zip(of["searches"][search][budget]["named"], of["runs"], strict=True)
            if run["step"] > run["steps"]
        ]
        return interval(mean(named), *wilson(mean(named), len(named)))

    rows = [[search, *(cell(search, budget) for budget in searches[search])] for search in searches]
    return table(["names a step", *searches["posterior"]], rows)


def described(runs: Sequence[dict]) -> str:
    """What the measured profiles look like."""
    faulty = [run for run in runs if run["step"] <= run["steps"]]
    return (
        f"{len(runs)} failed runs of {mean([run['steps'] for run in runs]):.1f} tool-call steps on average. A whole "
        f"run of their tasks succeeds in {of_runs([run['rates'][0] for run in runs])}; just before the first "
        f"irrecoverable step a completion does in {of_runs([run['rates'][run['step'] - 1] for run in faulty])}. "
        f"Runs without such a step: {len(runs) - len(faulty)}. In the others it is the first wrong step, which the "
        f"generator knows, in {of_runs([run['first_wrong'] == run['step'] for run in faulty])}, and at "
        f"{of_runs([run['step'] / run['steps'] for run in faulty])} of the way."
    )


def render(results: dict) -> str:
    lines = [
        "# Finding the first irrecoverable step",
        "",
        "Searches on failed runs, by the rollouts that they may use: the share of runs whose first irrecoverable step "
        "they name exactly. *printed* and *verified* are the paper's binary search with a fixed number of completions "
        "per anchor; *filled* is the verified one with the whole budget, leaving an anchor at its first success; "
        "*posterior* is ours ([`localize/posterior.py`](../../src/firstfault/localize/posterior.py)).",
        "",
        "![Share of runs whose step is found exactly, over rollouts](localization.svg)",
        "",
        "## Simulated runs",
        "",
        f"{results['runs']:,} runs of each family for each K (tool-call steps), with the same outcomes for all "
        "searches. The step is anywhere, early and late in a third of the runs each.",
        "",
        *[f"- **{name}**: {text}" for name, text in FAMILIES.items()],
        "",
        f"The standard error of a share is at most {0.5 / (5 * results['runs']) ** 0.5:.3f} over families "
        f"{', '.join(WITH_FAULT)} and {0.5 / results['runs'] ** 0.5:.3f} on e alone, that of a squared error at most "
        f"{0.5 / (5 * results['runs']) ** 0.5:.3f}. A calibration error comes from ten bins a family: a search that "
        "says exactly how sure it is would have one of .01 to .03.",
        "",
    ]
    for steps, scores in results["simulated"].items():
        lines += [f"### K = {steps}: exact, mean over families {', '.join(WITH_FAULT)}"]
        lines += simulated_table(scores, WITH_FAULT, "exact")
        lines += [f"### K = {steps}: says that there is none, where there is none (family e)"]
        lines += simulated_table(scores, "e", "none")
        lines += [f"### K = {steps}: calibration error (families {', '.join(FAMILIES)})"]
        lines += simulated_table(scores, list(FAMILIES), "calibration")
        lines += [f"### K = {steps}: squared error of the weights P(t* <= t)"]
        lines += simulated_table(scores, WITH_FAULT, "weight_error")
    return "\n".join([*lines, *real_runs(results["real"])])


def real_runs(real: dict) -> list[str]:
    none = sum(run["step"] > run["steps"] for of in real.values() for run in of["runs"])
    lines = [
        "## Runs of the tiny policy",
        "",
        "Runs of the tiny policy at the start of training that failed, with 64 completions after each of their steps "
        "(`firstfault claims consistency --config recipes/compare.toml --runs 50 --out docs/results/claims`). The "
        "truth is the first step after which at most one of 64 succeeds; searches draw from the same 64, without "
        "replacement. Each run is searched in 10 orders of its completions, whose mean is its figure; n is the number "
        "of runs. Intervals hold 95 %.",
        "",
        *(f"- **{family}**: {described(of['runs'])}" for family, of in real.items()),
        "",
        "*Counts only* is the search as in the simulation: it hears how many completions succeeded. The *posterior* "
        "also hears which steps of the failed run a completion repeats, with the same calls and the same outputs, and "
        "*15 other runs* are whole runs of the task that stand in the tree anyway. These cost nothing. "
        "*Entropies*: 70 % of the prior in proportion to the largest entropy in each step, or in those of the steps in "
        "another order. *Reward model*: 70 % of the prior on the step that a process reward model names, which is the "
        "first wrong one as often as said, and else any. *Rates* and *places of other tasks*: the prior is what the "
        "searches of the family's other runs say of recovery rates, or of the quarter of a run where it is lost.",
        "",
        *LESSONS,
        "",
        "### Differences",
        "",
        "Of the shares of exact answers, at 8 rollouts where no other number is said, on the same runs in the same "
        "orders (n = 50), with Student's intervals over runs. Bold: told apart at 5 % after Holm's correction over all "
        "differences of this table.",
        *differences(real),
    ]
    for family, of in real.items():
        lines += [f"### {family}: exact", "", f"Bootstrap over the {len(of['runs'])} runs.", *shares(of["searches"])]
    lines += [
        "### How much oftener it is right than it says",
        "",
        "The share of exact answers less the mean probability of the answers, at 8 rollouts; bootstrap over 50 runs, "
        "each interval on its own.",
        *modesty(real),
        "### Names a step where there is none",
        "",
        f"To be relied on, on the {none} runs of all families that have no irrecoverable step (n = {none}, Wilson's "
        "intervals).",
        *accusations(real),
        f"`python benchmarks/localization.py`, {platform.machine()}, Python {platform.python_version()}. Data: "
        "[localization.json](localization.json).",
        "",
    ]
    return lines


LESSONS = [
    "**What was learnt.** Differences are of the share of exact answers at 8 rollouts, on arithmetic / lore / "
    "programs, where nothing else is said. Two searches are told apart where the table of differences has them bold.",
    "",
    "- *Repeated steps are the evidence that counts.* By them the posterior finds more than by counts only (+.17 / "
    "+.16 / +.08), more than *filled* (+.17 / +.14 / +.09), and more than the printed search with 2 tries (+.23 / "
    "+.24 / +.21) or 3 (+.21 / +.22 / +.17): told apart on all three. By counts only it can't be told apart from "
    "*filled*. 8 rollouts with them find about as much as 16 by counts only (+.02 / +.02 / -.04, not told apart).",
    "- *Other runs of the task* help where rollouts are few. 15 of them are worth +.33 on arithmetic and +.22 on "
    "programs at 4 rollouts, and +.14 on programs at 8. On arithmetic at 8, and on lore, they can't be told apart from "
    "none; nor can 4 rollouts with them from 16 by counts only.",
    "- *Where no step is at fault, the posterior accuses one less often than the printed search.* Of the 12 runs that "
    "have none, the printed search with 2 tries accuses all, 1.00 [.76, 1.00], the posterior .12 [.03, .39]; *filled* "
    "is between them, .53 [.28, .77].",
    "- *It is too modest on arithmetic*: there it is right more often than it says, by .10 [.01, .20], and with 15 "
    "other runs by .20 [.11, .30]. On lore and programs no such difference can be told.",
    "- *Entropies* as a prior can't be told apart from an even one, with other runs or without; those of the wrong "
    "steps cost .15 on arithmetic. *Rates and places of other tasks* can't be told apart from none, and are worth .03 "
    "at most. None of these is used.",
    "- *A reward model* that is right in 9 of 10 runs can't be told apart from none; one that is right in 3 of 10 "
    "costs .16 on arithmetic, and elsewhere can't be told apart. `Posterior(prior=...)` takes one; nothing of ours "
    "gives it one.",
    "- *How these runs differ from the simulated ones*: they hardly ever recover, as in the hardest profiles there. "
    "The posterior is ahead of *filled*, and *filled* of the printed search with 2 tries (+.10 on lore, +.12 on "
    "programs; on arithmetic they can't be told apart), as in the simulation. There, counts only put the posterior "
    "ahead of *filled* by .03 (K = 8) and .02 (K = 16); here these can't be told apart.",
]


def draw(results: dict, path: Path) -> None:
    plt.rcParams |= {"svg.hashsalt": "firstfault"}
    panels = len(results["simulated"]) + len(results["real"])
    figure, axes = plt.subplots(1, panels, figsize=(2.6 * panels, 3.1), sharey=True)
    shown = iter(axes)
    for steps, scores in results["simulated"].items():
        axis = next(shown)
        axis.set(title=f"simulated, K = {steps}")
        for name in [name for name in STYLES if name in scores]:
            exact = [mean([scored[f]["exact"] for f in WITH_FAULT]) for scored in scores[name].values()]
            axis.plot([int(budget) for budget in scores[name]], exact, **STYLES[name])
    for family, of in results["real"].items():
        axis = next(shown)
        axis.set(title=f"real: {family}")
        for name, style in STYLES.items():
            budgets = [int(budget) for budget in of["searches"][name]]
            exact, low, high = zip(*(mean_interval(f["exact"]) for f in of["searches"][name].values()), strict=True)
            axis.plot(budgets, exact, **style, label=name)
            axis.fill_between(budgets, low, high, color=style["color"], alpha=0.1, linewidth=0)
    for axis in axes:
        axis.set(xlabel="rollouts", ylim=(0, 1))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("exact")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="lower center", ncols=len(STYLES), frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None})
