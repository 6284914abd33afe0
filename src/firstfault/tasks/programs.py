"""Programs: a function of a list, built up in an interpreter session step by step, and judged on hidden inputs."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from pydantic import Field

from firstfault.tasks.base import Turn, last_boxed
from firstfault.tasks.chains import GIVE_UP, ORDINALS, Chains, calls_python, undefined
from firstfault.tasks.mistakes import Kind
from firstfault.tools.base import Session
from firstfault.tree import Node, Task

Numbers = list[int]


class Word(NamedTuple):
    """A word for an operation on the list `{x}` with the number `{k}`: its code, and that of who falls for the trap."""

    code: str
    trap: Kind | None = None
    wrong: str = ""


WORDS = {
    "add": Word("[v+{k} for v in {x}]"),
    "multiply by": Word("[v*{k} for v in {x}]"),
    "drop multiples of": Word("[v for v in {x} if v%{k}]"),
    "divide by": Word("[v//{k} for v in {x}]", "silent", "[int(v/{k}) for v in {x}]"),
    "modulo": Word("[v%{k} for v in {x}]", "silent", "[abs(v)%{k} for v in {x}]"),
    "take from": Word("[{k}-v for v in {x}]", "recoverable", "[v-{k} for v in {x}]"),
    "prepend": Word("[{k},*{x}]", "recoverable", "[*{x},{k}]"),
    "cap": Word("[min(v,{k}) for v in {x}]", "dead_end"),
    "floor": Word("[max(v,{k}) for v in {x}]", "dead_end"),
}
TRAPS = {word: trap for word, (_, trap, _) in WORDS.items()}
NAMES = [ordinal.lower() for ordinal in ORDINALS]
COUNTS = ("one", "two")  # of the public examples
LARGEST, LONGEST = 99, 5  # number and list in what the public examples show
HIDDEN = 6  # inputs, at least
TRIES = 60
KNOWN = {*NAMES, "abs", "int", "max", "min"}  # names that mean the same in every program


class Programs(Chains):
    r"""A function for each of `operations` steps, on top of the one before; the last one's name goes in \boxed{}.

    >>> task = Programs(operations_max=4).train(seed=0, first=0, n=1)[0]
    >>> print(task.question)
    Define functions of a list, each on top of the last.
    First prepend 5.
    Second modulo 3.
    Third take from 5.
    Fourth prepend 9.
    Example one: fourth([9,3,9])==[9,3,5,5,5]
    Example two: fourth([5,7,2])==[9,3,3,4,3]

    The examples are code, which the agent runs in its own session: `True` or `False`. A run succeeds if the function
    that it names, as its session defines it then, is right on hidden inputs, whose outputs the session never sees.

    How demonstrations fall for the traps among `WORDS`:

    - silent (divide by, modulo): wrong for numbers below zero, which the hidden inputs have there, but no example;
    - recoverable (take from, prepend): wrong, which the public examples show; then the demonstration
      defines the step again, and with it all that is on top, or answers nevertheless;
    - dead end (cap, floor): they call a function of that name, which there is none, once more, and give up.
    """

    recoverable: float = Field(0.6, ge=0, le=1, description="chance to fall for a trap that shows and can be repaired")
    operations_min: int = Field(4, ge=1, description="fewest operations of a task")
    operations_max: int = Field(6, le=len(ORDINALS), description="most operations of a task")

    def _task(self, name: str) -> Task:
        draw = random.Random(name)
        steps = draw.randint(self.operations_min, self.operations_max)
        task = None
        while task is None:
            task = self._attempt(name, steps, draw)
        return task

    def _attempt(self, name: str, steps: int, draw: random.Random) -> Task | None:
        """A task whose examples show every recoverable mistake and no silent one; None if the draws don't allow it."""
        examples = [[draw.randint(1, 9) for _ in range(3)] for _ in COUNTS]
        seen, operations = examples, []
        for step in range(steps):
            words = self.vocabulary(TRAPS, step, steps)
            for _ in range(TRIES):
                word, k = draw.choice(words), draw.randint(2, 9)
                after = [run([body(word, k)], x) for x in seen]
                if all(0 < len(x) <= LONGEST and max(map(abs, x)) <= LARGEST for x in after) and after != seen:
                    wrong = [run([body(word, k, fell=True)], x) for x in seen]
                    if TRAPS[word] != "silent" or wrong == after:
                        break
            else:
                return None
            seen = after
            operations.append([word, k])
        bodies = [body(*operation) for operation in operations]
        hidden = []
        for step, (word, k) in enumerate(operations):
            wrong = [*bodies[:step], body(word, k, fell=True), *bodies[step + 1 :]]
            if TRAPS[word] == "recoverable" and run(wrong, examples[0]) == seen[0]:
                return None
            if TRAPS[word] in ("silent", "recoverable"):
                inputs = (_hidden_input(draw) for _ in range(TRIES))
                hidden.append(next((x for x in inputs if run(wrong, x) != run(bodies, x)), None))
        if None in hidden:
            return None
        hidden += [_hidden_input(draw) for _ in range(HIDDEN - len(hidden))]
        lines = ["Define functions of a list, each on top of the last."]
        lines += [f"{ordinal} {word} {k}." for ordinal, (word, k) in zip(ORDINALS, operations, strict=False)]
        lines += [
            f"Example {count}: {NAMES[steps - 1]}({_compact(x)})=={_compact(y)}"
            for count, x, y in zip(COUNTS, examples, seen, strict=True)
        ]
        return Task("\n".join(lines), NAMES[steps - 1], id=name, info={
            "operations": operations,
            "examples": [list(pair) for pair in zip(examples, seen, strict=True)],
            "hidden": [[x, run(bodies, x)] for x in hidden],
        })  # fmt: skip

    def demonstrate(self, task: Task) -> list[Turn]:
        """An imperfect demonstration, drawn from the task's name."""
        draw = random.Random(f"demonstration-{task.id}")
        operations, turns, bodies, to_repair = task.info["operations"], [], [], []
        lines = [f"{ordinal} {word} {k}." for ordinal, (word, k) in zip(ORDINALS, operations, strict=False)]
        for step, (line, (word, k)) in enumerate(zip(lines, operations, strict=True)):
            fell = self.falls(draw, TRAPS[word])
            if fell and TRAPS[word] == "dead_end":
                code = f"{NAMES[step]}={word}({NAMES[step - 1] if step else 'list'},{k})"
                fails = calls_python(line, code, undefined(code, word))
                return [*turns, fails, fails, GIVE_UP]
            if fell and TRAPS[word] == "recoverable":
                to_repair.append(step)
            bodies.append(body(word, k, fell))
            turns.append(calls_python(line, define(step, word, k, fell), "(no output)"))
        repairs = draw.random() < self.repaired
        for count, (x, y) in zip(COUNTS, task.info["examples"], strict=True):
            shows = run(bodies, x) != y
            example = calls_python(f"Example {count}.", f"{task.answer}({_compact(x)})=={_compact(y)}", str(not shows))
            turns.append(example)
            if shows and repairs:
                for step in to_repair:
                    bodies[step] = body(*operations[step])
                    turns.append(calls_python(lines[step], define(step, *operations[step]), "(no output)"))
                turns.append(calls_python(f"Example {count}.", f"{task.answer}({_compact(x)})=={_compact(y)}", "True"))
        return [*turns, Turn(f"\\boxed{{{task.answer}}}")]

    async def judge(self, task: Task, answer: str, session: Session) -> tuple[bool, float]:
        """Whether the function named in the answer gives the expected outputs; the reward is 1 or 0.

        The session calls it on all hidden inputs at once, bounded as any call of the tool; what it returns is compared
        here, as text. So an exception, an endless loop, a print, another type or no such function is a failure.
        """
        name = last_boxed(answer) or ""
        if not re.fullmatch(r"[A-Za-z_]\w{0,40}", name, re.ASCII):
            return False, 0.0
        inputs, outputs = zip(*task.info["hidden"], strict=True)
        seen = await session.call("python", {"code": f"[{name}(numbers) for numbers in {list(inputs)}]"})
        success = seen.failed is None and seen.text == str(list(outputs))
        return success, float(success)

    def first_wrong_step(self, task: Task, leaf: Node) -> int | None:
        """The first step with a definition other than the right one of its name, or with a call that fails.

        Definitions are compared as syntax trees, whatever their arguments and variables are called; one that does the
        same in another way counts as wrong.
        """
        right = {NAMES[i]: define(i, word, k) for i, (word, k) in enumerate(task.info["operations"])}
        for number, step in enumerate(leaf.steps, 1):
            if any(call.failed or not _is_right(call.arguments.get("code"), right) for call in step.calls):
                return number
        return None if leaf.success else len(leaf.steps)


