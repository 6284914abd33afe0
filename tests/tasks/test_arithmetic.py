"""Chained arithmetic: the tasks are what they say, and the demonstrations are wrong in just the way they should be."""

import asyncio
from collections import Counter

import pytest
from demonstrated import as_run, codes

from firstfault.tasks import Arithmetic
from firstfault.tasks.arithmetic import LARGEST, OPPOSITE, WORDS, calculate
from firstfault.tasks.base import Turn
from firstfault.tasks.chains import ORDINALS, calls_python
from firstfault.tools import Session
from firstfault.tree import Task

SOURCE = Arithmetic()
TRAIN = SOURCE.train(seed=0, first=0, n=2000)
TASK = Task("", "26", info={"start": 7, "operations": [["add", 3], ["gain", 3], ["multiply by", 2]]})


@pytest.mark.parametrize(("fewest", "most"), [(4, 12), (1, 1), (12, 12)])
def test_every_result_keeps_to_its_range(fewest, most):
    for task in Arithmetic(operations_min=fewest, operations_max=most).train(seed=1, first=0, n=300):
        value = task.info["start"]
        for word, operand in task.info["operations"]:
            value = calculate(value, WORDS[word].sign, operand)
            assert 0 <= value <= LARGEST and 2 <= operand <= 9
        assert task.answer == str(value)


def test_the_question_tells_the_operations_in_order():
    for task in TRAIN[:100]:
        told = [
            f"{ordinal} {word} {operand}."
            for ordinal, (word, operand) in zip(ORDINALS, task.info["operations"], strict=False)
        ]
        assert task.question == "\n".join([f"Start with {task.info['start']}.", *told])


def test_a_demonstration_goes_on_from_its_last_output_and_answers_with_it():
    for task in TRAIN[:200]:
        *turns, answer = SOURCE.demonstrate(task)
        assert len(turns) == len(task.info["operations"])
        value = str(task.info["start"])
        for turn, (_, operand) in zip(turns, task.info["operations"], strict=True):
            [code] = codes([turn])
            assert code[: len(value)] == value and code[len(value) + 1 :] == str(operand)
            [value] = turn.outputs
        assert (answer.text, answer.outputs) == (f"\\boxed{{{value}}}", ())


def test_demonstrations_take_the_opposite_operation_as_often_as_documented():
    """What the documented results of the demo were measured with: at two words of eight the likeliest is wrong."""
    said, wrong = Counter(), Counter()
    for task in TRAIN:
        value = task.info["start"]
        for turn, (word, _) in zip(SOURCE.demonstrate(task), task.info["operations"], strict=False):
            sign = codes([turn])[0][len(str(value))]
            assert sign in (WORDS[word].sign, OPPOSITE.get(WORDS[word].sign))
            said[word] += 1
            wrong[word] += sign != WORDS[word].sign
            value = turn.outputs[0]
    expected = {"gain": 0.6, "spend": 0.6, "collect": 0.1, "lose": 0.1}
    assert len(said) == 8 and said.keys() >= expected.keys()
    for word, count in said.items():
        share = expected.get(word, 0.0)
        assert wrong[word] / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


def test_demonstrations_are_right_where_no_word_is_a_trap():
    for task in TRAIN[:200]:
        if all(WORDS[word].trap is None for word, _ in task.info["operations"]):
            assert asyncio.run(SOURCE.judge(task, SOURCE.demonstrate(task)[-1].text, Session([]))) == (True, 1.0)


@pytest.mark.parametrize(
    ("calls", "success", "step"),
    [
        ([("7+3", "10"), ("10+3", "13"), ("13*2", "26")], True, None),
        ([("7+3", "10"), ("10-3", "7"), ("7*2", "14")], False, 2),
        ([("(7+3+3)*2", "26")], True, None),  # all at once
        ([("x = 7 + 3\nx + 3", "13"), ("print(13 * 2)", "26")], True, None),
        ([("7", "7"), ("7+3", "10"), ("7+3", "10"), ("5+8", "13"), ("13*2", "26")], True, None),
        ([("26", "26")], True, 1),  # not computed
        ([("7+3", "10"), ("10+3", "13"), ("13*2", "26")], False, 4),  # only the answer is wrong
        ([("7+3", "10"), ("10+", "SyntaxError: invalid syntax"), ("10+3", "13"), ("13*2", "26")], True, 2),
        ([], False, 1),
    ],
)
def test_the_first_wrong_step_goes_by_values(calls, success, step):
    turns = [*(calls_python("", code, output) for code, output in calls), Turn("\\boxed{?}")]
    assert SOURCE.first_wrong_step(TASK, as_run(TASK, turns, success)) == step


def test_zeros_in_a_row_are_steps_like_others():
    task = Task("", "4", info={"start": 3, "operations": [["subtract", 3], ["scale by", 5], ["add", 4]]})
    turns = [calls_python("", *call) for call in [("3-3", "0"), ("0*5", "0"), ("0+4", "4")]]
    assert SOURCE.first_wrong_step(task, as_run(task, [*turns, Turn("\\boxed{4}")], success=True)) is None
