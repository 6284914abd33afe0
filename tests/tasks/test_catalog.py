"""Every published set, from small files in exactly its published form."""

import asyncio
import base64
import json
import pickle
import zlib
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from firstfault.errors import UserError
from firstfault.tasks import TASKS, Mix
from firstfault.tasks.catalog import PUBLISHED
from firstfault.tasks.judges.encoded import decoded_tests
from firstfault.tools import Session

PARAGRAPHS = {"title": ["Arthur", "First"], "sentences": [["One.", "Two."], ["Three."]]}
FACTS = {"title": ["Arthur", "First"], "sent_id": [0, 0]}


def hotpot(question: str, answer: str) -> dict:
    return {
        "id": "5a7a06935542990198eaf050", "question": question, "answer": answer, "type": "comparison",
        "level": "medium", "supporting_facts": FACTS, "context": PARAGRAPHS,
    }  # fmt: skip


def encoded(tests: list[dict]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def contest(public: list[dict], private: list[dict], starter_code: str = "", metadata: dict | None = None) -> dict:
    return {
        "question_title": "Sum", "question_content": "Add the numbers.",
        "platform": "leetcode" if metadata else "atcoder", "question_id": "abc387_a", "contest_id": "abc387",
        "contest_date": "2025-01-04T00:00:00",
        "starter_code": starter_code, "difficulty": "easy", "public_test_cases": json.dumps(public),
        "private_test_cases": encoded(private), "metadata": json.dumps(metadata or {}),
    }  # fmt: skip


def stdin(given: str, output: str) -> dict:
    return {"input": given, "output": output, "testtype": "stdin"}


def functional(given: str, output: str) -> dict:
    return {"input": given, "output": output, "testtype": "functional"}


def verl(source: str, question: str, truth: str, ability: str = "MATH") -> dict:
    return {
        "data_source": source, "prompt": [{"content": question, "role": "user"}], "ability": ability,
        "reward_model": {"ground_truth": truth, "style": "rule"}, "extra_info": {"index": "0", "split": "train"},
    }  # fmt: skip


def box(answer: str) -> str:
    return f"So it is \\boxed{{{answer}}}."


def code(program: str) -> str:
    return f"This does it:\n```python\n{program}\n```\n"


READ = "import sys\nprint(sum(map(int, sys.stdin.read().split())))"
SOLUTION = "class Solution:\n    def add(self, a: List[int]) -> int:\n"
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'from typing import List\n\n\ndef total(numbers: List[float]) -> float:\n    """ Add.\n    """\n',
    "canonical_solution": "    return sum(numbers)\n",
    "test": "\n\nMETADATA = {\n    'author': 'jt'\n}\n\n\ndef check(candidate):\n"
    "    assert candidate([1.0, 2.0]) == 3.0\n    assert candidate([]) == 0\n",
    "entry_point": "total",
}
GPQA = {
    "Record ID": "rec0", "High-level domain": "Physics", "Subdomain": "Quantum Mechanics",
    "Question": "What does light travel at?", "Correct Answer": "At c\n", "Incorrect Answer 1": "2c",
    "Incorrect Answer 2": "c/2", "Incorrect Answer 3": "0",
}  # fmt: skip
TRIVIA = {
    "question": "Which American-born Sinclair won the Nobel Prize for Literature in 1930?", "question_id": "tc_1",
    "question_source": "http://www.triviacountry.com/",
    "entity_pages": {"doc_source": [], "filename": [], "title": [], "wiki_context": []},
    "search_results": {"description": [], "filename": [], "rank": [], "title": [], "url": [], "search_context": []},
    "answer": {
        "aliases": ["(Harry) Sinclair Lewis", "Harry Sinclair Lewis"], "normalized_aliases": ["harry sinclair lewis"],
        "matched_wiki_entity_name": "", "normalized_matched_wiki_entity_name": "",
        "normalized_value": "sinclair lewis", "type": "WikipediaEntity", "value": "Sinclair Lewis",
    },
}  # fmt: skip
MUSIQUE = {
    "id": "2hop__482757_12019", "question": "When was the institute that owned The Collegian founded?",
    "paragraphs": [{"idx": 0, "title": "Big", "paragraph_text": "One.", "is_supporting": False}],
    "question_decomposition": [
        {"id": 482757, "question": "The Collegian >> owned by", "answer": "HBU", "paragraph_support_idx": 5}
    ],
    "answer": "1960", "answer_aliases": ["in 1960"], "answerable": True,
}  # fmt: skip
POPQA = {
    "id": 4222362, "subj": "George Rankin", "prop": "occupation", "obj": "politician", "subj_id": 1850297,
    "prop_id": 22, "obj_id": 2834605, "s_aliases": '["George James Rankin"]', "o_aliases": "[]",
    "s_uri": "http://www.wikidata.org/entity/Q5543720", "o_uri": "http://www.wikidata.org/entity/Q82955",
    "s_wiki_title": "George Rankin", "o_wiki_title": "Politician", "s_pop": 142, "o_pop": 25692,
    "question": "What is George Rankin's occupation?", "possible_answers": '["politician", "political leader", "pol"]',
}  # fmt: skip
SFT = {
    "messages": [
        {"role": "system", "content": "You may use tools.", "tool_calls": None},
        {"role": "user", "content": "What is 6 * 7?", "tool_calls": None},
        {"role": "assistant", "content": "I calculate.", "tool_calls": [
            {"type": "function", "function": {"name": "code_interpreter", "arguments": '{"code": "print(6 * 7)"}'}}]},
        {"role": "tool", "content": "42\n", "tool_calls": None},
        {"role": "assistant", "content": "It is \\boxed{42}.", "tool_calls": None},
    ],
    "tools": [{"type": "function", "function": {"name": "code_interpreter", "description": "Runs code."}}],
}  # fmt: skip
LEETCODE = {
    "import_prefix": "from typing import *\n",
    "test_code": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    "entry_point": "Solution().add",
}

