"""Programs: a function of a number, built up in an interpreter session step by step, and judged on hidden inputs."""

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


class Word(NamedTuple):
    """A word for an operation on the number `{n}` with `{k}`: its code, and that of who falls for the trap."""

    code: str
    trap: Kind | None = None
    wrong: str = ""


WORDS = {
    "add": Word("{n}+{k}"),
    "multiply by": Word("{n}*{k}"),
    "divide by": Word("{n}//{k}", "silent", "int({n}/{k})"),
    "distance to": Word("abs({n}-{k})", "silent", "{n}-{k}"),
    "take from": Word("{k}-{n}", "recoverable", "{n}-{k}"),
    "square and add": Word("{n}**2+{k}", "recoverable", "{n}*2+{k}"),
    "cap": Word("min({n},{k})", "dead_end"),
    "floor": Word("max({n},{k})", "dead_end"),
}
TRAPS = {word: trap for word, (_, trap, _) in WORDS.items()}
NAMES = [ordinal.lower() for ordinal in ORDINALS]
LARGEST = 999  # in the public examples
HIDDEN = 8  # inputs, at least
TRIES = 60
KNOWN = {*NAMES, "abs", "int", "max", "min"}  # names that mean the same in every program


class Programs(Chains):
    r"""A function for each of `operations` steps, on top of the one before; the last one's name goes in \boxed{}.

    >>> task = Programs(operations_max=4).train(seed=0, first=0, n=1)[0]
    >>> print(task.question)
    Define functions of a number n, each on top of the last.
    First square and add 4: first(20)==404
    Second add 7: second(20)==411
    Third take from 8: third(20)==-403
    Fourth take from 3: fourth(20)==406

    Every step has a public example, in code, which the agent runs in its own session: `True` or `False`. A run succeeds
    if the function that it names, as its session defines it then, is right on hidden inputs, whose outputs the session
    never sees.

    How demonstrations fall for the traps among `WORDS`:

    - silent (divide by, distance to): wrong in a case that hidden inputs reach and no example does;
    - dead end (cap, floor): they call a function of that name, which there is none, once more, and give up;
    - recoverable (take from, square and add): wrong, as the step's example shows; then they define the step again, and
      with it all that will be on top, or go on.
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
        values, operations = [draw.randint(1, 20)], []
        for step in range(steps):
            words = self.vocabulary(TRAPS, step, steps)
            for _ in range(TRIES):
                word, k = draw.choice(words), draw.randint(2, 9)
                value = run([formula(word, k)], values[-1])
                shows = value != run([formula(word, k, fell=True)], values[-1])
                if abs(value) <= LARGEST and value != values[-1] and shows == (TRAPS[word] == "recoverable"):
                    break
            else:
                return None
            values.append(value)
            operations.append([word, k])
        right = [formula(word, k) for word, k in operations]
        hidden = [draw.randint(-50, 50) for _ in range(HIDDEN)]
        for step, (word, k) in enumerate(operations):
            wrong = [*right[:step], formula(word, k, fell=True), *right[step + 1 :]]
            if wrong != right:
                inputs = draw.sample(range(-50, 51), TRIES)
                telling = next((n for n in inputs if run(wrong, n) != run(right, n)), None)
                if telling is None:
                    return None
                hidden.append(telling)
        lines = ["Define functions of a number n, each on top of the last."]
        for step, (word, k) in enumerate(operations):
            lines.append(f"{ORDINALS[step]} {word} {k}: {NAMES[step]}({values[0]})=={values[step + 1]}")
        return Task("\n".join(lines), NAMES[steps - 1], id=name, info={
            "operations": operations,
            "values": values,
            "hidden": [[n, run(right, n)] for n in hidden],
        })  # fmt: skip

    def demonstrate(self, task: Task) -> list[Turn]:
        """An imperfect demonstration, drawn from the task's name."""
        draw = random.Random(f"demonstration-{task.id}")
        start, *values = task.info["values"]
        value, turns = start, []
        for step, ((word, k), expected) in enumerate(zip(task.info["operations"], values, strict=True)):
            line = f"{ORDINALS[step]} {word} {k}."
            example = f";{NAMES[step]}({start})=={expected}"
            fell = self.falls(draw, TRAPS[word])
            if fell and TRAPS[word] == "dead_end":
                code = f"{NAMES[step]}={word}({NAMES[step - 1] if step else 'n'},{k}){example}"
                fails = calls_python(line, code, undefined(code, word))
                return [*turns, fails, fails, GIVE_UP]
            if fell and TRAPS[word] == "recoverable":
                wrong = run([formula(word, k, fell)], value)
                turns.append(calls_python(line, define(step, word, k, fell) + example, str(wrong == expected)))
                if draw.random() >= self.repaired:
                    value = wrong
                    continue
                fell = False
            value = run([formula(word, k, fell)], value)
            turns.append(calls_python(line, define(step, word, k, fell) + example, str(value == expected)))
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
        seen = await session.call("python", {"code": f"[{name}(number) for number in {list(inputs)}]"})
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


def formula(word: str, k: int, fell: bool = False, n: str = "n") -> str:
    """The code of an operation on the number `n`."""
    code, _, wrong = WORDS[word]
    return (wrong or code if fell else code).format(n=n, k=k)


def define(step: int, word: str, k: int, fell: bool = False) -> str:
    """The definition of step number `step`, from 0, on top of the one before.

    >>> define(1, "take from", 3)
    'second=lambda n:3-first(n)'
    """
    return f"{NAMES[step]}=lambda n:{formula(word, k, fell, n=f'{NAMES[step - 1]}(n)' if step else 'n')}"


def run(formulas: Sequence[str], n: int) -> int:
    """What formulas, one after the other, make of a number. They are from `WORDS`, never from a model."""
    for code in formulas:
        n = _function(code)(n)
    return n


@cache
def _function(code: str) -> Callable[[int], int]:
    return eval(f"lambda n: {code}")


def _is_right(code: Any, right: dict[str, str]) -> bool:
    """Whether code only defines functions as `right` does, and looks at values."""
    try:
        for statement in ast.parse(code).body:
            match statement:
                case ast.Expr():
                    continue
                case ast.FunctionDef(name, arguments, body=[ast.Return(ast.expr() as result)], decorator_list=[]):
                    function = ast.Lambda(arguments, result)
                case ast.Assign(targets=[ast.Name(name)], value=ast.Lambda() as function):
                    pass
                case _:
                    return False
            if _shape(function) != _shape(ast.parse(right[name]).body[0].value):
                return False
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError):
        return False
    return True


def _shape(function: ast.Lambda) -> str:
    """A syntax tree without annotations, its own names numbered in the order of their appearance."""
    numbers: dict[str, str] = {}
    for argument in function.args.args:
        argument.annotation = None
    for node in ast.walk(function):
        field = {ast.Name: "id", ast.arg: "arg"}.get(type(node))
        if field and getattr(node, field) not in KNOWN:
            setattr(node, field, numbers.setdefault(getattr(node, field), f"v{len(numbers)}"))
    return ast.dump(function)
