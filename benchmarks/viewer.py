"""How long the viewer's pages take to open and to answer, in a headless browser.

python benchmarks/viewer.py            # writes docs/results/viewer.md
python benchmarks/viewer.py --quick    # once each, a smaller run; only prints
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import side_by_side as bench

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import CHROMIUM, Browser

from firstfault.credit import credit_run
from firstfault.tree import Call, Task, Tree, save_trees
from firstfault.view import Recording, write_page

TOKENS = 13  # of a step
# In the page: milliseconds until what was asked for is drawn.
TIMED = "(async () => {{ const start = performance.now(); {0}; await new Promise(requestAnimationFrame);"
TIMED += " await new Promise(done => setTimeout(done)); return performance.now() - start; }})()"
ACTIONS = {
    "choose a step": "await app.go({{node: {0} * 37 % app.model.nodes.length}})",
    "a rollout further in the replay": "await app.go({{at: 40 + {0}}})",
    "filter failed runs": "await app.go({{filter: {0} % 2 ? 'all' : 'failed'}})",
    "search in its texts": "await app.go({{q: ['', '1{0}'][{0} % 2]}})",
    "scroll": "app.panels[0].scroll.scrollTop = {0} * 400",
}


def grown(name: str, leaves: int, steps: int) -> Tree:
    """A tree of so many whole runs, with all that a real one has."""
    draw = random.Random(name)
    tree = Tree(Task(f"{name}: " + "add 7, spend 9, " * 6, "42", id=name), prompt=[1] * 60)
    few = lambda: [draw.random() for _ in range(TOKENS)]  # noqa: E731
    for rollout in range(leaves):
        at = tree.root
        for step in range(steps):
            code = f"{draw.randrange(100)} + {draw.randrange(100)}"
            won = draw.random() < 0.4
            last = {"end": "answer", "success": won, "reward": float(won), "answer": code}
            calls = [Call("python", {"code": code}, str(draw.randrange(1000)))]
            at = tree.add(
                at, rollout=rollout, action_tokens=[draw.randrange(1000) for _ in range(TOKENS)], entropies=few(),
                logprobs=[-v for v in few()], text=f"Next I compute {code}.", observation_tokens=[3] * 5,
                **(last if step == steps - 1 else {"calls": calls}),
            )  # fmt: skip
        credit_run(at, 1.0 if at.success else -0.7, aggregation="sequence", clip_low=0.2, clip_high=0.2)
    return tree


def page(folder: Path, trees: list[list[Tree]]) -> tuple[Path, float]:
    """A page of a run, and the seconds that writing it took."""
    for iteration, of_one in enumerate(trees, start=1):
        save_trees(of_one, folder / f"trees/step-{iteration:04d}.jsonl.gz")
    recording = Recording(folder)
    recording.decode = lambda tokens: "".join(f" w{token}" for token in tokens)
    start = time.perf_counter()
    write_page(recording, folder / "page.html")
    return folder / "page.html", time.perf_counter() - start


def opening(browser: Browser, path: Path, rounds: int) -> list[float]:
    """Seconds from asking for the page until its tree is drawn, after a round that does not count."""
    times = []
    for _ in range(rounds + 1):
        browser.send("Page.navigate", url="about:blank")
        start = time.perf_counter()
        browser.open(path.as_uri())
        times.append(time.perf_counter() - start)
    return times[1:]


def acting(browser: Browser, action: str, rounds: int) -> list[float]:
    return [browser.run(TIMED.format(action.format(i))) for i in range(rounds)]


def measured(folder: Path, iterations: int, rounds: int) -> list[str]:
    wide, _ = page(folder / "wide", [[grown("wide", 512, 12)]])
    run, seconds = page(
        folder / "run", [[grown(f"tree {i} {j}", 16, 10) for j in range(16)] for i in range(iterations)]
    )
    nodes = iterations * 16 * 161
    with Browser(folder / "profile") as browser:
        opened = opening(browser, wide, rounds)
        rows = [["open", *row(opened, 1000)]]
        rows += [[name, *row(acting(browser, action, 4 * rounds), 1)] for name, action in ACTIONS.items()]
        of_run = [["open", *row(opening(browser, run, rounds), 1000)]]
        going = f"await app.go({{{{iteration: {{0}} % {iterations} + 1, tree: 7}}}})"
        of_run.append(["go to another iteration", *row(acting(browser, going, 4 * rounds), 1)])
        every = "await app.go({{q: '{0}{0}'}}); await app.searchAll()"
        of_run.append(["search in the texts of all trees of an iteration", *row(acting(browser, every, rounds), 1)])
    return [
        "Milliseconds until it is drawn, in headless Chromium without a GPU, window 1600x950. *A tree of 512 leaves*: "
        "runs of 12 steps that share nothing, 6,145 nodes, in a file of its own "
        f"({wide.stat().st_size / 1e6:.1f} MB). Opening includes reading the file and unpacking the tree.",
        "",
        *bench.table(["a tree of 512 leaves", "median", "longest"], rows),
        "",
        f"*A run* of {iterations} iterations of 16 trees of 16 runs of 10 steps, {nodes:,} nodes of {TOKENS} tokens: "
        f"one file of {run.stat().st_size / 1e6:.1f} MB, written in {seconds:.0f} s.",
        "",
        *bench.table([f"a run of {nodes:,} nodes", "median", "longest"], of_run),
        "",
    ]


def row(times: list[float], scale: float) -> list[str]:
    return [f"{statistics.median(times) * scale:,.0f}", f"{max(times) * scale:,.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once each, a smaller run; only print")
    quick = parser.parse_args().quick
    if CHROMIUM is None:
        print("no Chromium or Chrome is installed: the viewer is not measured")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        lines = measured(Path(folder), iterations=4 if quick else 40, rounds=1 if quick else 9)
    bench.publish("viewer", "The viewer", [f"Load {bench.foreign_load():.1f}. {lines[0]}", *lines[1:]], quick)


if __name__ == "__main__":
    main()
