"""How far each method's credit of a step is from the truth, where the truth is known.

python benchmarks/credit.py            # writes docs/results/credit.md
python benchmarks/credit.py --quick    # a tenth of the trees; only prints
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from firstfault.credit import mean
from firstfault.methods import METHODS
from firstfault.tasks.planted import FIRST_ROW, PlantedProcess, State, traps
from firstfault.training.quality import action_tokens
from firstfault.training.tabular import TabularPolicy, credit, grow
from firstfault.tree import Tree

BUDGETS = (4, 8, 16, 32)
PROCESSES = {
    "silent mistakes": PlantedProcess(steps_min=6, steps_max=6),
    "recoverable mistakes": PlantedProcess(traps=traps("recoverable"), steps_min=6, steps_max=6),
}


def errors(process: PlantedProcess, policy: TabularPolicy, trees: list[Tree]) -> tuple[float, float]:
    """Bias and standard error of the credit of a step, as shares of the true advantages' root mean square.

    The trees are of one task. The true advantage of an action is what it changes in the exact success probability.
    Methods have units of their own, so the truth is first scaled to fit the credit best. Bias is how far the mean
    credit of an action in a state is off, noise how far credit scatters around that mean; both are root mean squares
    over the steps of all trees.
    """
    values = process.values(trees[0].task, policy.probabilities)
    value = lambda state: values.get(state, float(state.phase == "won"))  # noqa: E731
    seen: dict[tuple[State, int], list[float]] = defaultdict(list)
    truth: dict[tuple[State, int], float] = {}
    for tree in trees:
        for node in tree.steps:
            if node.terms and node.parent.observation_tokens[0] - FIRST_ROW < process.rows:  # it decides something
                before, after = process.states(tree.task, node)[-2:]
                seen[before, node.action_tokens[0]].append(node.advantage)
                truth[before, node.action_tokens[0]] = value(after) - value(before)
    means = {place: mean(credits) for place, credits in seen.items()}
    total = lambda of: sum(len(seen[place]) * of(place) for place in seen)  # noqa: E731
    size = total(lambda place: truth[place] ** 2)
    scale = total(lambda place: means[place] * truth[place]) / size
    off = total(lambda place: (means[place] - scale * truth[place]) ** 2)
    scatter = sum((credit - means[place]) ** 2 for place, credits in seen.items() for credit in credits)
    return (off / size) ** 0.5 / abs(scale), (scatter / size) ** 0.5 / abs(scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trees; only print")
    quick = parser.parse_args().quick
    number = 40 if quick else 400
    lines = [
        "# Credit against the truth",
        "",
        f"One task of six decisions ([planted mistakes](../planted.md)), {number} trees for each cell, the first "
        "policy. The true advantage of a step is what it changes in the exact success probability. *Bias*: how far "
        "the mean credit of an action in a state is from it, after the scale that fits best; *noise*: how far the "
        "credit of a single step scatters around that mean. Both are root mean squares over steps, as shares of "
        "the true advantages' root mean square: 1 / 3 means that credit is off by as much as the truth is large, "
        "and scatters three times as much. *Tokens*: what a tree of 16 rollouts writes.",
        "",
    ]
    for title, process in PROCESSES.items():
        policy, [task] = TabularPolicy.first(process), process.train(seed=0, first=0, n=1)
        lines += [f"## {title.capitalize()}", "", f"| method | {' | '.join(map(str, BUDGETS))} | tokens |",
                  f"| --- |{' --- |' * (len(BUDGETS) + 1)}"]  # fmt: skip
        for name, method in METHODS.items():
            cells, tokens = [], 0.0
            for budget in BUDGETS:
                sized = method(rollouts=budget)
                trees = grow(sized, process, policy, [task] * number, key=(budget,))
                credit(sized, trees, process, policy)
                bias, noise = errors(process, policy, trees)
                cells.append(f"{bias:.2f} / {noise:.2f}")
                if budget == 16:
                    tokens = mean([action_tokens(tree) for tree in trees])
            lines.append(f"| {name} | {' | '.join(cells)} | {tokens:.0f} |")
            print(lines[-1], flush=True)
        lines.append("")
    lines += ["`python benchmarks/credit.py`", ""]
    if not quick:
        (Path(__file__).parent.parent / "docs" / "results" / "credit.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
