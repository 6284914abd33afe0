"""Programs and their tests: right, wrong, and meant to deceive."""

import asyncio
import json
import random

import pytest

from firstfault.tasks.judges.code import Asserts, CodeJudge, Examples, program_in, same_output

SUM = Examples(inputs=("1 2\n", "3\n4\n"), outputs=("3\n", "7\n"))
ADD = Examples(inputs=("1\n2", "[1]\n[2]"), outputs=("3", "[1, 2]"), function="add")
CHECK = Asserts(
    preamble='from typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add."""\n',
    code="def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n\ncheck(add)\n",
)
READ = "import sys\nprint(sum(map(int, sys.stdin.read().split())))"
PROGRAMS = {
    # a program for stdin and stdout
    "reads all": (READ, SUM, True),
    "reads a line": ("print(sum(map(int, input().split())))", SUM, False),  # there can be two
    "under main": (
        "def f():\n    " + READ.replace("\n", "\n    ") + "\nif __name__ == '__main__':\n    f()",
        SUM,
        True,
    ),
    "exits at its end": (READ + "\nexit()", SUM, True),
    "a future import": ("from __future__ import annotations\n" + READ, SUM, True),
    "imports nothing": ("print(sum(map(int, sys.stdin.buffer.read().split())))", SUM, True),
    "exits in a hurry": (READ + "\nsys.stdout.flush()\nimport os\nos._exit(0)", SUM, True),
    "prints at exit": (
        "import atexit\natexit.register(lambda: print(*map(sum, [data])))\n"
        "data = list(map(int, sys.stdin.read().split()))",
        SUM,
        True,
    ),
    "an output of its own": (
        "import io, os\nsys.stdout = io.StringIO()\n" + READ + "\nos.write(1, sys.stdout.getvalue().encode())",
        SUM,
        True,
    ),
    "does not read": ("print(3)", Examples(("x" * 10**6,), ("3",)), True),
    "a thread": (
        "import threading\nt = threading.Thread(target=lambda: print(sum(map(int, sys.stdin.read().split()))))\n"
        "t.start()\nt.join()",
        SUM,
        True,
    ),
    "white space": (READ + "\nprint('  ')", SUM, True),
    "writes to the file": ("import os\nos.write(1, str(sum(map(int, open(0).read().split()))).encode())", SUM, True),
    "warns on stderr": (READ + "\nprint('done', file=sys.stderr)", SUM, True),
    "prints extra": ("print('The sum is:')\n" + READ, SUM, False),
    "prints a constant": ("print(3)", SUM, False),
    "prints both": ("print(3)\nprint(7)", SUM, False),
    "prints another type": ("import sys\nprint([sum(map(int, sys.stdin.read().split()))])", SUM, False),
    "raises after its output": (READ + "\nraise ValueError", SUM, False),
    "is no Python": ("print(", SUM, False),
    "is words": ("I do not know.", SUM, False),
    "is nothing": ("", SUM, False),
    "hangs": ("while True: pass", SUM, False),
    "fills the memory": ("x = 'x' * 10**11", SUM, False),
    "floods its output": ("while True: print('x' * 10**6)", SUM, False),
    "recurses": ("def f(): f()\nf()", SUM, False),
    "kills its process": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", SUM, False),
    "kills all": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", SUM, False),
    "closes its output": ("import os\nos.close(1)", SUM, False),
    # a function
    "a function": ("def add(a, b):\n    return a + b", ADD, True),
    "a method": ("class Solution:\n    def add(self, a: List[int], b):\n        return a + b", ADD, True),
    "a method that prints": (
        "class Solution:\n    def add(self, a, b):\n        print(a)\n        return a + b",
        ADD,
        True,
    ),
    "a tuple": ("def add(a, b):\n    return a + b if a == 1 else (1, 2)", ADD, True),
    "prints instead": ("def add(a, b):\n    print(a + b)", ADD, False),
    "a text": ("def add(a, b):\n    return str(a + b)", ADD, False),
    "another name": ("def plus(a, b):\n    return a + b", ADD, False),
    "another name, after a blank line": ("\ndef plus(a, b):\n    return a + b", ADD, False),
    "equal to all": ("class E:\n    def __eq__(self, other): return True\ndef add(a, b):\n    return E()", ADD, False),
    "writes its reply": ("import os\nfor i in range(9):\n    os.write(i, b'3')\ndef add(a, b): pass", ADD, False),
    "exits": ("def add(a, b):\n    exit()", ADD, False),
    # asserts
    "passes": ("def add(a, b):\n    return a + b", CHECK, True),
    "only the body": ("    return a + b\n", CHECK, True),
    "types of the prompt": ("def add(a: int, b: List[int]) -> int:\n    return a + b", CHECK, True),
    "passes, and prints": ("def add(a, b):\n    print('passed')\n    return a + b\nprint('ok')", CHECK, True),
    "fails the second": ("def add(a, b):\n    return 3", CHECK, False),
    "leaves it as it is": ("", CHECK, False),
    "a check of its own": ("def check(candidate):\n    pass\ndef add(a, b):\n    return 0", CHECK, False),
    "exits early": ("import os\nos._exit(0)", CHECK, False),
    "exits in the function": ("import sys\ndef add(a, b):\n    sys.exit(0)", CHECK, False),
    "says that it passed": (
        "def add(a, b):\n    print('passed', flush=True)\n    import os\n    os._exit(0)",
        CHECK,
        False,
    ),
    "no test": ("print(1)", Examples((), ()), False),
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, bool]:
    async def run() -> list[bool]:
        judge = CodeJudge(timeout=3.0)
        try:
            return await asyncio.gather(*(judge.passes(program, tests) for program, tests, _ in PROGRAMS.values()))
        finally:
            await judge.close()

    return dict(zip(PROGRAMS, asyncio.run(run()), strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name, verdicts):
    assert verdicts[name] is PROGRAMS[name][2]


NUMBERS = random.Random(0).sample(range(10**9), 30_000)
LARGE = " ".join(map(str, NUMBERS))  # 300 kB that do not compress well


LARGE_TESTS = [
    ("print(*map(int, input().split()))", Examples((LARGE,), (LARGE,)), True),
    ("print(*map(int, input().split()[1:]))", Examples((LARGE,), (LARGE,)), False),
    ("def f(x): return x", Examples((json.dumps(NUMBERS),), (json.dumps(NUMBERS),), "f"), True),
    ("def f(x): return x[1:]", Examples((json.dumps(NUMBERS),), (json.dumps(NUMBERS),), "f"), False),
]


@pytest.mark.parametrize(("program", "tests", "verdict"), LARGE_TESTS, ids=range(len(LARGE_TESTS)))
def test_large_inputs_and_outputs(program, tests, verdict):
    assert judged(program, tests) is verdict


def judged(program: str, tests: Examples) -> bool:
    async def run() -> bool:
        judge = CodeJudge()
        try:
            return await judge.passes(program, tests)
        finally:
            await judge.close()

    return asyncio.run(run())


OUTPUTS = [
    ("3", "3", True),
    ("3\n", "3", True),
    (" 3 \n\n", "3", True),
    ("3.0", "3", True),
    ("1e3", "1000", True),
    ("a\r\nb", "a\nb", True),
    ("0.1", "0.10", True),
    ("", "", True),
    ("3 4", "3\n4", False),
    ("3\n\n4", "3\n4", False),
    ("yes", "YES", False),
    ("3", "3.0000001", False),
    ("nan", "0", False),
    ("sNaN", "5", False),
    ("-Infinity 1", "Infinity 1", False),
    ("inf", "inf", True),
    ("", "3", False),
    ("a  b", "a b", False),
    ("0x10", "16", False),
]


@pytest.mark.parametrize(("given", "expected", "verdict"), OUTPUTS)
def test_outputs_are_compared_as_livecodebench_does(given, expected, verdict):
    assert same_output(given, expected) is verdict


ANSWERS = [
    ("```python\nprint(1)\n```", "print(1)\n"),
    ("Try\n```python\nprint(1)\n```\nno,\n```python\nprint(2)\n```\nDone.", "print(2)\n"),
    ("```py\nprint(1)\n```", "print(1)\n"),
    ("```Python3\r\nprint(1)\r\n```", "print(1)\r\n"),
    ("```python\nprint(1)\n```\nIt prints:\n```\n1\n```", "print(1)\n"),
    ("```\nprint(1)\n```", "print(1)\n"),
    ("```python\nprint(1)", "print(1)"),
    ("Use ```print``` like:\n```python\nx = 1\n```\ndone", "x = 1\n"),
    (
        '```python\ndef f():\n    """Such as:\n    ```\n    f()\n    ```\n    """\n```\n',
        'def f():\n    """Such as:\n    ```\n    f()\n    ```\n    """\n',
    ),
    ("1. So:\n   ```python\n   if x:\n       y\n   ```\n2. Done", "if x:\n    y\n"),
    ("print(1)", "print(1)"),
    ("", ""),
    ("```" * 30_000, None),
    ("```python\n" * 30_000, None),
]


@pytest.mark.parametrize(("answer", "program"), ANSWERS, ids=range(len(ANSWERS)))
def test_the_program_in_an_answer(answer, program):
    assert program is None or program_in(answer) == program


@pytest.mark.parametrize(
    ("inputs", "outputs", "function", "what"),
    [
        (("1", "2"), ("1",), None, "2 inputs of tests have 1 outputs"),
        (("1",), (None,), None, "None of a test is not a text"),
        (("1",), ("one",), "f", "Expecting value"),
    ],
)
def test_examples_that_are_none(inputs, outputs, function, what):
    with pytest.raises(ValueError, match=what):
        Examples(inputs, outputs, function)