# of each set: a row, what the question says, the answer, right answers, wrong answers
ROWS = {
    "gsm8k": (
        {"question": "How many clips?", "answer": "48/2 = <<48/2=24>>24\nSo 1,000+24.\n#### 1,024"},
        "How many clips?", "1024", [box("1024"), box("1,024 clips"), box("\\$1024")], [box("24"), "1024", ""],
    ),
    "math": (
        {"problem": "What is $1/2$?", "level": "Level 5", "type": "Algebra",
         "solution": "It is $\\boxed{1}$ over 2, so $\\boxed{\\frac{1}{2}}$."},
        "What is $1/2$?", "\\frac{1}{2}", [box("0.5"), box("\\dfrac12")], [box("1"), box("\\frac{1}{2")],
    ),
    "math500": (
        {"problem": "Solve $x^2=1$.", "solution": "It is $\\boxed{\\{-1,1\\}}$.", "answer": "\\{-1,1\\}",
         "subject": "Algebra", "level": 3, "unique_id": "test/algebra/1.json"},
        "Solve $x^2=1$.", "\\{-1,1\\}", [box("\\{1,-1\\}")], [box("1")],
    ),
    "aime24": (
        {"ID": "2024-II-4", "Problem": "Find $m+n$.", "Solution": "It is 33.", "Answer": 33},
        "Find $m+n$.", "33", [box("33"), box("033")], [box("3")],
    ),
    "aime25": (
        {"problem": "Find $b$.", "answer": "070", "id": "0"}, "Find $b$.", "070", [box("70")], [box("7")],
    ),
    "gpqa-diamond": (
        GPQA, "(A) ", None, [box("At c"), box("\\text{at c.}")], [box("2c"), box("E"), box("A, B, C and D")],
    ),
    "commonsenseqa": (
        {"id": "075e", "question": "Where is a cat?", "question_concept": "cat",
         "choices": {"label": ["A", "B"], "text": ["sky", "house"]}, "answerKey": "B"},
        "Where is a cat?\n(A) sky\n(B) house", "B", [box("B"), box("(b)"), box("house")], [box("A"), box("sky")],
    ),
    "aqua": (
        {"question": "What is 7 * 3?", "options": ["A)21", "B)21.5", "C)22"], "rationale": "21", "correct": "A"},
        "(A) 21\n(B) 21.5\n(C) 22", "A", [box("A"), box("21")], [box("B"), box("22")],
    ),
    "hotpotqa": (
        hotpot("Which magazine was started first?", "Arthur's Magazine"),
        "Which magazine was started first?", "Arthur's Magazine", [box("arthurs magazine")], [box("First for Women")],
    ),
    "nq": (
        {"question": "who plays the doctor", "answer": ["Peter Capaldi", "Jodie Whittaker"]},
        "who plays the doctor", "Peter Capaldi", [box("Jodie Whittaker")], [box("the doctor")],
    ),
    "triviaqa": (TRIVIA, "Sinclair", "Sinclair Lewis", [box("Harry Sinclair Lewis")], [box("Upton Sinclair")]),
    "2wiki": (
        {**hotpot("Are both from one country?", "no"), "evidences": [["a", "country", "b"]]},
        "Are both from one country?", "no", [box("No.")], [box("yes")],
    ),
    "musique": (MUSIQUE, "founded?", "1960", [box("1960"), box("in 1960")], [box("1961")]),
    "bamboogle": (
        {"Question": "Who was president of the United States then?", "Answer": "Grover Cleveland"},
        "Who was president", "Grover Cleveland", [box("Grover Cleveland")], [box("Cleveland, Ohio")],
    ),
    "popqa": (POPQA, "occupation?", "politician", [box("a political leader")], [box("judge")]),
    "humaneval": (
        HUMAN_EVAL, HUMAN_EVAL["prompt"], "    return sum(numbers)\n",
        [code("def total(numbers: List[float]):\n    return sum(numbers)"), code("    return sum(numbers)")],
        [code("def total(numbers):\n    return 3.0"), code("import os\nos._exit(0)"), "I can't."],
    ),
    "livecodebench": (
        contest([stdin("1 2", "3")], [stdin("4\n5", "9\n")]), "reads from stdin", "",
        [code(READ)], [code("print(3)"), code(f"print('The sum is')\n{READ}"), box("3")],
    ),
    "open-agentrl-30k": (
        verl("math_dapo", "What is half of 7?", "3.5"), "half of 7?", "3.5", [box("7/2")], [box("3")],
    ),
    "open-agentrl-sft-3k": (SFT, "What is 6 * 7?", "42", [box("42")], [box("41")]),
}  # fmt: skip


