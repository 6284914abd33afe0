"""Several families at once."""

import asyncio

import pytest
from demonstrated import as_run

from firstfault.errors import UserError
from firstfault.tasks import Arithmetic, JsonlTasks, Lore, Mix, Programs
from firstfault.tasks.base import Turn
from firstfault.tools import Session
from firstfault.training.build import build_tasks
from firstfault.tree import Task

NAMES = ["arithmetic", "lore", "programs"]
MIX = build_tasks({"name": ",".join(NAMES), "families": {"lore": {"hops_max": 4}}})


def test_options_are_those_of_each_family():
    assert [type(family) for family in MIX.families.values()] == [Arithmetic, Lore, Programs]
    assert MIX.families["lore"].hops_max == 4 and MIX.families["programs"] == Programs()
    again = build_tasks({"name": ",".join(NAMES), **MIX.model_dump(mode="json")})
    assert again == MIX
    with pytest.raises(UserError, match="tasks lore: there is no setting 'hop_max'; did you mean 'hops_max'"):
        build_tasks({"name": "arithmetic,lore", "families": {"lore": {"hop_max": 4}}})
    with pytest.raises(UserError, match="there is no task family 'lor'; did you mean 'lore'"):
        build_tasks({"name": "arithmetic,lor"})


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"name": "arithmetic,arithmetic"}, "a family is named twice"),
        (
            {"name": "arithmetic,lore", "families": "lore"},
            "families = 'lore' is no table of tables",
        ),
        ({"name": "arithmetic,lore", "families": {"lore": "hops_max"}}, "is no table of tables"),
        ({"name": "arithmetic,lore", "families": {"arithmatic": {}}}, "'arithmatic' has options and is not among them"),
    ],
)
def test_what_is_wrong_with_a_mix_is_told(table, sentence):
    with pytest.raises(UserError, match=sentence):
        build_tasks(table)


def test_what_a_family_s_system_prompt_says_stands_before_its_questions(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "2", "family": ["mine"]}\n')
    own = build_tasks({"name": f"arithmetic,{path}"}).train(seed=0, first=1, n=1)[0]
    assert own.question == f"{JsonlTasks.system}\n\n1 + 1?" and own.info["family"] == str(path)


def test_the_python_tool_is_the_one_with_the_most_time(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    for names in (f"arithmetic,{path}", f"{path},arithmetic"):
        [tool] = build_tasks({"name": names}).tools()
        assert tool.timeout == 5.0


def test_families_take_turns():
    tasks = MIX.train(seed=3, first=1, n=5)
    assert [task.info["family"] for task in tasks] == ["lore", "programs", "arithmetic", "lore", "programs"]
    assert tasks[2].question == Arithmetic().train(3, 1, 1)[0].question
    assert MIX.train(seed=3, first=2, n=2) == tasks[1:3]
    held_out = MIX.held_out(7)
    assert [task.info["family"] for task in held_out] == [*NAMES, *NAMES, "arithmetic"]
    assert held_out[3].question == Arithmetic().held_out(2)[1].question


def test_each_task_is_demonstrated_and_judged_by_its_own_family():
    async def judged(task: Task, answer: str) -> bool:
        session = Session(MIX.tools())
        success, reward = await MIX.judge(task, answer, session)
        await session.close()
        assert reward == float(success)
        return success

    for task in MIX.train(seed=0, first=0, n=3):
        family = MIX.families[task.info["family"]]
        assert MIX.demonstrate(task) == family.demonstrate(task)
        right = task.info["family"] != "programs"  # there, an answer names a function that this session lacks
        assert asyncio.run(judged(task, f"\\boxed{{{task.answer}}}")) is right
        assert not asyncio.run(judged(task, "\\boxed{no}"))
        leaf = as_run(task, [Turn("\\boxed{no}")], success=False)
        assert MIX.first_wrong_step(task, leaf) == family.first_wrong_step(task, leaf) == 1


def test_tools_are_those_of_all_families_once():
    assert list(Session(MIX.tools()).functions) == ["python", "search"]


def test_lessons_are_those_of_each_family():
    first = MIX.lesson(0.0)
    assert isinstance(first, Mix)
    assert first.families["arithmetic"].operations_max == 4 and MIX.lesson(1.0) == MIX
