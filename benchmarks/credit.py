"""How far each method's credit of a step is from the truth, where the truth is known.

python benchmarks/credit.py            # writes docs/results/credit.md
python benchmarks/credit.py --quick    # a tenth of the trees; only prints
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path

from firstfault.credit import mean
from firstfault.methods import METHODS
from firstfault.planted.process import FIRST_ROW, PlantedProcess, State, traps
from firstfault.planted.quality import action_tokens
from firstfault.planted.tabular import TabularPolicy, credit, grow
from firstfault.tree import Tree

BUDGETS = (4, 8, 16, 32)
PROCESSES = {
    "silent mistakes": PlantedProcess(steps_min=6, steps_max=6),
    "recoverable mistakes": PlantedProcess(traps=traps("recoverable"), steps_min=6, steps_max=6),
}


def errors(process: PlantedProcess, policy: TabularPolicy, trees: list[Tree]) -> tuple[float, float, float]:
    """Bias, bias between actions and noise of the credit of a step, as shares of the true advantages' root mean square.

    The trees are of one task. The true advantage of an action is what it changes in the exact success probability.
    Methods have units of their own, so the truth is first scaled to fit the credit best.
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
    variance = {p: sum((c - means[p]) ** 2 for c in seen[p]) / max(1, len(seen[p]) - 1) for p in seen}
    total = lambda of: sum(len(seen[place]) * of(place) for place in seen)  # noqa: E731
    size = total(lambda place: truth[place] ** 2)
    scale = total(lambda place: means[place] * truth[place]) / size
    off = {place: means[place] - scale * truth[place] for place in seen}
    # what is the same for all actions of a state leaves the expected gradient as it is
    visits = Counter(state for state, action in seen for _ in seen[state, action])
    offset = {
        state: sum(len(seen[p]) * off[p] for p in seen if p[0] == state) / number for state, number in visits.items()
    }
    # means of n are off by chance, too: by a variance of 1 / n, less what the offset takes
    bias = total(lambda place: off[place] ** 2 - variance[place] / len(seen[place]))
    between = total(
        lambda place: (
            (off[place] - offset[place[0]]) ** 2 - variance[place] * (1 / len(seen[place]) - 1 / visits[place[0]])
        )
    )
    noise = total(lambda place: variance[place])
    return tuple((max(0.0, x) / size) ** 0.5 / abs(scale) for x in (bias, between, noise))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trees; only print")
    quick = parser.parse_args().quick
    number = 15 if quick else 150
    lines = [
        "# Credit against the truth",
        "",
        "One task of six decisions ([planted mistakes](../planted.md)), which the first policy solves in two to "
        f"four of ten runs; {number} trees for each cell. The true advantage of a step is what it changes in the "
        "exact success probability; methods have units of their own, so it is first scaled to fit the credit best. "
        "*Bias*: how far the mean credit of an action in a state is from it. *Between actions*: what is left of "
        "that when all actions of a state may be off by the same, which leaves the expected gradient as it is. "
        "*Noise*: how far the credit of a single step scatters around its mean. All are root mean squares over "
        "steps, as shares of the true advantages'. A cell is bias / between actions / noise, or a dash where there "
        "is next to nothing but noise; columns are budgets of rollouts. *Tokens*: what the trees of a task write "
        "at 16 rollouts.",
        "",
    ]
    for title, process in PROCESSES.items():
        policy = TabularPolicy.first(process)
        start = lambda task: process.values(task, policy.probabilities)[State()]  # noqa: B023, E731
        task = next(task for task in process.train(seed=0, first=0, n=100) if 0.2 < start(task) < 0.4)
        lines += [f"## {title.capitalize()}", "", f"| method | {' | '.join(map(str, BUDGETS))} | tokens |",
                  f"| --- |{' --- |' * (len(BUDGETS) + 1)}"]  # fmt: skip
        for name, method in METHODS.items():
            cells, tokens = [], 0.0
            for budget in BUDGETS:
                sized = method(rollouts=budget)
                trees = grow(sized, process, policy, [task] * number, key=(budget,))
                credit(sized, trees, process, policy)
                own = [tree for tree in trees if tree.task is task]  # some methods draw others
                found = errors(process, policy, own)
                told = found[-1] < 10  # beyond, the scale that fits is next to nothing
                cells.append(" / ".join(f"{error:.2f}" for error in found) if told else "–")
                if budget == 16:
                    tokens = sum(map(action_tokens, trees)) / number
            lines.append(f"| {name} | {' | '.join(cells)} | {tokens:.0f} |")
            print(lines[-1], flush=True)
        lines.append("")
    lines += ["`python benchmarks/credit.py`", ""]
    if not quick:
        (Path(__file__).parent.parent / "docs" / "results" / "credit.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
