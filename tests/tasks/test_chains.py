"""Families of chained operations: which tasks there are."""

import pytest

from firstfault.errors import UserError
from firstfault.tasks import Arithmetic, Programs, Stateful
from firstfault.training.build import build_tasks

FAMILIES = [Arithmetic, Stateful, Programs]


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_tasks_are_never_trained_on(family):
    held_out = family().held_out(200)
    questions = {task.question for task in held_out}
    assert len(questions) == 200
    for seed in range(3):
        assert not questions & {task.question for task in family().train(seed=seed, first=0, n=300)}
    assert not {task.id for task in held_out} & {task.id for task in family().train(0, 0, 300)}


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_are_drawn_by_seed_and_number(family):
    source = family()
    assert source.train(0, 5, 10) == family().train(0, 0, 20)[5:15]
    assert source.held_out(7) == source.held_out(20)[:7]
    questions = [{task.question for task in source.train(seed, 0, 100)} for seed in range(3)]
    assert all(len(q) == 100 for q in questions) and len(set.union(*questions)) == 300
    for task in source.train(0, 0, 20):
        assert source.demonstrate(task) == family().demonstrate(task)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("fewest", "most"), [(1, 1), (1, 12), (3, 5)])
def test_tasks_have_as_many_operations_as_asked_for(family, fewest, most):
    source = family(operations_min=fewest, operations_max=most)
    tasks = source.train(seed=1, first=0, n=100)
    assert {len(task.info["operations"]) for task in tasks} == set(range(fewest, most + 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_lessons_begin_with_short_tasks_of_the_same_kind(family):
    source = family(silent=0.3, where="late")
    assert source.lesson(0.5) == source
    early = source.lesson(0.0)
    assert (early.operations_min, early.operations_max) == (1, 4)
    assert (
        early.model_copy(update={"operations_min": source.operations_min, "operations_max": source.operations_max})
        == source
    )


@pytest.mark.parametrize("name", ["arithmetic", "stateful", "programs"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"operations_min": 7, "operations_max": 5}, "operations_min 7 exceeds operations_max 5"),
        ({"operations_min": 0}, "operations_min = 0: input should be greater than or equal to 1"),
        ({"operations_max": 13}, "operations_max = 13: input should be less than or equal to 12"),
        ({"silent": 1.5}, "silent = 1.5: input should be less than or equal to 1"),
        ({"where": "there"}, "where = 'there': input should be 'anywhere', 'early' or 'late'"),
    ],
)
def test_impossible_options_are_refused(name, options, sentence):
    with pytest.raises(UserError, match=f"^tasks {name}: {sentence}.$"):
        build_tasks({"name": name, **options})