def body(word: str, k: int, fell: bool = False, x: str = "x") -> str:
    """The code of an operation on the list `x`."""
    code, _, wrong = WORDS[word]
    return (wrong or code if fell else code).format(x=x, k=k)


def define(step: int, word: str, k: int, fell: bool = False) -> str:
    """The definition of step number `step`, from 0, on top of the one before.

    >>> define(1, "add", 3)
    'def second(x): return [v+3 for v in first(x)]'
    """
    return f"def {NAMES[step]}(x): return {body(word, k, fell, x=f'{NAMES[step - 1]}(x)' if step else 'x')}"


def run(bodies: Sequence[str], x: Numbers) -> Numbers:
    """What operations one after the other make of a list. The code is that of `WORDS`, never a model's."""
    for code in bodies:
        x = _function(code)(x)
    return x


@cache
def _function(code: str) -> Callable[[Numbers], Numbers]:
    return eval(f"lambda x: {code}")


def _hidden_input(draw: random.Random) -> Numbers:
    return [draw.randint(-30, 30) for _ in range(draw.randint(5, 7))]


def _compact(numbers: Numbers) -> str:
    return str(numbers).replace(" ", "")


def _is_right(code: Any, right: dict[str, str]) -> bool:
    """Whether code only defines functions as `right` does, and looks at values."""
    try:
        statements = ast.parse(code).body
        return all(
            isinstance(statement, ast.Expr)
            or (
                isinstance(statement, ast.FunctionDef)
                and _shape(statement) == _shape(ast.parse(right[statement.name]).body[0])
            )
            for statement in statements
        )
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError):
        return False


def _shape(tree: ast.AST) -> str:
    """A syntax tree with its own names numbered in the order of their appearance."""
    numbers: dict[str, str] = {}
    for node in ast.walk(tree):
        field = {ast.Name: "id", ast.arg: "arg"}.get(type(node))
        if field and getattr(node, field) not in KNOWN:
            setattr(node, field, numbers.setdefault(getattr(node, field), f"v{len(numbers)}"))
    return ast.dump(tree)
