"""What is kept of each run, what it votes for, and files that go on."""

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from firstfault.errors import UserError
from firstfault.evaluation.records import Record, RecordsFile, record
from firstfault.evaluation.rows import read_rows
from firstfault.tasks.base import same_answer
from firstfault.tasks.votes import ballot
from firstfault.tree import Call, Task, Tree

SETTINGS = {"model": "m", "samples": 1}


def run(number: int, sample: int | None, **changes) -> Record:
    fields = {"task": f"t{number}", "family": "f", "difficulty": "4", "success": True, "reward": 1.0, "answer": "ü 7",
              "end": "answer", "steps": 2, "calls": 1, "failed_calls": 0, "tokens": 9}  # fmt: skip
    return Record(number=number, sample=sample, **fields | changes)


def pair(number: int) -> list[Record]:
    return [run(number, 0), run(number, None)]


def test_a_record_counts_what_the_run_did():
    tree = Tree(Task("q", "7"), prompt=[1])
    calls = [Call("f", {}, "1"), Call("f", {}, "Error", failed="raised")]
    step = tree.add(tree.root, rollout=0, action_tokens=[2, 3], calls=calls)
    leaf = tree.add(step, rollout=0, end="answer", answer="It is \\boxed{7}.", success=True, reward=0.5)
    made = record(leaf, 5, number=3, task="t", family="f", difficulty=None, sample=1)
    assert (made.steps, made.calls, made.failed_calls, made.tokens) == (2, 2, 1, 5)
    assert (made.answer, made.end, made.success, made.reward) == ("7", "answer", True, 0.5)


def test_a_ballot_joins_just_the_answers_that_are_the_same():
    numbers = [
        "7",
        "7.0",
        "7.",
        " 7 ",
        "1,000",
        "1000",
        "1e3",
        "12_3",
        "123",
        "1e99999999",
        "0.1" + "0" * 40 + "1",
        "0.1",
    ]
    answers = [*numbers, "a  b", "A b", "nan", "NaN", "inf", "infinity"]
    joined = ballot(answers)
    for i, j in itertools.combinations(range(len(answers)), 2):
        assert (joined[i] == joined[j]) == same_answer(answers[i], answers[j]), (answers[i], answers[j])


def test_what_was_added_is_read_again(tmp_path):
    path = tmp_path / "new" / "records.jsonl"
    kept = RecordsFile(path, SETTINGS, runs=2)
    kept.add(pair(0))
    kept.add(pair(2))
    again = RecordsFile(path, SETTINGS, runs=2)
    assert again.rows == pair(0) + pair(2) and again.finished == {0, 2}
    assert read_rows(path, Record, "--records") == again.rows


@pytest.mark.parametrize("lost", [1, 20, -1], ids=["the line break", "half a line", "half a character"])
def test_a_task_that_was_cut_short_is_dropped_and_run_again(tmp_path, lost):
    path = tmp_path / "records.jsonl"
    kept = RecordsFile(path, SETTINGS, runs=2)
    kept.add(pair(0))
    whole = path.read_bytes()
    kept.add(pair(1))
    text = path.read_bytes()
    path.write_bytes(text[: text.rindex("ü".encode()) + 1] if lost < 0 else text[:-lost])
    again = RecordsFile(path, SETTINGS, runs=2)
    assert again.finished == {0} and path.read_bytes() == whole
    again.add(pair(1))
    assert path.read_bytes() == text


def test_a_task_with_a_part_of_its_runs_is_dropped(tmp_path):
    path = tmp_path / "records.jsonl"
    kept = RecordsFile(path, SETTINGS, runs=2)
    kept.add(pair(0))
    kept.add([run(1, 0)])
    assert RecordsFile(path, SETTINGS, runs=2).finished == {0}


@pytest.mark.parametrize("other", [{"samples": 2}, {"model": "n"}, {"more": 1}])
def test_other_settings_are_refused_and_nothing_is_lost(tmp_path, other):
    path = tmp_path / "records.jsonl"
    RecordsFile(path, SETTINGS, runs=2).add(pair(0))
    before = path.read_bytes()
    [name] = other
    with pytest.raises(UserError, match=rf"was made with {name} = .*, not {name} = .*another path with --records"):
        RecordsFile(path, SETTINGS | other, runs=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("text", "said"), [
    ("notes", "line 1 of .* holds no settings"),
    ('{"a": 1}\n', "line 1 of .* holds no settings"),
    ("[1]\n", "line 1 of .* holds no settings"),
    ('{"settings": [1]}\n', "line 1 of .* holds no settings"),
    ('{"settings": {"model": "m", "samples": 1}}\n{}\n', "line 2 of .* holds no record"),
    (json.dumps({"settings": SETTINGS}) + "\n" + json.dumps(asdict(run(0, 0, reward="high"))) + "\n",
     "line 2 of .* holds no record"),
    (json.dumps({"settings": SETTINGS}) + "\n" + json.dumps({**asdict(run(0, 0)), "more": 1}) + "\n",
     "line 2 of .* holds no record"),
])  # fmt: skip
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, text, said):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(UserError, match=f"{said}; mend it, or give another path with --records"):
        RecordsFile(path, SETTINGS, runs=2)
    assert path.read_text() == text


def test_settings_that_nothing_came_of_can_be_mended(tmp_path):
    path = tmp_path / "records.jsonl"
    RecordsFile(path, SETTINGS | {"model": "mistyped"}, runs=2)
    RecordsFile(path, SETTINGS, runs=2).add(pair(0))
    assert RecordsFile(path, SETTINGS, runs=2).finished == {0}


def test_an_empty_file_is_a_beginning(tmp_path):
    path = tmp_path / "records.jsonl"
    path.touch()
    assert RecordsFile(path, SETTINGS, runs=2).rows == []
    assert json.loads(path.read_text()) == {"settings": SETTINGS}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_sentence(tmp_path):
    kept = RecordsFile(tmp_path / "records.jsonl", SETTINGS, runs=2)
    kept.path = Path("/dev/full")
    with pytest.raises(UserError, match=r"can't be written .*give the command again"):
        kept.add(pair(0))
