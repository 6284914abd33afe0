"""Figures from records with known answers."""

import json

import pytest

from firstfault.evaluation.records import Record
from firstfault.evaluation.show import tables
from firstfault.evaluation.summary import FIGURES, figures, ranges, summarize
from firstfault.intervals import mean_interval, ratio_interval


def task(number: int, outcomes: str, *, calls: int = 2, tokens: int | None = 10, greedy: str = "x", **of_task) -> list:
    """A run a letter: R is right; others are wrong answers of their own, and - is none. The last is the greedy one."""
    about = {"task": "t", "family": "f", "difficulty": None} | of_task
    return [
        Record(number=number, sample=i if i < len(outcomes) else None, success=letter == "R",
               reward=float(letter == "R"), answer=None if letter == "-" else letter, end="answer", steps=calls + 1,
               calls=calls, failed_calls=calls // 2, tokens=tokens, **about)
        for i, letter in enumerate(outcomes + greedy)
    ]  # fmt: skip


def test_figures_of_two_tasks_by_hand():
    found = figures([task(0, "RRab", greedy="R"), task(1, "a-aR", calls=4, tokens=30)], ks=[1, 2, 4])
    value = {name: figure.value for name, figure in found.items()}
    assert value["success"] == value["pass@1"] == value["major@1"] == pytest.approx(3 / 8)
    assert value["greedy"] == 0.5
    assert value["pass@2"] == pytest.approx((5 / 6 + 3 / 6) / 2)  # pairs without a success: ab; aa and twice a-
    assert value["pass@4"] == 1
    # pairs of the first: RR wins, Ra and Rb (two each) every other time; of the second: -R wins, aR (two) half
    assert value["major@2"] == pytest.approx(((1 + 4 / 2) / 6 + (1 + 2 / 2) / 6) / 2)
    assert value["major@4"] == 0.5  # R leads the first, a the second
    assert (value["steps"], value["calls"], value["failed_calls"], value["tokens"]) == (4, 3, 1.5, 20)
    assert value["successes_per_call"] == pytest.approx(3 / 24) and value["calls_per_success"] == pytest.approx(8)


def test_every_figure_is_explained_and_none_besides():
    found = figures([task(0, "Ra")], ks=[2])
    assert [name.replace("@2", "@K") for name in found] == list(FIGURES)


def test_intervals_are_over_tasks_not_runs():
    shares = [1.0, 0.5, 0.0, 0.0, 0.5]
    tasks = [task(i, "R" * int(4 * share) + "a" * int(4 - 4 * share), calls=i + 1) for i, share in enumerate(shares)]
    found = figures(tasks, ks=[1], seed=3)
    assert found["success"] == mean_interval(shares, seed=3)
    successes, calls = [4 * share for share in shares], [4 * (i + 1) for i in range(5)]
    assert found["successes_per_call"] == ratio_interval(successes, calls, seed=3)


def test_what_is_not_known_is_none():
    found = figures([task(0, "aa", calls=0), task(1, "aa", calls=0, tokens=None)], ks=[1])
    assert found["tokens"].value is None
    assert found["calls_per_success"] == found["successes_per_call"] == (None, None, None)
    found = figures([task(0, "aa"), task(1, "aa")], ks=[1])
    assert found["calls_per_success"] == (None, None, None) and found["successes_per_call"].value == 0


def test_groups_are_of_families_and_their_difficulties():
    tasks = [
        *task(0, "RR", family="short", difficulty="9"),
        *task(1, "aa", family="short", difficulty="10"),
        *task(2, "Ra", family="long"),
    ]
    found = summarize(tasks, ks=[1])
    assert [(g.family, g.tasks, g.figures["success"].value) for g in found.families] == [
        ("short", 2, 0.5),
        ("long", 1, 0.5),
    ]
    assert [(g.family, g.difficulty, g.figures["success"].value) for g in found.difficulties] == [
        ("short", "9", 1.0), ("short", "10", 0.0),
    ]  # fmt: skip
    assert summarize(tasks[:3], ks=[1]).families == []


def test_the_order_of_records_does_not_matter():
    records = [*task(0, "RRab"), *task(1, "a-aR"), *task(2, "RRRR")]
    assert summarize(reversed(records), [1, 4]) == summarize(records, [1, 4])


def test_too_few_runs_for_k_are_a_bug():
    with pytest.raises(ValueError):
        summarize(task(0, "Ra"), ks=[4])


def test_many_numbers_are_put_into_ranges_of_about_as_many_tasks():
    difficulties = [*["1"] * 30, *["2"] * 2, *["3"] * 2, "4", "5", "8", "13", *["21"] * 8]
    assert list(dict.fromkeys(ranges(difficulties).values())) == ["1", "2 to 4", "5 to 21"]
    assert ranges(["hard", *map(str, range(9))])["hard"] == "hard"  # no range has a word in it


def test_tables_and_json_say_what_is_unknown(capsys):
    from rich.console import Console

    found = summarize([*task(0, "Ra", tokens=None, difficulty="4"), *task(1, "aa", difficulty="5")], ks=[1, 2])
    for table in tables("m on t", found, [1, 2], "2 sampled runs of each"):
        Console(width=100).print(table)
    shown = " ".join(capsys.readouterr().out.split())
    assert "tokens written per run │ - │ unknown" in shown and "Major@2" in shown and "2 tasks, 2 sampled runs" in shown
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["overall"]["figures"]["tokens"]["value"] is None
