"""Arithmetic on variables: the numbers live in the interpreter only, so that nothing brings an overwritten one back."""

from __future__ import annotations

import ast
import operator
import random

from pydantic import Field

from firstfault.tasks.arithmetic import LARGEST, TRAPS, WORDS, calculate
from firstfault.tasks.base import Turn
from firstfault.tasks.chains import GIVE_UP, ORDINALS, Chains, calls_python, undefined
from firstfault.tree import Node, Task

REGISTERS = "abc"
BORROWED = 0.25  # share of operations whose operand is another variable
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
TOO_LARGE = 10**100  # for what a run makes of them


class Stateful(Chains):
    r"""`operations` operations on a few variables of the Python interpreter; what they add up to goes in \boxed{}.

    >>> task = Stateful(operations_max=4).train(seed=0, first=0, n=1)[0]
    >>> print(task.question)
    Start with a=87;b=82.
    First in a lose 3.
    Second in b multiply by 3.
    Third in b gain a.
    Fourth in a gain b.
    Last tell a+b.
    >>> task.answer
    '744'

    No output shows a number before the last call. Demonstrations fall for the traps of `arithmetic` in other ways:

    - silent: they assign the operand (`a=6` for `a+=6`), and what the variable held is lost;
    - dead end: they delete the variable, and give up at the next call that needs it;
    - recoverable: they call a function that there is none, and then either do the operation, or go on without it.
    """

    operations_max: int = Field(10, le=len(ORDINALS), description="most operations of a task")
    registers: int = Field(2, ge=1, le=len(REGISTERS), description="variables that the operations are on")

    def _task(self, name: str) -> Task:
        draw = random.Random(name)
        start = {register: draw.randint(1, 99) for register in REGISTERS[: self.registers]}
        state = dict(start)
        lines, operations = [f"Start with {_assignments(start)}."], []
        steps = draw.randint(self.operations_min, self.operations_max)
        for step in range(steps):
            words = self.vocabulary(TRAPS, step, steps)
            while True:
                register = draw.choice(list(state))
                word = draw.choice(words)
                others = [other for other in state if other != register]
                operand = draw.choice(others) if others and draw.random() < BORROWED else draw.randint(2, 9)
                number = state.get(operand, operand)
                result = calculate(state[register], WORDS[word].sign, number)
                after = {**state, register: result}
                # no operation that changes nothing, and none that an assignment in its place does as well
                if result >= 0 and sum(after.values()) <= LARGEST and len({state[register], number, result}) == 3:
                    break
            state = after
            lines.append(f"{ORDINALS[step]} in {register} {word} {operand}.")
            operations.append([register, word, operand])
        lines.append(f"Last tell {'+'.join(state)}.")
        return Task("\n".join(lines), str(sum(state.values())), id=name,
                    info={"start": start, "operations": operations})  # fmt: skip

    def demonstrate(self, task: Task) -> list[Turn]:
        """An imperfect demonstration, drawn from the task's name."""
        draw = random.Random(f"demonstration-{task.id}")
        start, *operations, last = task.question.splitlines()
        state: dict[str, int] = {}
        calls = [(start, _assignments(task.info["start"]))]
        for line, (register, word, operand) in zip(operations, task.info["operations"], strict=True):
            sign, trap, share = WORDS[word]
            code = f"{register}{sign}={operand}"
            if self.falls(draw, trap, share):
                wrong = {
                    "silent": f"{register}={operand}",
                    "dead_end": f"del {register}",
                    "recoverable": f"{register}={word}({register},{operand})",
                }[trap]
                calls.append((line, wrong))
                if trap != "recoverable" or draw.random() >= self.repaired:
                    continue
            calls.append((line, code))
        calls.append((last, "+".join(task.info["start"])))
        turns = []
        for line, code in calls:
            try:
                value = execute(code, state)
            except NameError as error:
                turns.append(calls_python(line, code, undefined(code, error.name)))
                if error.name in REGISTERS:
                    return [*turns, GIVE_UP]
            else:
                turns.append(calls_python(line, code, "(no output)" if value is None else str(value)))
        return [*turns, Turn(f"\\boxed{{{value}}}")]

    def first_wrong_step(self, task: Task, leaf: Node) -> int | None:
        """The first step after which the variables do not hold what they should, next or for as many steps as it does.

        Code that is more than `execute` knows counts as wrong.
        """
        start = list(task.info["start"].items())
        ahead = [dict(start[:n]) for n in range(len(start) + 1)]
        for register, word, operand in task.info["operations"]:
            state = ahead[-1]
            result = calculate(state[register], WORDS[word].sign, state.get(operand, operand))
            ahead.append({**state, register: result})
        state = {}
        for number, step in enumerate(leaf.steps, 1):
            statements = 0
            for call in step.calls:
                code = str(call.arguments.get("code"))
                statements += 1 + code.count(";") + code.count("\n")
                try:
                    execute(code, state)
                except (NameError, ValueError):
                    return number
                if call.failed:
                    return number
            held = {register: state[register] for register, _ in start if register in state}
            if held not in ahead[: statements + 1]:
                return number
            ahead = ahead[ahead.index(held) :]
        return None if leaf.success else len(leaf.steps)


def _assignments(values: dict[str, int]) -> str:
    return ";".join(f"{name}={value}" for name, value in values.items())


def execute(code: str, state: dict[str, int]) -> int | None:
    """Do what Python would do with the variables in `state`; the value of the last statement, as in a notebook.

    It knows so little of Python that it can be given what a model wrote.

    >>> state = {"a": 5}
    >>> execute("a += 2 * a; b = 3", state), state, execute("a + b", state)
    (None, {'a': 15, 'b': 3}, 18)

    Raises:
        NameError: as Python does, for a variable or a function.
        ValueError: for all that is not whole numbers, names, `+`, `-`, `*`, assignments to one name, `del` and `print`.
    """
    try:
        statements = ast.parse(code).body
        value = None
        for statement in statements:
            value = _execute(statement, state)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not Python, or too deep: {error}") from error
    return value


def _execute(statement: ast.stmt, state: dict[str, int]) -> int | None:
    match statement:
        case ast.Assign(targets=[ast.Name(name)], value=right):
            state[name] = _evaluate(right, state)
        case ast.AugAssign(target=ast.Name(name), op=op, value=right):
            state[name] = _evaluate(ast.BinOp(ast.Name(name), op, right), state)
        case ast.Delete(targets=[ast.Name(name)]):
            _evaluate(ast.Name(name), state)
            del state[name]
        case ast.Expr(ast.Call(func=ast.Name("print"), args=[shown], keywords=[])):
            _evaluate(shown, state)
        case ast.Expr(shown):
            return _evaluate(shown, state)
        case _:
            raise ValueError(f"a statement that is not known here: {type(statement).__name__}")
    return None


def _evaluate(expression: ast.expr, state: dict[str, int]) -> int:
    match expression:
        case ast.Constant(int() as value) if not isinstance(value, bool):
            pass
        case ast.Name(name) | ast.Call(func=ast.Name(name)) if name not in state:
            raise NameError(f"name '{name}' is not defined", name=name)
        case ast.Name(name):
            value = state[name]
        case ast.UnaryOp(ast.USub(), operand):
            value = -_evaluate(operand, state)
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            value = OPERATORS[type(op)](_evaluate(left, state), _evaluate(right, state))
        case _:
            raise ValueError(f"an expression that is not known here: {type(expression).__name__}")
    if abs(value) > TOO_LARGE:
        raise ValueError("too large a number")
    return value
