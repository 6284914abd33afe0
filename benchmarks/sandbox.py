"""What a call of the Python tool costs, and a branch, beside other ways to run an agent's code.

    python benchmarks/sandbox.py            # writes docs/results/sandbox.md
    python benchmarks/sandbox.py --quick    # fewer rounds, writes nothing

All sides take turns in one run. A call is `x += 1; x` in a session with a history, where there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from firstfault.tools import PythonTool
from firstfault.tools.python import PRELOAD
from firstfault.tools.worker import ENVIRONMENT, OPTIONS, bubblewrap

try:
    from jupyter_client.manager import AsyncKernelManager
except ImportError:
    sys.exit("the notebook kernel to compare with is missing; pip install ipykernel jupyter_client.")

RESULTS = Path(__file__).parent.parent / "docs" / "results"
CODE = "x += 1; x"
SLOW = 20  # the sides that start a process for each call have this many times fewer rounds

Side = Callable[[], Awaitable[None]]


async def session_sides(packages: tuple[str, ...], close: list) -> dict[str, Side]:
    """Our tool: a call, a branch, and a state that has to be made again; a program with `packages`, if any."""
    tool = PythonTool(workers=1, preload=(*PRELOAD, *packages))
    lost = PythonTool(workers=1, preload=(*PRELOAD, *packages))
    close += [tool.close, lost.close]
    for each in (tool, lost):
        await each.run("x = 0")
        for _ in range(8):
            await each.run(CODE)

    async def call() -> None:
        await tool.run(CODE)

    async def branch() -> None:
        fork = tool.fork()
        await fork.run(CODE)
        await fork.close()

    async def rebuild() -> None:
        state = lost._state
        while state.parent is not None:  # as if all states of this run had been dropped
            lost._pool.drop(state)
            state = state.parent
        await lost.ready()

    return {"call": call, "branch, and a call in it": branch, "a state of 9 calls made again": rebuild}


def process_side(command: list[str], packages: tuple[str, ...]) -> Side:
    """A process for each call, which imports what it needs."""
    code = f"import {', '.join(packages or ['math'])}\nx = 1\n{CODE}"

    async def call() -> None:
        process = await asyncio.create_subprocess_exec(
            *command, sys.executable, *OPTIONS, "-c", code, env=ENVIRONMENT, stdout=subprocess.DEVNULL
        )
        assert await process.wait() == 0

    return call


async def kernel_side(packages: tuple[str, ...], close: list) -> Side:
    """A notebook kernel (ipykernel): a session that can't be branched, in a process that is not isolated."""
    manager = AsyncKernelManager()
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready()
    for code in ("x = 0", *(f"import {name}" for name in packages)):
        await client.execute_interactive(code, output_hook=lambda _: None)

    async def stop() -> None:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)

    close.append(stop)

    async def call() -> None:
        await client.execute_interactive(CODE, output_hook=lambda _: None)

    return call


async def measure(packages: tuple[str, ...], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each call, by side."""
    close: list[Callable[[], Awaitable[None]]] = []
    ours = await session_sides(packages, close)
    others = {
        "a notebook kernel (ipykernel), not isolated": await kernel_side(packages, close),
        "a process for each call": process_side([], packages),
        "a process in bubblewrap for each call": process_side(bubblewrap(), packages),
    }
    times: dict[str, list[float]] = {name: [] for name in (*ours, *others)}
    try:
        for i in range(rounds):
            for name, side in (ours | others).items():
                if "for each call" in name and i % SLOW:
                    continue
                start = time.perf_counter()
                await side()
                times[name].append(1000 * (time.perf_counter() - start))
    finally:
        for stop in close:
            await stop()
    return {name: np.array(values) for name, values in times.items()}


async def throughput(calls: int, side_by_side: int) -> float:
    """Calls per second of many sessions at a time."""
    tool = PythonTool(workers=2)
    free = asyncio.Semaphore(side_by_side)

    async def one() -> None:
        async with free:
            fork = tool.fork()
            await fork.run("x = 1")
            await fork.close()

    await one()
    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(calls)))
    seconds = time.perf_counter() - start
    await tool.close()
    return calls / seconds


def table(times: dict[str, np.ndarray]) -> list[str]:
    base = np.median(times["call"])
    lines = ["| | p50, ms | p99, ms | times our call | rounds |", "|---|---|---|---|---|"]
    for name, values in times.items():
        p50, p99 = np.quantile(values, [0.5, 0.99])
        lines.append(f"| {name} | {p50:.2f} | {p99:.2f} | {p50 / base:.1f} | {len(values)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; nothing is written")
    parsed = parser.parse_args()
    rounds = 60 if parsed.quick else 1000
    before = os.getloadavg()[0]
    page = [
        "# What a call of the Python tool costs",
        "",
        "One call after the other, all sides in turn in one run. A call is `x += 1; x`; ours, and the kernel's, is "
        "made in a session with a history. A fork of ours costs nothing: a call in a branch is what can be timed. "
        "Nothing but ours can be branched; a process for each call keeps no variables.",
    ]
    for title, packages in (("Bare", ()), ("With numpy and sympy", ("numpy", "sympy"))):
        page += ["", f"## {title}", "", *table(asyncio.run(measure(packages, rounds)))]
    per_second = asyncio.run(throughput(20 * rounds, 8))
    page += [
        "",
        f"Eight sessions at a time, two workers, bare: {per_second:.0f} calls per second.",
        "",
        f"Command: `python benchmarks/sandbox.py`. Machine: {platform.machine()}, {os.cpu_count()} cores, Linux "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}; load average {before:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after, so that much of it is other work where it exceeds 1.",
        "",
    ]
    print("\n".join(page))
    if not parsed.quick:
        (RESULTS / "sandbox.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()
