"""A session that is forked at every step answers as one that makes the same calls from scratch.

FIRSTFAULT_PROGRAMS=10000 python -m pytest tests/tools/test_forking.py   # all of it, minutes; else a few of them
"""

import asyncio
import os
import re
from random import Random

import pytest
from sandboxed import LONG, come_down_to

from firstfault.tools import PythonTool, Session

PROGRAMS = int(os.environ.get("FIRSTFAULT_PROGRAMS", 108))
DEPTH = 8
AT_ONCE = 3  # trees

# What every run begins with, so that most pieces find what they need; and the pieces of programs. I, J are names of
# numbers, L, K of lists, D of a dictionary, S of a string, A, B of anything, V a value.
START = r"""
i, j, l, k, d, s = 1, 2, [3], [4], {5: 6}, 'seven'
class Box:
    all = []
    def __init__(self, n): self.n = n; self.all.append(n)
    def __repr__(self): return f'{type(self).__name__}({self.n})'
def f(n, seen=[]): seen.append(n); return len(seen), i
def make(n):
    def step():
        nonlocal n
        n += 1
        return n
    return step
def g(n):
    for k in range(n): yield k, i
step, numbers, box = make(5), g(9), Box(1)
"""
PIECES = r"""
I = V
I += V; I
I = I * 31 % 1000003; I
I, J = J, I
L = [V, J]
L = K
L.append(V); L
L.extend([V, I]); L.pop(0)
L[V % 3] = I; L
L.sort(); L
del L[0]; L
L = [x + V for x in L]; sum(L)
for x in range(V): L.append(x * V)
L.append(K[:]); len(L)
L is K, L == K
D = {V: I, 'k': V}
D[V] = I; D
D.setdefault('k', []).append(V); D
D = D | {I: J}; len(D)
{*map(str, L)}
S = S[:30] + str(V); S
S = S.upper()[::-1]; S
S.encode().hex()
A = B
del A
print(A, B)
print('before'); print(L[V]); print('after')
I = V; 1 / 0
L.append(V); L.nothing
D['k'] = I; raise ValueError(I)
try: L.append(D[V])\nexcept Exception as error: print(type(error).__name__); L = []
f(V)
f(I)
step() + step()
step = make(I)
numbers = g(V)
next(numbers)
list(numbers)
box = Box(V); box.all
box.n += V; box
class Box(Box): pass
Box.all = []; box.all
import random; random.seed(V)
import random; random.random()
import random; L = random.sample(range(100), 5); L
import random; random.shuffle(L); L
import math; math.gcd(I, V)
from collections import deque; l = deque([V, I], maxlen=3)
import itertools; count = itertools.count(V)
next(count), next(count)
import functools\n@functools.cache\ndef slow(n): print('once', n); return n
slow(V)
import copy; L = copy.deepcopy(K); L
x = (
assert I == J, 'not equal'
import re; re.sub('[0-9]', 'd', str(D))
import datetime; datetime.date(2000, 1, 1) + datetime.timedelta(I)
import json; json.dumps(L)
with open('/nowhere') as file: pass
print(*range(V), sep='-', end='')
import sys; sys.exit(V % 2)
"""


def program(random: Random) -> str:
    """What one call runs: some pieces."""

    def filled(piece: str) -> str:
        names = {"V": str(random.randrange(9)), "D": "d", "S": "s"}
        for couple, choices in {"IJ": "ij", "LK": "lk", "AB": "ijlkds"}.items():
            names |= dict(zip(couple, random.sample(choices, 2), strict=True))
        return re.sub(r"\b[IJLKDSABV]\b", lambda name: names[name[0]], piece.replace("\\n", "\n"))

    return "\n".join(filled(random.choice(PIECES.strip().splitlines())) for _ in range(random.randint(1, 4)))


async def answers(session: Session, codes: list[str]) -> list[tuple[str, str | None]]:
    observations = [await session.call("python", {"code": code}) for code in codes]
    await session.close()
    return [(observation.text, observation.failed) for observation in observations]


async def compare(forked: PythonTool, fresh: PythonTool, random: Random) -> None:
    """A tree: a run of `DEPTH` calls, and from each of its states another run to the same depth."""
    trunk = [START, *[program(random) for _ in range(DEPTH - 1)]]
    session, forks, said = Session([forked.fork()]), [], []
    for code in trunk:
        forks.append(session.fork())
        observation = await session.call("python", {"code": code})
        said.append((observation.text, observation.failed))
    branches = [[program(random) for _ in range(DEPTH - step)] for step in range(DEPTH)]  # the first one has no START
    ends = await asyncio.gather(*[answers(fork, branch) for fork, branch in zip(forks, branches, strict=True)])
    await session.close()
    runs = [(trunk, said)]
    runs += [(trunk[:step] + branches[step], said[:step] + ends[step]) for step in range(DEPTH)]
    for codes, told in runs:
        assert told == await answers(Session([fresh.fork()]), codes), codes


@pytest.mark.parametrize("snapshots", [256, 8])  # with 8, states are made again all the time
def test_forked_sessions_answer_as_those_from_scratch(snapshots):
    async def main():
        forked, fresh = PythonTool(timeout=LONG, workers=1, snapshots=snapshots), PythonTool(timeout=LONG, workers=1)
        free = asyncio.Semaphore(AT_ONCE)

        async def one(seed: int) -> None:
            async with free:
                await compare(forked, fresh, Random(seed))

        try:
            async with asyncio.TaskGroup() as tasks:
                for seed in range(snapshots, snapshots + PROGRAMS // (DEPTH + 1) // 2):
                    tasks.create_task(one(seed))
        finally:
            await forked.close()
            await fresh.close()

    asyncio.run(main())
    assert come_down_to(0)
