"""Chained arithmetic: the tasks are what they say, and the demonstrations are wrong in just the way they should be."""

import asyncio
from collections import Counter

import pytest

from firstfault.agent.calls import tagged_calls
from firstfault.errors import UserError
from firstfault.tasks import Arithmetic
from firstfault.tasks.arithmetic import CONFUSION, LARGEST, ORDINALS, WORDS, calculate
from firstfault.tools import PythonTool, Session
from firstfault.training.build import build_tasks

SOURCE = Arithmetic()
TRAIN = SOURCE.train(seed=0, first=0, n=2000)


def code(turn) -> str:
    """The code of the one call in a turn."""
    _, [call] = tagged_calls(turn.text)
    assert call.error is None and call.name == "python"
    return call.arguments["code"]


def test_held_out_tasks_are_never_trained_on():
    held_out = SOURCE.held_out(500)
    questions = {task.question for task in held_out}
    assert len(questions) == 500
    for seed in range(3):
        assert not questions & {task.question for task in SOURCE.train(seed=seed, first=0, n=2000)}
    assert not {task.id for task in held_out} & {task.id for task in TRAIN}


def test_tasks_are_drawn_by_seed_and_number():
    assert SOURCE.train(0, 5, 10) == TRAIN[5:15]
    assert SOURCE.held_out(7) == SOURCE.held_out(20)[:7]
    assert Arithmetic().train(0, 0, 5) == TRAIN[:5]
    questions = [{task.question for task in SOURCE.train(seed, 0, 100)} for seed in range(3)]
    assert all(len(q) == 100 for q in questions) and len(set.union(*questions)) == 300


@pytest.mark.parametrize(("fewest", "most"), [(4, 12), (1, 1), (1, 12), (12, 12), (3, 5)])
def test_the_number_of_operations_and_every_result_keep_to_their_range(fewest, most):
    source, lengths = Arithmetic(operations_min=fewest, operations_max=most), set()
    for task in source.train(seed=1, first=0, n=300):
        value = task.info["start"]
        for word, operand in task.info["operations"]:
            value = calculate(value, WORDS[word], operand)
            assert 0 <= value <= LARGEST and 2 <= operand <= 9
        assert task.answer == str(value)
        lengths.add(len(task.info["operations"]))
    assert lengths == set(range(fewest, most + 1))


def test_the_question_tells_the_operations_in_order():
    for task in TRAIN[:100]:
        told = [
            f"{ordinal} {word} {operand}."
            for ordinal, (word, operand) in zip(ORDINALS, task.info["operations"], strict=False)
        ]
        assert task.question == "\n".join([f"Start with {task.info['start']}.", *told])


def test_the_outputs_in_demonstrations_are_what_the_tool_prints():
    turns = [turn for task in TRAIN[:8] for turn in SOURCE.demonstrate(task)[:-1]]
    assert len(turns) >= 50

    async def outputs() -> list[str]:
        session = Session([PythonTool(timeout=20.0)])
        try:
            return [o.text for o in await asyncio.gather(*(session.call("python", {"code": code(t)}) for t in turns))]
        finally:
            await session.close()

    assert [(text,) for text in asyncio.run(outputs())] == [turn.outputs for turn in turns]


def test_a_demonstration_goes_on_from_its_last_output_and_answers_with_it():
    for task in TRAIN[:200]:
        *turns, answer = SOURCE.demonstrate(task)
        assert len(turns) == len(task.info["operations"])
        value = str(task.info["start"])
        for turn, (_, operand) in zip(turns, task.info["operations"], strict=True):
            assert code(turn)[: len(value)] == value and code(turn)[len(value) + 1 :] == str(operand)
            [value] = turn.outputs
        assert (answer.text, answer.outputs) == (f"\\boxed{{{value}}}", ())


def test_demonstrations_take_a_wrong_operation_as_often_as_documented():
    said, taken = Counter(), Counter()
    for task in TRAIN:
        value = task.info["start"]
        for turn, (word, _) in zip(SOURCE.demonstrate(task), task.info["operations"], strict=False):
            sign = code(turn)[len(str(value))]
            said[word] += 1
            taken[word, sign] += 1
            value = turn.outputs[0]
    for word, right in WORDS.items():
        wrong, share = CONFUSION.get(word, ("?", 0.0))
        assert said[word] > 1000
        assert taken[word, wrong] / said[word] == pytest.approx(share, abs=4 * 0.5 / said[word] ** 0.5)
        assert taken[word, right] + taken[word, wrong] == said[word]


def test_at_two_words_of_eight_the_likeliest_demonstrated_operation_is_wrong():
    assert sum(share > 0.5 for _, share in CONFUSION.values()) == 2 and len(WORDS) == 8
    assert all(CONFUSION[word][0] != WORDS[word] for word in CONFUSION)


def test_demonstrations_are_the_same_every_time_and_right_where_no_word_confuses():
    for task in TRAIN[:100]:
        turns = SOURCE.demonstrate(task)
        assert turns == Arithmetic().demonstrate(task)
        success, reward = asyncio.run(SOURCE.judge(task, turns[-1].text, Session([])))
        assert reward == float(success)
        if not any(word in CONFUSION for word, _ in task.info["operations"]):
            assert success


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"operations_min": 7, "operations_max": 5}, "operations_min 7 exceeds operations_max 5"),
        ({"operations_min": 0}, "operations_min = 0: input should be greater than or equal to 1"),
        ({"operations_max": 13}, "operations_max = 13: input should be less than or equal to 12"),
    ],
)
def test_impossible_numbers_of_operations_are_refused(options, sentence):
    with pytest.raises(UserError, match=f"^tasks arithmetic: {sentence}.$"):
        build_tasks({"name": "arithmetic", **options})
