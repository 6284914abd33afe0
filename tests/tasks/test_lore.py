"""Questions over a world: what can be found in it, and how demonstrations go wrong."""

import asyncio
from collections import Counter

import pytest

from firstfault.agent.calls import tagged_calls
from firstfault.errors import UserError
from firstfault.tasks import Lore
from firstfault.tasks.base import Turn
from firstfault.tasks.world import OF_PEOPLE, OF_PLACES, SYNONYMS, TRAPS, make_world, nothing_known
from firstfault.tools import Session
from firstfault.training.build import build_tasks
from firstfault.tree import Call, Node, Tree

NONE = {"silent": 0.0, "dead_end": 0.0, "recoverable": 0.0}
ALL = {"silent": 0.5, "dead_end": 0.5, "recoverable": 0.5}
TRAIN = Lore().train(seed=0, first=0, n=1000)


def query(turn) -> str:
    _, [call] = tagged_calls(turn.text)
    assert call.error is None and call.name == "search"
    return call.arguments["query"]


def as_run(task, turns, success) -> Node:
    """The leaf of a run that goes as the turns say."""
    node = Tree(task, prompt=[0]).root
    for turn in turns:
        calls = [Call("search", {"query": query(turn)}, turn.outputs[0])] if turn.outputs else []
        node = Node(parent=node, index=0, rollout=0, text=turn.text, calls=calls)
    node.end, node.answer, node.success = "answer", turns[-1].text, success
    return node


def judge(source, task, answer):
    return asyncio.run(source.judge(task, answer, Session([])))


def succeeds(source, task) -> bool:
    return judge(source, task, source.demonstrate(task)[-1].text)[0]


WORLDS = [(0, 720, 2), (1, 720, 3), (2, 240, 2), (3, 240, 3), (4, 3000, 2)]


@pytest.mark.parametrize("settings", WORLDS)
def test_a_search_for_a_fact_finds_it_and_then_the_look_alike_s(settings):
    world, (_, facts, lookalikes) = make_world(*settings), settings
    assert 0.9 * facts <= len(world.facts) <= facts and len(world.known) == len(world.facts) // 6
    assert Counter(Counter(entity.split()[1] for entity in world.known).values()).keys() == {lookalikes}
    for entity, word in world.facts:
        first, second = world.search.search(f"the {word} of {entity}")
        assert first == world.passage(entity, word)
        subject, _, other = second.removeprefix(f"the {word} of ").partition(": ")
        assert subject != entity and subject.split()[1] == entity.split()[1] and other == world.facts[subject, word]
        assert other != world.facts[entity, word] or other in world.unrecorded


@pytest.mark.parametrize("settings", WORLDS)
def test_people_have_places_and_places_have_people(settings):
    world = make_world(*settings)
    people = {entity for entity, word in world.facts if word in OF_PEOPLE}
    for (entity, word), other in world.facts.items():
        assert (entity in people) == (word in OF_PEOPLE)
        assert other in world.unrecorded or (other in people) != (entity in people)


@pytest.mark.parametrize("settings", WORLDS)
def test_of_look_alikes_one_has_no_dead_end_at_its_word(settings):
    world, ends = make_world(*settings), Counter()
    for (entity, word), other in world.facts.items():
        assert other in world.known or TRAPS[word] == "dead_end"
        if TRAPS[word] == "dead_end":
            ends[entity.split()[1]] += other in world.unrecorded
    assert set(ends.values()) == {settings[2] - 1}
    assert not world.known.keys() & world.unrecorded


@pytest.mark.parametrize("settings", WORLDS)
def test_nothing_is_found_of_the_unrecorded_and_nothing_right_for_a_synonym(settings):
    world = make_world(*settings)
    for entity, word in world.facts:
        other = world.facts[entity, word]
        if other in world.unrecorded:
            for asked in OF_PLACES if word in OF_PEOPLE else OF_PEOPLE:  # it is a place where a person's word led to it
                assert world.search.search(f"the {asked} of {other}")[0] == nothing_known(other)
        if word in SYNONYMS:
            assert world.passage(entity, word) not in world.search.search(f"the {SYNONYMS[word]} of {entity}")


def test_worlds_are_drawn_by_their_seed():
    world = Lore(world_seed=3).world
    make_world.cache_clear()
    assert Lore(world_seed=3).world == world != Lore(world_seed=4).world


