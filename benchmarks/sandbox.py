"""What a call of the Python tool and a fork cost, beside other ways to run Python code for an agent.

python benchmarks/sandbox.py            # minutes; writes docs/results/sandbox.md
python benchmarks/sandbox.py --quick    # a tenth of it; only prints

The Jupyter kernel needs `pip install ipykernel jupyter_client`. All sides take turns within one run, so that what else
the machine does at the time meets them all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import side_by_side as bench

from firstfault.tools import PythonTool
from firstfault.tools.worker import ENVIRONMENT, PYTHON, bubblewrap

try:
    from jupyter_client.manager import start_new_kernel
except ImportError:
    sys.exit("benchmarks/sandbox.py compares with a Jupyter kernel: pip install ipykernel jupyter_client")

PAGE = Path(__file__).parent.parent / "docs" / "results" / "sandbox.md"
CODE = "x += 1; x"
PRELOADS = {"nothing": [], "numpy and sympy": ["numpy", "sympy"]}
CALL, FORK, REBUILD = "call", "fork and call", "a session of 8 calls made again"
KERNEL, KERNEL_START = "Jupyter kernel: call", "Jupyter kernel: start"
BWRAP, PROCESS = "fresh `bwrap python`", "fresh `python`"
SESSIONS = (1, 4, 16, 64)
Times = dict[str, list[float]]  # milliseconds


class Clock:
    """Times a block: `with Clock(times["call"]): ...`"""

    def __init__(self, into: list[float]):
        self.into = into

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.into.append((time.perf_counter() - self.start) * 1000)


async def measure(preload: list[str], rounds: int) -> Times:
    """In each round: ten of each kind of ours and of the kernel's calls, one fresh process of each kind."""
    times: Times = defaultdict(list)
    imports = f"import {', '.join(preload)}" if preload else ""
    program = f"{imports}\nx = 0\nx += 1; print(x)"
    python = [PYTHON, "-I", "-c", program]
    manager, kernel = start_new_kernel()
    kernel.execute_interactive(f"{imports}\nx = 0", output_hook=lambda _: None)
    tool = PythonTool(preload=preload, workers=1)
    session, again = tool.fork(), tool.fork()
    await session.run("x = 0")
    for number in range(rounds):
        for _ in range(10):
            with Clock(times[CALL]):
                await session.run(CODE)
            with Clock(times[FORK]):
                branch = session.fork()
                await branch.run(CODE)
            await branch.close()
            with Clock(times[KERNEL]):
                kernel.execute_interactive(CODE, output_hook=lambda _: None)
        with Clock(times[BWRAP]):
            subprocess.run([*bubblewrap(), *python], env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
        with Clock(times[PROCESS]):
            subprocess.run(python, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
        if number % 10 == 0:
            with Clock(times[KERNEL_START]):
                other, client = start_new_kernel()
                client.execute_interactive(program, output_hook=lambda _: None)
            client.stop_channels()
            other.shutdown_kernel(now=True)
            await again.close()
            again = tool.fork()
            for code in ["x = 0", *[CODE] * 7]:
                await again.run(code)
            await tool.close()
            session = tool.fork()
            await session.run("x = 0")  # starts the worker
            with Clock(times[REBUILD]):
                await again.ready()
    await tool.close()
    kernel.stop_channels()
    manager.shutdown_kernel(now=True)
    return times


async def throughput(preload: list[str], sessions: int, seconds: float) -> float:
    """Calls a second of so many sessions at a time, with two workers."""
    tool = PythonTool(preload=preload, workers=2)
    forks = [tool.fork() for _ in range(sessions)]
    await asyncio.gather(*[fork.run(f"x = {i}") for i, fork in enumerate(forks)])  # equal calls would be shared
    end = time.perf_counter() + seconds
    done = 0

    async def one(fork: PythonTool) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await fork.run(CODE)
            done += 1

    await asyncio.gather(*map(one, forks))
    await tool.close()
    return done / seconds


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def render(measured: dict[str, Times], rates: dict[str, dict[int, float]], load: str) -> str:
    lines = [
        "# The Python tool's sandbox",
        "",
        "Milliseconds as the caller waits for them, of `x += 1; x` in a session. A fork by itself is free: it only "
        "notes which state to go on from, and every call forks. So *fork and call* is a branch and its first call. "
        "The fresh processes, the only others that are as independent of each other, import and compute the same, and "
        "keep no variables. A Jupyter kernel keeps variables, has no sandbox, and can't be forked: a branch would cost "
        "its start and all earlier calls. Sides take turns within one run. p99 of few measurements is their maximum.",
    ]
    for name, times in measured.items():
        ours = statistics.median(times[CALL])
        lines += ["", f"## {name} preloaded".capitalize(), ""]
        lines += ["| | p50 | p99 | n | p50, of our call's |", "|---|---|---|---|---|"]
        for side in (CALL, FORK, REBUILD, BWRAP, PROCESS, KERNEL, KERNEL_START):
            of, median = times[side], statistics.median(times[side])
            lines.append(f"| {side} | {median:.2f} | {percentile(of, 0.99):.2f} | {len(of)} | {median / ours:.1f} |")
        lines += ["", "| sessions at a time, 2 workers | " + " | ".join(map(str, rates[name])) + " |"]
        lines += ["|---" * (len(rates[name]) + 1) + "|"]
        lines += ["| calls per second | " + " | ".join(f"{rate:.0f}" for rate in rates[name].values()) + " |"]
    bwrap = subprocess.run([bubblewrap()[0], "--version"], capture_output=True, text=True).stdout.strip()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "sympy", "ipykernel", "jupyter_client"))
    lines += [
        "",
        f"`python benchmarks/sandbox.py` on {os.cpu_count()} cores ({platform.machine()}, Linux {platform.release()}), "
        f"Python {platform.python_version()}, {bwrap}, {packages}. Load average {load}: of this run, which keeps "
        "one or two cores busy, and of whatever else ran.",
        "",
    ]
    return "\n".join(lines)


async def run(quick: bool) -> tuple[dict[str, Times], dict[str, dict[int, float]]]:
    measured, rates = {}, {}
    for name, preload in PRELOADS.items():
        measured[name] = await measure(preload, 5 if quick else 50)
        rates[name] = {n: await throughput(preload, n, 0.5 if quick else 5) for n in SESSIONS}
    return measured, rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the measurements; only print")
    quick = parser.parse_args().quick
    before = os.getloadavg()[0]
    measured, rates = asyncio.run(run(quick))
    page = render(measured, rates, f"{before:.1f} before, {os.getloadavg()[0]:.1f} at the end")
    print(page)
    if not quick:
        PAGE.write_text(page)
        bench.assemble()


if __name__ == "__main__":
    main()
