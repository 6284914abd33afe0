"""Data sets of the user's own, by the names of their columns; and what is said when they can't be had."""

import asyncio
import json

import pytest

from firstfault.errors import UserError
from firstfault.tasks import Dataset, JsonlTasks
from firstfault.tasks.rows import load_rows
from firstfault.tools import Session
from firstfault.training.build import build_tasks


def judged(source, answers: list[str]) -> list[tuple[bool, float]]:
    async def run():
        [task] = source.train(seed=0, first=0, n=1)
        try:
            return [await source.judge(task, answer, Session([])) for answer in answers]
        finally:
            await source.close()

    return asyncio.run(run())


@pytest.fixture
def path(tmp_path):
    """`path(row, ...)`: a file of these rows."""

    def write(*rows: dict):
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        return file

    return write


CASES = {
    "math": (
        {"problem": "Half?", "solution": "\\frac12"},
        {"question_column": "problem", "answer_column": "solution"},
        {r"\boxed{0.5}": (True, 1.0), r"\boxed{2}": (False, 0.0)},
    ),
    "a number": ({"question": "1 + 1?", "answer": 2}, {}, {r"\boxed{2.0}": (True, 1.0)}),
    "exact": (
        {"question": "Who?", "golden_answers": ["Barack Obama", "Obama"]},
        {"answer_column": "golden_answers", "judged_by": "exact"},
        {r"\boxed{obama}": (True, 1.0), r"\boxed{Barack}": (False, 0.0), "Obama": (False, 0.0)},
    ),
    "f1": (
        {"question": "Who?", "answer": "Barack Obama"},
        {"judged_by": "f1"},
        {r"\boxed{The Obama}": (False, 2 / 3), r"\boxed{Barack Obama}": (True, 1.0)},
    ),
    "choice by letter": (
        {"question": "Where?", "options": ["sky", "house"], "answer": "B"},
        {"choices_column": "options", "judged_by": "choice"},
        {r"\boxed{B}": (True, 1.0), r"\boxed{house}": (True, 1.0), r"\boxed{A}": (False, 0.0)},
    ),
    "one of several": (
        {"question": "2 + 2?", "answers": ["4", "four"]},
        {"answer_column": "answers"},
        {r"\boxed{\text{four}}": (True, 1.0), r"\boxed{8/2}": (True, 1.0), r"\boxed{5}": (False, 0.0)},
    ),
    "choice by label": (
        {"question": "Where?", "choices": {"text": ["sky", "house"], "label": ["1", "2"]}, "answerKey": "2"},
        {"answer_column": "answerKey", "choices_column": "choices", "judged_by": "choice"},
        {r"\boxed{B}": (True, 1.0), r"\boxed{house}": (True, 1.0), r"\boxed{A}": (False, 0.0)},
    ),
    "choice by number": (
        {"question": "Where?", "options": ["sky", "house"], "answer": 1},
        {"choices_column": "options", "judged_by": "choice"},
        {r"\boxed{B}": (True, 1.0), r"\boxed{A}": (False, 0.0)},
    ),
    "choice by text": (
        {"question": "How many?", "options": ["2", "1"], "answer": "1"},
        {"choices_column": "options", "judged_by": "choice"},
        {r"\boxed{B}": (True, 1.0), r"\boxed{1}": (True, 1.0), r"\boxed{A}": (False, 0.0)},
    ),
}


@pytest.mark.parametrize(("row", "options", "answers"), CASES.values(), ids=CASES)
def test_columns_are_named(path, row, options, answers):
    source = build_tasks({"name": "dataset", "path": str(path(row)), **options})
    assert isinstance(source, Dataset)
    for given, verdict in zip(judged(source, list(answers)), answers.values(), strict=True):
        assert given == pytest.approx(verdict)


def test_the_held_out_split_is_named_too(path, tmp_path):
    file = path({"question": "a?", "answer": "1"})
    assert Dataset(path=file).held_out(5) == []
    other = tmp_path / "other.csv"
    other.write_text("question,answer\nb?,2\nc?,3\n")
    assert sorted(task.answer for task in Dataset(path=file, held_out_path=other).held_out(5)) == ["2", "3"]
    folder = tmp_path / "folder"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps({"question": f"{split}?", "answer": "1"}))
    source = Dataset(path=folder, held_out_split="test")
    assert source.train(0, 0, 1)[0].question.startswith("train?")
    assert source.held_out(1)[0].question.startswith("test?")


BAD = {
    "no such column": ({"a": "1"}, {}, r"row 0 of Dataset .*KeyError: 'question'; the columns are a\)"),
    "no answer": ({"question": "a?", "answer": None}, {}, "row 0 of Dataset"),
    "an empty answer": ({"question": "a?", "answer": " "}, {}, "the question or the answer is empty"),
    "choices that are a text": (
        {"question": "a?", "choices": "A or B", "answer": "B"},
        {"choices_column": "choices", "judged_by": "choice"},
        "the choices are a str",
    ),
    "no choices": ({"question": "a?", "answer": "B"}, {"judged_by": "choice"}, "row 0 of Dataset"),
    "a letter too many": (
        {"question": "a?", "options": ["x"], "answer": "B"},
        {"choices_column": "options", "judged_by": "choice"},
        "row 0 of Dataset",
    ),
}


@pytest.mark.parametrize(("row", "options", "sentence"), BAD.values(), ids=BAD)
def test_rows_that_hold_something_else_are_refused(path, row, options, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        Dataset(path=path(row), **options).train(0, 0, 1)
    assert "\n" not in str(error.value)


def test_what_can_not_be_had_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.txt").write_text("a\n")
    (tmp_path / "no.jsonl").write_text("{")
    (tmp_path / "none.csv").write_text("question,answer\n")
    for name in ("missing.jsonl", "empty", "rows.txt", "no.jsonl", "none.csv"):
        with pytest.raises(UserError, match=rf"the split 'train' of .*{name} .*; |.*{name} has no rows") as error:
            load_rows(str(tmp_path / name), "train")
        assert "\n" not in str(error.value)


def test_a_split_that_is_not_there_is_named(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"question": "a", "answer": "1"}')
    with pytest.raises(UserError, match="the split 'dev' of"):
        load_rows(str(tmp_path), "dev")


@pytest.mark.parametrize(
    ("judged_by", "answers"),
    [
        ("same", {r"\boxed{1,000}": (True, 1.0), r"\boxed{\frac{2000}{2}}": (False, 0.0)}),
        ("math", {r"\boxed{\frac{2000}{2}}": (True, 1.0), r"\boxed{100}": (False, 0.0)}),
        ("exact", {r"\boxed{the 1000.}": (True, 1.0), r"\boxed{1000 or so}": (False, 0.0)}),
        ("f1", {r"\boxed{1000 or so}": (False, 0.5)}),
        ("bleu", {r"\boxed{1000 or}": (False, 0.5)}),
    ],
)
def test_a_jsonl_file_is_judged_in_the_same_ways(path, judged_by, answers):
    source = JsonlTasks(path=path({"question": "a?", "answer": "1000"}), judged_by=judged_by)
    assert judged(source, list(answers)) == [(right, pytest.approx(reward)) for right, reward in answers.values()]
