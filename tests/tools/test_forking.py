"""A run that is branched at every step gives the outputs of runs from scratch with the same calls.

FIRSTFAULT_PROGRAMS sets how many random programs are run; by default 600.
"""

import asyncio
import os
from random import Random

import pytest

from firstfault.tools import PythonTool, Session

PROGRAMS = int(os.environ.get("FIRSTFAULT_PROGRAMS", 600))
DEPTH = 8
# What a call may do to the names that earlier calls have left, or not. Much of it fails, some of it halfway.
STATEMENTS = [
    "{a} = {e}", "{a} = {e}", "{a} = {b}", "{a} = [{e}, {b}]", "{a} += {e}", "{a}.append({e})", "{a}[0] = {e}",
    "{a}['{b}'] = {e}", "del {a}", "print({a}, {e})", "{a}, {b} = {b}, {a}", "{a} = {{'{b}': {e}}}",
    "def f(x):\n    global {a}\n    {a} = x\n    return {e}", "def f(x, seen=[]):\n    seen.append(x)\n    return seen",
    "{a} = f({e})", "g = (i * {k} for i in range({k}))", "{a} = next(g)", "h = lambda: {a}", "{b} = h()",
    "class C:\n    items = []\n    def add(self, x):\n        self.items.append(x)\n        return len(self.items)",
    "c = C()", "{a} = c.add({e})", "c.size = {e}", "{a} = c.size + {k}", "import random, itertools", "random.seed({k})",
    "{a} = random.random()", "n = itertools.count({k})", "{a} = next(n)", "{a} = random.sample(range(99), {k})",
    "{a} = {e}\nraise ValueError({a})", "print('before')\n{a} = {k}\n1 / 0", "for i in range({k}):\n    {a} = i",
    "try:\n    {a} = {b} + {e}\nexcept Exception as error:\n    {a} = type(error).__name__", "s = {{{k}, '{a}'}}",
    "s.add({k})", "{a} = list(s)", "{a} = sorted(map(str, s))", "print = {b}", "from math import gcd as {a}",
    "{a} = {a}({k}, 12)", "import sys; sys.counter = getattr(sys, 'counter', 0) + {k}", "{a} = sys.counter", "_ = {a}",
]  # fmt: skip
EXPRESSIONS = ["{k}", "'{b}'", "{b}", "{k} * 2", "[{k}]", "{k} / 4", "str({b})", "len({b})", "None", "({b}, {k})"]


def program(draw: Random) -> str:
    def fill(text: str) -> str:
        names = {name: draw.choice("wxyz") for name in "ab"} | {"k": draw.randint(1, 9)}
        return text.format(**names, e="(" + draw.choice(EXPRESSIONS).format(**names) + ")")

    lines = [fill(draw.choice(STATEMENTS)) for _ in range(draw.randint(1, 3))]
    return "\n".join([*lines, fill(draw.choice(["{a}", "{e}", "({a}, {b})", "{a} = {e}"]))])


async def branched(seed: int, tool: PythonTool, fresh: PythonTool) -> int:
    """Grow a tree with one or two calls after every step, and compare all its paths; returns how many calls it has."""
    draw = Random(seed)
    calls = 0

    async def grow(session: Session, path: list[tuple[str, str]]) -> None:
        nonlocal calls
        if len(path) == DEPTH:
            await compare(path)
            return
        for _ in range(1 + (draw.random() < 0.3)):
            branch, code = session.fork(), program(draw)
            calls += 1
            seen = (await branch.call("python", {"code": code})).text
            await grow(branch, [*path, (code, seen)])
            await branch.close()

    async def compare(path: list[tuple[str, str]]) -> None:
        scratch = Session([fresh.fork()])
        for code, seen in path:
            assert (await scratch.call("python", {"code": code})).text == seen, "\n\n".join(code for code, _ in path)
        await scratch.close()

    await grow(Session([tool.fork()]), [])
    return calls


@pytest.mark.parametrize("snapshots", [256, 8])
def test_branches_are_as_if_run_from_scratch(snapshots):
    async def main() -> int:
        tool = PythonTool(workers=1, timeout=20, snapshots=snapshots)
        fresh = PythonTool(workers=1, timeout=20)
        calls = seed = 0
        try:
            while calls < PROGRAMS // 2:
                calls += sum(await asyncio.gather(*[branched(seed + i, tool, fresh) for i in range(4)]))
                seed += 4
        finally:
            await tool.close()
            await fresh.close()
        return calls

    assert asyncio.run(main()) >= PROGRAMS // 2
