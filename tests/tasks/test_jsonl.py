"""Tasks of the user's own: what a file may hold, and what is said when it doesn't."""

import json
import sys

import pytest

from firstfault.errors import UserError
from firstfault.tasks import JsonlTasks
from firstfault.tree import Tree, load_trees, save_trees

GOOD = {"question": "1 + 1?", "answer": "2"}


@pytest.fixture
def source(tmp_path):
    """`source(lines)`: the tasks of a file with these lines, or with these bytes."""

    def make(lines: list | bytes, **options) -> JsonlTasks:
        path = tmp_path / "tasks.jsonl"
        text = (
            lines
            if isinstance(lines, bytes)
            else "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode()
        )
        path.write_bytes(text)
        return JsonlTasks(path=path, **options)

    return make


def numbered(n: int) -> list[dict]:
    return [{"question": f"What is {i}?", "answer": str(i)} for i in range(n)]


def test_a_line_is_a_task_and_further_fields_are_its_info(source):
    [task] = source([{**GOOD, "level": 5, "tags": ["é", None], "id": "x"}]).train(0, 0, 1)
    assert (task.question, task.answer) == ("1 + 1?", "2")
    assert task.info == {"level": 5, "tags": ["é", None], "id": "x"}
    assert task.id.endswith("tasks.jsonl, line 1")


def test_numbers_are_taken_as_text(source):
    tasks = source([{"question": 7, "answer": a} for a in (7, 0, -1.5, 10**30)]).train(0, 0, 4)
    assert {task.answer for task in tasks} == {"7", "0", "-1.5", str(10**30)}
    assert {task.question for task in tasks} == {"7"}


def test_blank_lines_are_passed_over_but_counted(source):
    tasks = source(["", json.dumps(GOOD), "   ", json.dumps(GOOD), "\t", ""]).train(0, 0, 2)
    assert sorted(task.id.rpartition(", ")[2] for task in tasks) == ["line 2", "line 4"]


LAYOUTS = {
    "Windows": b'{"question": "a", "answer": "b"}\r\n{"question": "c", "answer": "d"}\r\n',
    "with a byte order mark": b'\xef\xbb\xbf{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}',
    "no last line break": b'{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}',
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_files_as_editors_write_them(source, layout):
    assert {(task.question, task.answer) for task in source(layout).train(0, 0, 2)} == {("a", "b"), ("c", "d")}


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x7f", "日本語", "😀"])
def test_any_character_that_json_allows_may_stand_in_a_text(source, character):
    """Python takes some of them for line breaks; JSON doesn't."""
    line = json.dumps({"question": f"a{character}b", "answer": "c"}, ensure_ascii=False)
    assert [task.question for task in source([line]).train(0, 0, 1)] == [f"a{character}b"]


def test_half_a_surrogate_pair_in_a_question_can_be_saved_in_a_tree(source, tmp_path):
    [task] = source(['{"question": "\\ud800?", "answer": "b"}']).train(0, 0, 1)
    tree = Tree(task, prompt=[1])
    save_trees([tree], tmp_path / "trees.jsonl.gz")
    assert list(load_trees(tmp_path / "trees.jsonl.gz")) == [tree]


# Order


def test_every_pass_is_another_order_of_all_tasks(source):
    tasks = source(numbered(10))
    passes = [[task.answer for task in tasks.train(seed=0, first=10 * i, n=10)] for i in range(5)]
    assert all(sorted(order, key=int) == [str(i) for i in range(10)] for order in passes)
    assert len(set(map(tuple, passes))) == 5
    assert [task.answer for task in tasks.train(seed=1, first=0, n=10)] != passes[0]


def test_batches_are_slices_of_one_sequence_even_across_passes(source):
    tasks = source(numbered(7))
    endless = tasks.train(seed=3, first=0, n=40)
    assert [task for i in range(0, 40, 4) for task in tasks.train(seed=3, first=i, n=4)] == endless
    assert tasks.train(seed=3, first=5, n=9) == endless[5:14]


def test_held_out_tasks_are_the_first_of_their_own_file(source, tmp_path):
    other = tmp_path / "held_out.jsonl"
    other.write_text("\n".join(map(json.dumps, numbered(5))))
    tasks = source([GOOD], held_out_path=other)
    assert [task.answer for task in tasks.held_out(3)] == ["0", "1", "2"]
    assert len(tasks.held_out(100)) == 5
    assert source([GOOD]).held_out(3) == []


# Refusals

BAD = {
    "not JSON": ("{'question': 'a'}", "line 2 is not JSON .*; write one object per line"),
    "half a line": ('{"question": "a", ', "line 2 is not JSON"),
    "two objects": (json.dumps(GOOD) * 2, "line 2 is not JSON"),
    "nested too deeply": ("[" * 100_000, "line 2 is not JSON"),
    "too large a number": (
        '{"question": "a", "answer": ' + "9" * (sys.get_int_max_str_digits() + 1) + "}",
        "is not JSON",
    ),
    "a list": ("[1, 2]", "line 2 has no 'question'"),
    "a text": ('"question"', "line 2 has no 'question'"),
    "no question": ('{"answer": "2"}', "line 2 has no 'question'"),
    "no answer": ('{"question": "a"}', "line 2 has no 'answer'"),
    "an empty question": ('{"question": " ", "answer": "2"}', "line 2 has no 'question'"),
    "an empty answer": ('{"question": "a", "answer": ""}', "line 2 has no 'answer'"),
    "null": ('{"question": "a", "answer": null}', "line 2 has no 'answer'"),
    "a truth value": ('{"question": "a", "answer": true}', "line 2 has no 'answer'"),
    "a list of answers": ('{"question": "a", "answer": ["2"]}', "line 2 has no 'answer'"),
}


@pytest.mark.parametrize(("line", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_bad_line_is_named_in_one_sentence(source, line, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        source([GOOD, line]).train(0, 0, 1)
    assert "tasks.jsonl" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_a_file_without_tasks_is_refused(source, content):
    with pytest.raises(UserError, match="holds no tasks; write a line like"):
        source(content).train(0, 0, 1)


def test_files_that_cannot_be_read_are_refused(source, tmp_path):
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UserError, match="can't be read"):
            JsonlTasks(path=path).train(0, 0, 1)
        with pytest.raises(UserError, match="can't be read"):
            source([GOOD], held_out_path=path).held_out(1)
    with pytest.raises(UserError, match="UTF-8"):
        source('{"question": "é", "answer": "a"}'.encode("latin-1")).train(0, 0, 1)
