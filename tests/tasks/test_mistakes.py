"""What holds for every family whose demonstrations go wrong at known steps."""

import asyncio
from itertools import zip_longest

import pytest
from demonstrated import as_run, codes, follow

from firstfault.tasks import Arithmetic, Programs, Stateful, arithmetic, programs
from firstfault.tools import PythonTool, Session

FAMILIES = [Arithmetic, Stateful, Programs]
KINDS = ["silent", "dead_end", "recoverable"]
RARE = {"collect", "lose"}  # traps with a share of their kind's chance
NONE = dict.fromkeys(KINDS, 0.0)
ALL = dict.fromkeys(KINDS, 0.5)


def kinds_of(task):
    """The kind of trap that each operation of a task is."""
    traps = programs.TRAPS if "hidden" in task.info else arithmetic.TRAPS
    return [traps[operation[-2]] for operation in task.info["operations"]]


def faultless(source, task):
    return source.model_copy(update=NONE).demonstrate(task)


def first_difference(turns, others):
    return next((i for i, (a, b) in enumerate(zip_longest(turns, others), 1) if a != b), None)


def followed(source, tasks):
    """`follow` for the demonstrations of all tasks."""

    async def main():
        first = Session([PythonTool(timeout=20.0)])
        sessions = [first.fork() for _ in tasks]
        try:
            return await asyncio.gather(
                *(follow(source, t, source.demonstrate(t), s) for t, s in zip(tasks, sessions, strict=True))
            )
        finally:
            for session in [*sessions, first]:
                await session.close()

    return asyncio.run(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tools_answer_as_the_demonstrations_say(family):
    source = family(**ALL)
    tasks = source.train(seed=0, first=0, n=12)
    assert {kind for task in tasks for kind in kinds_of(task)} == {None, *KINDS}
    for task, (heard, _) in zip(tasks, followed(source, tasks), strict=True):
        assert heard == source.demonstrate(task)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_mistakes_demonstrations_succeed(family):
    source = family(**NONE)
    tasks = family(**ALL).train(seed=1, first=0, n=12)
    for task, (_, success) in zip(tasks, followed(source, tasks), strict=True):
        assert success
        assert source.first_wrong_step(task, as_run(task, source.demonstrate(task), success)) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_by_default_a_demonstration_in_ten_to_three_in_ten_succeeds(family):
    tasks = family().train(seed=2, first=0, n=100)
    assert 10 <= sum(success for _, success in followed(family(), tasks)) <= 30


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_knob_of_a_kind_sends_demonstrations_into_its_traps_only(family, kind):
    source = family(**{**NONE, kind: 1.0}, repaired=0.0)
    for task in source.train(seed=3, first=0, n=40):
        assert set(kinds_of(task)) <= {None, kind}
        traps = {operation[-2] for operation, k in zip(task.info["operations"], kinds_of(task), strict=True) if k}
        wrong = source.demonstrate(task) != faultless(source, task)
        assert wrong if traps - RARE else traps or not wrong
    again = source.model_copy(update={kind: 0.0})
    for task in source.train(seed=3, first=0, n=40):
        assert again.demonstrate(task) == faultless(source, task)


@pytest.mark.parametrize("family", FAMILIES)
def test_recoverable_mistakes_are_repaired_as_often_as_asked(family):
    for repaired in (0.0, 1.0):
        source = family(**{**NONE, "recoverable": 0.5}, repaired=repaired)
        tasks = [t for t in source.train(seed=4, first=0, n=200) if source.demonstrate(t) != faultless(source, t)][:30]
        successes = sum(success for _, success in followed(source, tasks))
        # what is left out may cancel: grow 5, shrink 5
        assert successes == 30 if repaired else successes <= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_dead_ends_lead_nowhere(family):
    source = family(**{**NONE, "dead_end": 0.5})
    for task in source.train(seed=5, first=0, n=60):
        turns = source.demonstrate(task)
        if turns != faultless(source, task):
            assert "NameError" in turns[-2].outputs[0] and turns[-1].text == "\\boxed{?}"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["early", "late"])
def test_traps_lie_where_they_are_asked_for(family, where):
    for task in family(**ALL, where=where).train(seed=6, first=0, n=60):
        kinds = kinds_of(task)
        size = len(kinds) // 3
        place = range(size) if where == "early" else range(len(kinds) - size, len(kinds))
        assert [step for step, kind in enumerate(kinds) if kind] == list(place)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_wrong_step_is_where_a_demonstration_first_goes_wrong(family):
    source = family(**ALL)
    steps = set()
    for task in source.train(seed=7, first=0, n=300):
        turns = source.demonstrate(task)
        step = first_difference(turns, faultless(source, task))
        assert source.first_wrong_step(task, as_run(task, turns, success=step is None)) == step
        steps.add(step)
    assert steps >= {None, 2, 3, 4}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_answer_after_right_calls_is_the_wrong_step(family):
    source = family()
    [task] = source.train(seed=0, first=0, n=1)
    turns = faultless(source, task)
    assert source.first_wrong_step(task, as_run(task, turns, success=False)) == len(turns)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_policy_is_told_all_that_a_demonstration_says(family):
    """Every line that a demonstration restates is in the question."""
    source = family(**ALL)
    for task in source.train(seed=8, first=0, n=20):
        turns = source.demonstrate(task)
        assert len(codes(turns)) == len(turns) - 1
        for turn in turns[:-1]:
            assert turn.text.partition("<tool_call>")[0].rstrip(".") in task.question
