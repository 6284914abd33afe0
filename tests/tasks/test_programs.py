"""Programs: what the examples show, and a judge that nothing in a session disturbs."""

import asyncio

import pytest
from demonstrated import as_run

from firstfault.tasks import Programs
from firstfault.tasks.base import Turn
from firstfault.tasks.chains import calls_python
from firstfault.tasks.programs import TRAPS, define, formula, run
from firstfault.tools import PythonTool, Session
from firstfault.tree import Task

SOURCE = Programs()
TASK = Task("", "second", info={"operations": [["add", 2], ["take from", 9]], "values": [1, 3, 6],
                                "hidden": [[-4, 11], [0, 7], [7, 0]]})  # fmt: skip
RIGHT = "def first(n): return n+2\ndef second(n): return 9-first(n)"


def judged(*codes, answer="\\boxed{second}"):
    """The verdict on a session in which this code was run, and what the session answers afterwards."""

    async def main():
        first = Session([PythonTool(timeout=2.0)])
        session = first.fork()
        try:
            for code in codes:
                await session.call("python", {"code": code})
            return await SOURCE.judge(TASK, answer, session), (await session.call("python", {"code": "1+1"})).text
        finally:
            await session.close()
            await first.close()

    return asyncio.run(main())


def test_examples_show_recoverable_mistakes_and_no_silent_ones_which_hidden_inputs_do():
    for task in SOURCE.train(seed=0, first=0, n=100):
        start, *values = task.info["values"]
        right = [formula(word, k) for word, k in task.info["operations"]]
        assert [run(right[: step + 1], start) for step in range(len(right))] == values
        assert all(run(right, n) == output for n, output in task.info["hidden"])
        for step, (word, k) in enumerate(task.info["operations"]):
            wrong = [*right[:step], formula(word, k, fell=True), *right[step + 1 :]]
            assert (run(wrong[: step + 1], start) != values[step]) == (TRAPS[word] == "recoverable")
            assert all(run(wrong, n) == output for n, output in task.info["hidden"]) == (TRAPS[word] is None)


def test_all_silent_mistakes_together_pass_the_examples():
    source = Programs(silent=1.0, recoverable=0.0)
    for task in source.train(seed=1, first=0, n=50):
        assert {turn.outputs for turn in source.demonstrate(task)[:-1]} == {("True",)}


def test_a_mistake_that_shows_is_repaired_in_the_next_step():
    source = Programs(silent=0.0, recoverable=0.5, repaired=1.0)
    for task in source.train(seed=2, first=0, n=30):
        turns = source.demonstrate(task)
        right = [turn.outputs == ("True",) for turn in turns[:-1]]
        assert sum(right) == len(task.info["operations"]) and right[-1]
        for turn, after, good in zip(turns, turns[1:], right, strict=False):
            assert good or turn.text.partition(".")[0] == after.text.partition(".")[0]


@pytest.mark.parametrize(
    ("sessions", "success"),
    [
        ([RIGHT], True),
        (["second=lambda n: 7-n"], True),
        (["def first(n): return n", RIGHT.splitlines()[1], RIGHT.splitlines()[0]], True),  # repaired at the bottom
        ([RIGHT, "def first(n): return n"], False),  # as it is at the end
        ([], False),
        (["second=3"], False),
        (["def second(n): return str(7-n)"], False),
        (["def second(n): return 7.0-n"], False),
        (["def second(n): return n==7 and 0 or 7-n if n else True"], False),
        (["def second(n): return None"], False),
        (["def second(n): return [7-n]"], False),
        (["def second(n): print(n); return 7-n"], False),
        (["def second(n): raise SystemExit"], False),
        (["def second(n): return second(n)"], False),
        (["def second(n): return 1/0"], False),
        (["def second(n):\n while True: pass"], False),
        (["def second(n): return [0]*10**10"], False),
        (["def second(n): import os; os._exit(100)"], False),
        (["def second(n): return 'x'*10**6"], False),
        (["def second(n): return 10**10**4"], False),
        (["class A:\n def __repr__(self): return 'a'*5000\ndef second(n): return A()"], False),
        (["import sys; sys.stdout.close()\n" + RIGHT + "\nsecond=0"], False),
    ],
)  # fmt: skip
def test_the_judge_calls_the_function_as_the_session_left_it(sessions, success):
    assert judged(*sessions)[0] == (success, float(success))


@pytest.mark.parametrize(
    "answer",
    ["", "second", "\\boxed{}", "\\boxed{third}", "\\boxed{(lambda n: 7-n)}", "\\boxed{second(n) or second}",
     "\\boxed{if}", "\\boxed{second\n}", "\\boxed{__import__}", "\\boxed{sécond}", "\\boxed{" + "a" * 9999 + "}"],
)  # fmt: skip
def test_an_answer_that_names_no_such_function_fails(answer):
    assert judged(RIGHT, answer=answer)[0] == (False, 0.0)


def test_a_session_without_python_fails():
    assert asyncio.run(SOURCE.judge(TASK, "\\boxed{second}", Session([]))) == (False, 0.0)


@pytest.mark.parametrize(
    ("calls", "success", "step"),
    [
        ([define(0, "add", 2), define(1, "take from", 9), "second(1)==6"], True, None),
        (["def first(x):\n    return x + 2\n\nfirst(1) == 3", "def second(x: int): return 9 - first(x)"], True, None),
        ([RIGHT], True, None),
        ([RIGHT], False, 2),  # only the answer is wrong
        ([define(1, "take from", 9), define(0, "add", 2), "second(1) == 6"], True, None),
        ([define(0, "add", 3), RIGHT], True, 1),
        ([define(0, "add", 2), define(1, "take from", 9, fell=True)], False, 2),
        ([define(0, "add", 2), "def second(n): return 9-second(n)"], False, 2),
        ([define(0, "add", 2), "def second(n): return 7-n"], True, 2),  # right, but another way
        ([define(0, "add", 2), "first = 3"], False, 2),
        ([define(0, "add", 2), "def third(n): return n"], False, 2),
        ([define(0, "add", 2), "def second(n): return"], False, 2),
        ([define(0, "add", 2), "def second(n) return"], False, 2),
        ([define(0, "add", 2), "\0"], False, 2),
        ([], False, 1),
    ],
)  # fmt: skip
def test_the_first_wrong_step_goes_by_definitions(calls, success, step):
    turns = [*(calls_python("", code, "(no output)") for code in calls), Turn("\\boxed{second}")]
    assert SOURCE.first_wrong_step(TASK, as_run(TASK, turns, success)) == step