def test_held_out_questions_are_never_trained_on():
    for source in (Lore(), Lore(hops_min=1, hops_max=1)):  # of the latter there are few
        held_out = {task.question for task in source.held_out(500)}
        for seed in range(3):
            trained = source.train(seed, 0, 1000)
            assert not held_out & {task.question for task in trained}
            assert not held_out & {task.question for task in source.lesson(0.0).train(seed, 0, 1000)}
    assert len({task.question for task in Lore().held_out(500)}) > 480


def test_tasks_are_drawn_by_seed_and_number():
    assert Lore().train(0, 5, 10) == TRAIN[5:15]
    assert Lore().held_out(7) == Lore().held_out(20)[:7]
    assert len({task.question for seed in range(3) for task in Lore().train(seed, 0, 100)}) > 295


@pytest.mark.parametrize("options", [{}, ALL, {**ALL, "where": "early"}, {"dead_end": 1.0, "where": "late"}])
@pytest.mark.parametrize(("fewest", "most"), [(3, 6), (1, 1), (10, 10)])
def test_a_question_tells_a_chain_of_facts(fewest, most, options):
    source, hops = Lore(hops_min=fewest, hops_max=most, **options), set()
    for task in source.train(seed=1, first=0, n=100):
        chain, words = task.info["chain"], task.info["words"]
        assert [source.world.facts[hop] for hop in zip(chain, words, strict=False)] == chain[1:]
        assert task.answer == chain[-1] in source.world.known
        start, *lines = task.question.split("\n")
        assert start == f"Start with {chain[0]}."
        assert [line.partition(" the ")[2] for line in lines] == [f"{word}." for word in words]
        hops.add(len(words))
        for step, word in enumerate(words):
            kind = TRAPS[word]
            assert kind is None or getattr(source, kind) > 0
            assert source.where == "anywhere" or (kind is not None) == source.may_trap(step, len(words))
    assert hops == set(range(fewest, most + 1))


def test_there_are_more_than_a_hundred_answers():
    assert len({task.answer for task in TRAIN}) > 100


@pytest.mark.parametrize("options", [NONE, ALL, {**ALL, "repaired": 1.0}, {**ALL, "lookalikes": 3}])
def test_outputs_in_demonstrations_are_what_the_tool_says(options):
    source = Lore(**options)
    tasks = source.train(seed=2, first=0, n=30)
    turns = [turn for task in tasks for turn in source.demonstrate(task)[:-1]]

    async def outputs():
        session = Session(source.tools())
        return [(await session.call("search", {"query": query(turn)})).text for turn in turns]

    assert [(text,) for text in asyncio.run(outputs())] == [turn.outputs for turn in turns]
    for task in tasks:
        for turn in source.demonstrate(task)[:-1]:
            assert turn.text.partition("<tool_call>")[0] in task.question


def test_without_mistakes_demonstrations_succeed():
    source = Lore(**NONE)
    for task in Lore(**ALL).train(seed=3, first=0, n=200):
        turns = source.demonstrate(task)
        assert judge(source, task, turns[-1].text) == (True, 1.0)
        assert source.first_wrong_step(task, as_run(task, turns, True)) is None
        assert source.first_wrong_step(task, as_run(task, turns, False)) == len(turns)


def test_by_default_a_demonstration_in_four_succeeds():
    assert 0.2 < sum(succeeds(Lore(), task) for task in TRAIN) / len(TRAIN) < 0.3


@pytest.mark.parametrize("kind", ["silent", "dead_end", "recoverable"])
def test_a_kind_of_mistake_is_made_at_its_words_only(kind):
    source = Lore(**{**NONE, kind: 1.0}, repaired=0.0)
    fell = Counter()
    for task in source.train(seed=4, first=0, n=300):
        traps = any(TRAPS[word] == kind for word in task.info["words"])
        wrong = source.demonstrate(task) != Lore(**NONE).demonstrate(task)
        assert wrong == traps
        fell[wrong, succeeds(source, task)] += 1
    assert fell[True, False] > 100 and fell[False, True] > 5 and not fell[False, False]
    assert fell[True, True] <= 10  # chains may meet again by chance


