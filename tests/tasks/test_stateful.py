"""Arithmetic on variables: what their demonstrations do to them, and what is followed of a run."""

import pytest
from demonstrated import as_run, codes

from firstfault.tasks import Stateful
from firstfault.tasks.base import Turn
from firstfault.tasks.chains import calls_python
from firstfault.tasks.stateful import execute
from firstfault.tree import Task

NOTHING = "(no output)"
TASK = Task("", "33", info={"start": {"a": 5, "b": 9}, "operations": [["a", "gain", 6], ["b", "multiply by", 2],
                                                                     ["a", "grow", "b"]]})  # fmt: skip
START = ("a=5;b=9", NOTHING)


def run_of(calls):
    return [*(calls_python("", code, output) for code, output in calls), Turn("\\boxed{?}")]


def test_no_number_shows_before_the_last_call():
    for task in Stateful().train(seed=0, first=0, n=50):
        *turns, last, _ = Stateful().demonstrate(task)
        assert {turn.outputs for turn in turns} == {("(no output)",)}
        assert codes([last]) == ["a+b"]


@pytest.mark.parametrize("registers", [1, 2, 3])
def test_the_answer_is_what_the_variables_add_up_to(registers):
    right = Stateful(silent=0.0, registers=registers)
    for task in Stateful(registers=registers).train(seed=1, first=0, n=100):
        state = {}
        for code in codes(right.demonstrate(task)):
            value = execute(code, state)
            assert all(number >= 0 for number in state.values()) and sum(state.values()) <= 999
        assert len(state) == registers and str(value) == task.answer


def test_a_silent_mistake_destroys_what_a_variable_held():
    source = Stateful(silent=1.0)
    wrong = [code for task in source.train(seed=2, first=0, n=50) for code in codes(source.demonstrate(task))[1:-1]
             if code[1] == "="]  # fmt: skip
    assert len(wrong) > 50


@pytest.mark.parametrize(
    ("calls", "success", "step"),
    [
        ([START, ("a+=6", NOTHING), ("b*=2", NOTHING), ("a+=b", NOTHING), ("a+b", "47")], True, None),
        ([START, ("a = a + 6", NOTHING), ("b = 2 * b; a += b", NOTHING), ("print(a + b)", "47")], True, None),
        ([("a=5", NOTHING), ("b=9", NOTHING), ("a+=6\nb+=b\na+=b\na+b", "47")], True, None),
        ([START, ("a", "5"), ("a+=6", NOTHING), ("c=3", NOTHING), ("b*=2;a+=b", NOTHING)], True, None),
        ([START, ("a=6", NOTHING), ("b*=2", NOTHING)], False, 2),
        ([START, ("a+=6", NOTHING), ("del b", NOTHING)], False, 3),
        ([START, ("b*=2", NOTHING), ("a+=6", NOTHING)], False, 2),  # another order
        ([START, ("a=grow(a,6)", "NameError: name 'grow' is not defined"), ("a+=6", NOTHING)], True, 2),
        ([START, ("a+=6", "Error: stopped after 2 s")], False, 2),
        ([START, ("for i in range(6): a+=1", NOTHING)], False, 2),  # right, but nothing that is followed
        ([START, ("a+=6.0", NOTHING)], False, 2),
        ([START, ("a+=" + "(" * 300 + "6" + ")" * 300, NOTHING)], False, 2),
        ([START, ("a+=" + "-" * 3000 + "6", NOTHING)], False, 2),
        ([START, (";".join(["a*=a"] * 40), NOTHING)], False, 2),
        ([START, ("a+=6", NOTHING)], False, 3),
        ([], False, 1),
    ],
)  # fmt: skip
def test_the_first_wrong_step_goes_by_what_the_variables_hold(calls, success, step):
    assert Stateful().first_wrong_step(TASK, as_run(TASK, run_of(calls), success)) == step


@pytest.mark.parametrize(
    "code", ["", "a=1", "a=7;a-=9;b=-a*3", "a=1\nb=a\ndel a\nb+2", "a=2;print(a)", "a=3;(a+4)*(a-1)", "b=+1", "a=b=1"]
)
def test_what_is_executed_is_done_as_python_does_it(code):
    expected, state = {}, {}
    exec(code, {}, expected)
    try:
        execute(code, state)
    except ValueError:
        assert code in ("b=+1", "a=b=1")  # not known, and said so
    else:
        assert state == expected


@pytest.mark.parametrize("code", ["a+=1", "b=a", "del a", "a=grow(a,6)", "a=a(3)", "a+b"])
def test_a_name_that_nothing_defines_is_an_error(code):
    with pytest.raises(NameError, match=r"^name '(a|grow)' is not defined$"):
        execute(code, {"b": 3} if "grow" not in code else {"a": 3})