def part(name: str, source) -> list:
    return source.held_out(5) if PUBLISHED[name].train_split is None else source.train(seed=0, first=0, n=1)


def saved(name: str, row: dict, folder: Path, form: str) -> Path:
    """A copy of a set with this row as its only one, in one of the forms that a copy may have."""
    rows = Dataset.from_list([row])
    split = PUBLISHED[name].train_split or PUBLISHED[name].test_split
    if form == "saved splits":
        DatasetDict({split: rows}).save_to_disk(folder / "copy")
        return folder / "copy"
    if form == "saved":
        rows.save_to_disk(folder / "copy")
        return folder / "copy"
    if form == "folder":
        (folder / "copy").mkdir()
        rows.to_parquet(folder / "copy" / f"{split}-00000-of-00001.parquet")
        return folder / "copy"
    path = folder / f"any name.{form}"
    {"parquet": rows.to_parquet, "jsonl": rows.to_json}[form](path)
    return path


def verdicts(source, task, answers: list[str]) -> list[tuple[bool, float]]:
    async def run():
        try:
            return [await source.judge(task, answer, Session([])) for answer in answers]
        finally:
            await source.close()

    return asyncio.run(run())


def test_a_row_of_every_set_is_tested():
    assert set(ROWS) == set(PUBLISHED) <= set(TASKS)


@pytest.mark.parametrize("form", ["saved splits", "saved", "folder", "parquet", "jsonl"])
@pytest.mark.parametrize("name", ROWS)
def test_a_copy_is_read_in_any_form(name, form, tmp_path):
    row, question, answer, _, _ = ROWS[name]
    source = TASKS[name](path=saved(name, row, tmp_path, form))
    [task] = part(name, source)
    assert question in task.question and task.question.endswith((".", "```."))
    assert answer is None or task.answer == answer


@pytest.mark.parametrize("name", ROWS)
def test_right_and_wrong_answers(name, tmp_path):
    row, _, _, right, wrong = ROWS[name]
    source = TASKS[name](path=saved(name, row, tmp_path, "parquet"))
    [task] = part(name, source)
    json.dumps(task.info)  # it is saved in trees
    assert verdicts(source, task, right + wrong) == [(True, 1.0)] * len(right) + [(False, 0.0)] * len(wrong)


