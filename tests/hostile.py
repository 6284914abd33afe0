"""A small run whose every text tries to break out of a page."""

from __future__ import annotations

import json
from pathlib import Path

from firstfault.tree import Call, Node, Probe, Task, Term, Tree, Verdict, save_trees

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='alert(3)' ]]> {{ 7*7 }} ${alert(4)} \x00\x1b[31m"
    " \u202e </title></svg></style></pre></details><!-- javascript:alert(5) <iframe srcdoc='<script>alert(6)</script>'>"
)


def grow(words: str = "") -> Tree:
    """A lost run 0 of three steps; a probe that wins after step 1; two that lose after step 2; a root run that wins."""
    tree = Tree(Task(f"6 × 7 − 2? {words}", f"40{words}", id=f"t1{words}"), prompt=[1])

    def step(parent: Node, rollout: int, expression: str, output: str, advantage: float = 0.5) -> Node:
        call = Call(f"calc{words}", {f"expression{words}": expression + words}, output + words, failed=words or None)
        return tree.add(
            parent, rollout=rollout, text=f"I compute {expression}{words}", calls=[call], action_tokens=[7, 8],
            entropies=[0.2, 0.9], logprobs=[-0.1, -0.8], reference_logprobs=[-0.3, -0.7],
            terms=[Term(advantage, 1.0, 0.2, 0.3)],
        )  # fmt: skip

    def stop(parent: Node, rollout: int, answer: str) -> Node:
        won = answer == "40"
        return tree.add(
            parent, rollout=rollout, text=words, end=f"answer{words}", answer=answer + words, success=won,
            reward=float(won), action_tokens=[9], entropies=[0.1], terms=[Term(float(won), 1.0, 0.2, 0.3)],
        )  # fmt: skip

    first = step(tree.root, 0, "6*7", "42")
    tree.root.value = 0.294  # as by A*-PO or a critic
    first.value, first.value_samples = 0.5, 4  # and by VinePPO
    wrong = step(first, 0, "42+2", "44", -0.25)
    wrong.critical = True
    lost = stop(wrong, 0, "44")
    stop(step(first, 1, "42-2", "40"), 1, "40")
    stop(wrong, 2, "44")
    stop(wrong, 3, "46")
    stop(step(tree.root, 4, "6*7-2", "40"), 4, "40")
    tree.verdicts.append(Verdict(lost.index, 3, 2, True, [Probe(1, 1, 1), Probe(2, 2, 0)], marked=True))
    return tree


def hostile_run(folder: Path, words: str = HOSTILE) -> Path:
    """A run of three iterations, of which the first and the last have trees, three each."""
    folder.mkdir()
    rows = [{"iteration": i, "success": 0.2 * i, "entropy": float("nan") if i == 2 else 0.3, f"odd{words}": 1.0}
            for i in (1, 2, 3)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.toml").write_text(
        f'seed = 3\n[method]\nname = "elpo"\n[tasks]\nname = {json.dumps("t" + words)}\n'
    )
    for i in (1, 3):
        win = Tree(Task(f"no gradient {i}", "1"), prompt=[1])
        win.add(win.root, rollout=0, text="one", end="answer", answer="1", success=True, reward=1.0)
        save_trees([grow(words), grow(words), win], folder / f"trees/step-{i:04d}.jsonl.gz")
    return folder
