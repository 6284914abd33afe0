"""What all benchmarks of speed share: sides take turns in one run, and a page says on what machine."""

from __future__ import annotations

import os
import platform
import random
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait do not spin, as on the command line
import torch

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PAGES = ("iteration", "shares", "rollouts", "training", "memory", "growth", "sandbox", "viewer", "gpu")
INTRODUCTION = """# Benchmarks

In short: on a CPU, a whole iteration of GRPO takes TRL 2.6 to 4.2 times as long, sampling is level with vLLM, and a
training step is 1 to 6 times as fast as on flattened runs, as runs share tokens. On a GPU it is not fast yet.

The work of an iteration can be counted: unique tokens to sample, unique tokens to train on, tool calls. Each section
measures how long that work takes here, and beside it how long others take for the same. Sides take turns within one
run, in an order drawn anew for each round, after a round that does not count; a ratio is the median over rounds, with
quartiles. *Load* is how many processors other programs took while it began. `make bench` runs all of it but the GPU's
part and writes this page; each script has `--quick`.
"""
CLOSING = """## What limits

- *Training.* Nine tenths of the token ratio become speed up to a ratio of about 2. Beyond, the operations themselves
  shrink by less than the tokens: shared tokens are early ones, which attend to little. Of the operations, 0.8 to 1.1
  become speed on one thread. A third of a step is matrix products, a quarter attention, the rest elementwise.
- *Sampling.* The floor is far away: with a tiny policy a pass is a few hundred small kernels, and neither products nor
  bytes. vLLM, compiled, is level with it.
- *A whole iteration.* Half of it is training. Python in its sandbox costs about a millisecond of a core a call, and
  runs while the engine decodes; on two cores that are both busy there is little to gain.
- Tried, and left out: compiling the layers with torch.compile (7 to 17 % of a training step, nothing while decoding,
  20 s of compiling), fused RMSNorm, float masks, matrix products in the place of attention kernels, last tokens grouped
  by length, an allocator told to keep freed memory.
- *A GPU* waits for kernels to be started: with 600M parameters the ways differ in how many there are. Tree attention in
  one kernel and a captured decode pass are what is missing.
"""
Times = dict[str, list[float]]  # seconds, by side


def take_turns(sides: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Run each side once a round, in an order that is drawn anew; a first round warms up and does not count."""
    times: Times = {name: [] for name in sides}
    order, draw = list(sides), random.Random(0)
    for number in range(rounds + 1):
        draw.shuffle(order)
        for name in order:
            start = time.perf_counter()
            sides[name]()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: Times, side: str, ours: str) -> tuple[float, float, float]:
    """How many times as long a side took: median over rounds, and the quartiles."""
    quotients = [a / b for a, b in zip(times[side], times[ours], strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4, method="inclusive")
    return middle, low, high


def show(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def threads_of(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def foreign_load() -> float:
    """Processor time that other processes take, in processors, over a tenth of a second."""

    def busy() -> tuple[float, float]:
        user, nice, system, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
        mine = sum(os.times()[:4])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK") - mine, time.perf_counter()

    before, start = busy()
    time.sleep(0.1)
    after, end = busy()
    return max(0.0, after - before) / (end - start)


def multiply_rate(threads: int, size: int = 1024) -> float:
    """Floating-point operations a second of a matrix product on this machine, at best."""
    torch.set_num_threads(threads)
    a = torch.randn(size, size)
    seconds = min(take_turns({"": lambda: a @ a}, 20)[""])
    return 2 * size**3 / seconds


def copy_rate(threads: int, size: int = 1 << 28) -> float:
    """Bytes a second that this machine reads and writes, copying what no cache holds, at best."""
    torch.set_num_threads(threads)
    a, b = torch.ones(2, size // 4)
    seconds = min(take_turns({"": lambda: b.copy_(a)}, 5)[""])
    return 2 * size / seconds


def publish(name: str, title: str, lines: list[str], quick: bool, *packages: str) -> None:
    """Print a page; of a full run, write it to docs/results and put all pages together as docs/benchmarks.md."""
    foot = f"`python benchmarks/{name}.py` at {commit()} on {machine(*packages)}"
    page = "\n".join([f"# {title}", "", *lines, foot, ""])
    print(page)
    if not quick:
        (RESULTS / f"{name}.md").write_text(page)
        assemble()


def assemble() -> None:
    pages = [RESULTS / f"{name}.md" for name in PAGES]
    parts = [re.sub("^#", "##", page.read_text(), flags=re.MULTILINE) for page in pages if page.exists()]
    (RESULTS.parent / "benchmarks.md").write_text("\n".join([INTRODUCTION, *parts, CLOSING]))


def machine(*packages: str) -> str:
    """One sentence on the hardware and the versions."""
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", *packages))
    return (
        f"{len(names)} cores ({names[0]}), {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}."
    )


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=RESULTS.parent.parent).stdout.strip()

    return git("describe", "--always") + "-dirty" * bool(git("status", "--porcelain", "src", "benchmarks"))