MORE = {
    "a function": (
        "livecodebench",
        contest([functional("[1, 2]", "3")], [functional("[]", "0")], SOLUTION, {"func_name": "add"}),
        [code(f"{SOLUTION}        print(a)\n        return sum(a)")],
        [code(f"{SOLUTION}        return 3"), code("def add(a):\n    return str(sum(a))"), code(READ)],
    ),
    "a program for LeetCode": (
        "open-agentrl-30k",
        verl("leetcode_code", "Add them.", json.dumps(LEETCODE), "code"),
        [code(f"{SOLUTION}        return sum(a)")],
        [code(f"{SOLUTION}        return 3"), code(READ)],
    ),
    "a program for stdin": (
        "open-agentrl-30k",
        verl("skywork-code", "Add them.", json.dumps({"inputs": ["1 2\n", "3"], "outputs": ["3\n", "3\n"]}), "code"),
        [code(READ)],
        [code("print(4)")],
    ),
    "a program with tests as Python writes them": (
        "open-agentrl-30k",
        verl("skywork-code", "Add them.", "{'inputs': \"['1 2', '3']\", 'outputs': ['3', '3']}", "code"),
        [code(READ)],
        [code("print(4)")],
    ),
    "a function of many arguments": (
        "open-agentrl-30k",
        verl("skywork-code", "Add them.", json.dumps({"inputs": ["1\n2"], "outputs": ["3"], "fn_name": "f"}), "code"),
        [code("def f(a, b):\n    return a + b")],
        [code("def f(a, b):\n    return a - b"), code("def g(a, b):\n    return a + b")],
    ),
    "a demonstration without an answer": (
        "open-agentrl-sft-3k",
        {**SFT, "messages": [*SFT["messages"][:-1], {"role": "assistant", "content": "Done.", "tool_calls": None}]},
        [],
        [code(READ), box("42")],
    ),
}


@pytest.mark.parametrize(("name", "row", "right", "wrong"), MORE.values(), ids=MORE)
def test_sets_with_several_kinds_of_tasks(name, row, right, wrong, tmp_path):
    source = TASKS[name](path=saved(name, row, tmp_path, "parquet"))
    [task] = part(name, source)
    assert verdicts(source, task, right + wrong) == [(True, 1.0)] * len(right) + [(False, 0.0)] * len(wrong)


def test_f1_rewards_a_part_of_the_words_and_is_no_success(tmp_path):
    path = saved("hotpotqa", hotpot("Who?", "Barack Obama"), tmp_path, "parquet")
    source = TASKS["hotpotqa"](path=path, reward="f1")
    [task] = source.train(seed=0, first=0, n=1)
    assert verdicts(source, task, [box("Obama"), box("Barack Obama")]) == [(False, pytest.approx(2 / 3)), (True, 1.0)]


def test_the_choices_of_gpqa_are_shuffled_by_a_seed(tmp_path):
    path = saved("gpqa-diamond", GPQA, tmp_path, "parquet")
    tasks = [TASKS["gpqa-diamond"](path=path, choices_seed=seed).held_out(1)[0] for seed in range(20)]
    assert {task.answer for task in tasks} == set("ABCD")
    for seed, task in enumerate(tasks):
        assert task == TASKS["gpqa-diamond"](path=path, choices_seed=seed).held_out(1)[0]
        assert task.info["choices"][task.answer] == "At c"
        assert set(task.info["choices"].values()) == {"At c", "2c", "c/2", "0"}


def test_demonstrations_are_the_runs_of_the_set_with_our_tool(tmp_path):
    source = TASKS["open-agentrl-sft-3k"](path=saved("open-agentrl-sft-3k", SFT, tmp_path, "parquet"))
    turns = source.demonstrate(source.train(seed=0, first=0, n=1)[0])
    call = '<tool_call>{"name": "python", "arguments": {"code": "print(6 * 7)"}}</tool_call>'
    assert [turn.text for turn in turns] == [f"I calculate.{call}", "It is \\boxed{42}."]
    assert [turn.outputs for turn in turns] == [("42\n",), ()]


def test_tests_stay_out_of_the_task(tmp_path):
    secret = "a very secret output"
    path = saved("livecodebench", contest([stdin("", "1")], [stdin("", secret)]), tmp_path, "parquet")
    [task] = TASKS["livecodebench"](path=path).held_out(1)
    assert secret not in json.dumps([task.question, task.answer, task.info])


