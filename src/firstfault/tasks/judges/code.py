"""Judges of programs: they run in the sandbox, each test in a process of its own; what is expected stays outside.

Not covered: asserts (HumanEval) have to run beside the program they test. They count as passed when a random token
comes back, so a program that prints, exits early or catches everything does not pass; one that looks for the token in
the memory of the process could. Time is measured on this machine: what is slow on another may pass here.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import zlib
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from firstfault.tasks.judges.sandboxed_program import hash_of
from firstfault.tasks.judges.script import SandboxedScript

SCRIPT = Path(__file__).with_name("sandboxed_program.py")
LONG = 50_000  # characters; of an output that should be longer, the hash is compared
# what programs for LeetCode and the like take for granted, as LiveCodeBench's own judge does
MODULES = ("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics",
           "itertools", "functools", "operator", "io", "sys", "json")  # fmt: skip
PREAMBLE = "".join(f"from {name} import *\n" for name in (*MODULES, "builtins", "typing"))
PREAMBLE += f"import {', '.join(MODULES)}\n"


@dataclass(frozen=True)
class Examples:
    """Pairs of an input and an output, for a program's stdin and stdout, or for a function.

    With a `function`, an input is its arguments, one JSON value a line, and an output is a JSON value.

    Raises:
        ValueError: if they are not.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: str | None = None
    preamble: str = PREAMBLE

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.outputs):
            raise ValueError(f"{len(self.inputs)} inputs of tests have {len(self.outputs)} outputs")
        for text in (*self.inputs, *self.outputs):
            if not isinstance(text, str):
                raise ValueError(f"the input or output {text!r} of a test is not a text")
        if self.function is not None:
            for output in self.outputs:
                json.loads(output)


@dataclass(frozen=True)
class Asserts:
    """Code to be run before and after a program: it is right if nothing raises."""

    preamble: str
    code: str


class CodeJudge:
    """Whether a program passes all its tests. `timeout` (seconds) is for each. `close` ends its processes."""

    def __init__(self, timeout: float = 10.0) -> None:
        self._script = SandboxedScript(SCRIPT, preload=(*MODULES, "typing"), timeout=timeout)

    async def passes(self, program: str, tests: Examples | Asserts) -> bool:
        program = (tests.preamble, program)
        if isinstance(tests, Asserts):
            token = secrets.token_hex(16)
            return _unpacked(await self._script.call("pass_asserts", *program, tests.code, token)) == token
        for given, expected in zip(tests.inputs, tests.outputs, strict=True):
            hashed = len(expected) > LONG
            if tests.function is None:
                reply = await self._script.call("run_program", *program, given, hashed)
                same = same_output
            else:
                reply = await self._script.call("call_function", *program, tests.function, given, hashed)
                same, expected = same_json, json.dumps(json.loads(expected))
            output = reply if hashed else _unpacked(reply)
            if output is None or not (output == hash_of(expected) if hashed else same(output, expected)):
                return False
        return bool(tests.inputs)

    async def close(self) -> None:
        await self._script.close()


def program_in(answer: str) -> str:
    """The last fenced block of Python in an answer, or of any language; without one, the whole answer.

    >>> program_in("So:\\n```python\\nprint(1)\\n```\\nIt prints 1.")
    'print(1)\\n'
    """
    fenced = r"^([ \t]*)```[ \t]*([\w+-]*)[^\n`]*\n(.*?)(?:^\1```[ \t]*$|\Z)"
    blocks = re.findall(fenced, answer, re.DOTALL | re.MULTILINE)
    blocks = [
        (language.lower(), re.sub(f"^{indent}", "", code, flags=re.MULTILINE)) for indent, language, code in blocks
    ]
    python = [code for language, code in blocks if language in ("python", "python3", "py")]
    return (python or [code for _, code in blocks] or [answer])[-1]


def same_output(given: str, expected: str) -> bool:
    """As LiveCodeBench compares: line by line, white space at the ends aside, numbers by their value.

    >>> same_output("1.0  2 \\n\\n", "1 2"), same_output("1\\n2", "1 2"), same_output("yes", "Yes")
    (True, False, False)
    """
    a, b = ([line.strip() for line in text.strip().split("\n")] for text in (given, expected))
    return len(a) == len(b) and all(x == y or _numbers(x) == _numbers(y) is not None for x, y in zip(a, b, strict=True))


def same_json(given: str, expected: str) -> bool:
    """Equal as JSON values; unlike in Python, true is not 1.

    >>> same_json("[1, 2.0]", "[1, 2]"), same_json("true", "1"), same_json('"1"', "1"), same_json("[", "[]")
    (True, False, False, False)
    """
    try:
        return _same_value(json.loads(given), json.loads(expected))
    except (ValueError, RecursionError):
        return False


def _same_value(given: object, expected: object) -> bool:
    if isinstance(given, list) and isinstance(expected, list):
        return len(given) == len(expected) and all(map(_same_value, given, expected))
    if isinstance(given, dict) and isinstance(expected, dict):
        return given.keys() == expected.keys() and all(_same_value(given[key], expected[key]) for key in given)
    return isinstance(given, bool) == isinstance(expected, bool) and given == expected


def _numbers(line: str) -> list[Decimal] | None:
    try:
        numbers = [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None
    return numbers if all(number.is_finite() for number in numbers) else None


def _unpacked(reply: object) -> str | None:
    """The output in a reply; None for what no script of ours has sent."""
    try:
        return zlib.decompress(base64.b64decode(reply)).decode(errors="replace")
    except (TypeError, ValueError, zlib.error):
        return None