def test_a_mistake_is_as_likely_as_its_knob_says():
    asked, fell = Counter(), Counter()
    for task in TRAIN:
        word, entity = task.info["words"][0], task.info["chain"][1]
        asked[word] += 1
        fell[word] += not query(Lore().demonstrate(task)[1]).endswith(f" of {entity}")
    for word, n in asked.items():
        assert n > 50
        if TRAPS[word] == "silent":
            assert fell[word] / n == pytest.approx(0.6, abs=4 * 0.5 / n**0.5)
        else:
            assert fell[word] == 0


def test_dead_ends_end_in_giving_up():
    source, ends = Lore(**{**NONE, "dead_end": 1.0}), 0
    for task in source.train(seed=5, first=0, n=100):
        *turns, answer = source.demonstrate(task)
        words = task.info["words"][:-1]  # after the last one there is nothing more to ask
        if any(TRAPS[word] == "dead_end" for word in words):
            ends += 1
            entity = query(turns[-1]).partition(" of ")[2]
            assert turns[-1] == turns[-2] and turns[-1].outputs[0].startswith(nothing_known(entity))
            assert answer.text == "\\boxed{?}"
    assert ends > 40


def test_recoverable_mistakes_are_repaired_as_often_as_asked():
    for repaired in (0.0, 0.3, 1.0):
        source = Lore(**{**NONE, "recoverable": 1.0}, repaired=repaired, hops_min=1, hops_max=1)
        tasks = [task for task in source.train(6, 0, 400) if TRAPS[task.info["words"][0]]]
        good = sum(succeeds(source, task) for task in tasks) / len(tasks)
        assert good == pytest.approx(repaired, abs=0.15 if repaired == 0.3 else 0.02)


def test_the_first_wrong_step_is_where_a_demonstration_departs():
    source, steps = Lore(**ALL), set()
    for task in source.train(seed=7, first=0, n=300):
        turns, right = source.demonstrate(task), Lore(**NONE).demonstrate(task)
        pairs = zip(turns, right, strict=False)
        expected = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), None)
        assert source.first_wrong_step(task, as_run(task, turns, succeeds(source, task))) == expected
        steps.add(expected)
    assert steps >= {None, 1, 2, 3, 4}


def test_to_search_once_more_is_not_wrong_but_to_search_in_vain_is():
    source, task = Lore(**NONE), TRAIN[0]
    first, second, *others = source.demonstrate(task)
    vain = Turn(first.text, ("No passage found.",))
    for turns, step in [
        ([first, first, second, second, first, *others], None),
        ([vain, first, second, *others], 1),
        ([first, second, vain, *others], 3),
        ([second, first, *others], 1),
        ([first, *others], 2),
    ]:
        assert source.first_wrong_step(task, as_run(task, turns, success=True)) == step


ANSWERS = [
    ("\\boxed{{{0}}}", (True, 1.0), 1.0),
    ("It is \\boxed{{ the {0}. }}", (True, 1.0), 1.0),
    ("\\boxed{{Tall {1}}}", (False, 0.0), 0.5),
    ("{0}", (False, 0.0), 0.0),
    ("\\boxed{{?}}", (False, 0.0), 0.0),
    ("\\boxed{{}}", (False, 0.0), 0.0),
    ("", (False, 0.0), 0.0),
]


@pytest.mark.parametrize(("answer", "verdict", "f1"), ANSWERS)
def test_the_answer_is_judged_by_its_name(answer, verdict, f1):
    task = TRAIN[0]
    answer = answer.format(task.answer, task.answer.split()[1])
    assert judge(Lore(), task, answer) == verdict
    assert judge(Lore(reward="f1"), task, answer) == (verdict[0], f1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hops_min": 7}, "hops_min 7 exceeds hops_max 6"),
        ({"hops_max": 11}, "hops_max = 11: input should be less than or equal to 10"),
        ({"facts": 100}, "facts = 100: input should be greater than or equal to 240"),
        ({"lookalikes": 1}, "lookalikes = 1: input should be greater than or equal to 2"),
        ({"reward": "rouge"}, "reward = 'rouge': input should be 'exact', 'f1' or 'bleu'"),
    ],
)
def test_impossible_settings_are_refused(options, sentence):
    with pytest.raises(UserError, match=f"^tasks lore: {sentence}.$"):
        build_tasks({"name": "lore", **options})