def test_a_copy_of_the_repository_of_livecodebench_has_its_newest_file_only(tmp_path):
    for name, number in (("test.jsonl", 1), ("test6.jsonl", 6)):
        row = contest([stdin("", "1")], []) | {"question_content": f"Version {number}."}
        (tmp_path / name).write_text(json.dumps(row))
    [task] = TASKS["livecodebench"](path=tmp_path).held_out(5)
    assert task.question.startswith("Version 6.")


# Which part is trained on


def splits(folder: Path, **names: int) -> Path:
    """A copy of GSM8K with splits of so many rows."""
    rows = {
        split: Dataset.from_list([{"question": f"{split} {i}?", "answer": f"#### {i}"} for i in range(n)])
        for split, n in names.items()
    }
    DatasetDict(rows).save_to_disk(folder / "splits")
    return folder / "splits"


def test_training_and_evaluation_have_a_split_each(tmp_path):
    source = TASKS["gsm8k"](path=splits(tmp_path, train=3, test=4))
    passes = [sorted(int(task.answer) for task in source.train(0, 3 * i, 3)) for i in range(2)]
    assert passes == [[0, 1, 2]] * 2
    assert all(task.question.startswith("train") for task in source.train(0, 0, 3))
    assert all(task.question.startswith("test") for task in source.held_out(9))
    assert sorted(int(task.answer) for task in source.held_out(9)) == [0, 1, 2, 3]
    assert source.held_out(2) == source.held_out(9)[:2]
    assert len({task.id for task in source.held_out(9) + source.train(0, 0, 3)}) == 7


def test_a_file_is_for_training_and_another_for_evaluation(tmp_path):
    train = saved("gsm8k", ROWS["gsm8k"][0], tmp_path, "jsonl")
    test = tmp_path / "test.jsonl"
    test.write_text('{"question": "Held out?", "answer": "#### 1"}\n')
    assert TASKS["gsm8k"](path=train).held_out(5) == []
    [task] = TASKS["gsm8k"](path=train, held_out_path=test).held_out(5)
    assert task.question.startswith("Held out?")


def test_of_a_mix_the_sets_for_evaluation_are_only_evaluated(tmp_path):
    gsm8k = TASKS["gsm8k"](path=splits(tmp_path, train=2, test=1))
    aime = TASKS["aime24"](path=saved("aime24", ROWS["aime24"][0], tmp_path, "parquet"))
    mix = Mix(families={"aime24": aime, "gsm8k": gsm8k})
    assert {task.info["family"] for task in mix.train(seed=0, first=0, n=4)} == {"gsm8k"}
    assert {task.info["family"] for task in mix.held_out(5)} == {"gsm8k", "aime24"}
    with pytest.raises(UserError, match="Aime24 is for evaluation only; train on another data set"):
        Mix(families={"aime24": aime}).train(seed=0, first=0, n=1)


# Refusals


def test_a_set_in_another_form_is_refused_with_its_columns(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"prompt": "1 + 1?", "target": "2"}\n')
    with pytest.raises(UserError, match=r"row 0 of Gsm8k can't be read .*the columns are prompt, target"):
        TASKS["gsm8k"](path=path).train(0, 0, 1)


def test_tests_in_another_form_are_refused(tmp_path):
    row = contest([stdin("", "1")], []) | {"private_test_cases": "no base64!"}
    source = TASKS["livecodebench"](path=saved("livecodebench", row, tmp_path, "parquet"))
    [task] = source.held_out(1)
    with pytest.raises(UserError, match=r"row 0 of LiveCodeBench can't be read .*no tests of LiveCodeBench"):
        verdicts(source, task, [code(READ)])


PICKLES = {
    "a function call": pickle.dumps(print),
    "an object": pickle.dumps(Path("x")),
    "a list": pickle.dumps(["x"]),
    "words": pickle.dumps("no JSON"),
    "nothing": b"",
    "half": pickle.dumps(json.dumps([1] * 9))[:-3],
}


class Call:
    """What a hostile pickle does: it names a function to be called when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("firstfault-was-here"),))


@pytest.mark.parametrize("content", [*PICKLES.values(), pickle.dumps(Call())], ids=[*PICKLES, "a hostile one"])
def test_nothing_in_an_encoded_test_is_ever_called(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        decoded_tests(base64.b64encode(zlib.compress(content)).decode())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "no base64!", "bm8gemxpYg==", "[1, 2"])
def test_what_is_no_encoded_test_is_refused(text):
    with pytest.raises(ValueError):
        decoded_tests(text)
