"""From names and tables of settings to objects: what is found, and what is said when it isn't."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from firstfault.config import AgentConfig, RunConfig
from firstfault.engines.base import Sampling
from firstfault.errors import UserError
from firstfault.methods import ELPO, GRPO, METHODS
from firstfault.tasks import TASKS, Arithmetic, JsonlTasks, Lore
from firstfault.tools import FunctionTool, PythonTool
from firstfault.training.build import build_agent, build_method, build_tasks, method_class, run_tools, tasks_class
from firstfault.tree import Task

OWN = '''
from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from firstfault.credit import credit_run
from firstfault.methods import Method
from firstfault.tasks import TaskSource
from firstfault.tree import Task, Tree


class Praise(Method):
    """Pushes up what succeeded."""

    paper = "none"
    strength: float = Field(1.0, gt=0)
    helper: Helper | None = None

    def credit(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            for leaf in tree.leaves:
                credit_run(leaf, self.strength * leaf.reward, aggregation=self.aggregation, clip_low=0.2, clip_high=0.2)


class Helper(Method):
    pass


class Sums(TaskSource):
    size: int = Field(3, ge=1)

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        return [Task(f"{i} + {self.size}", str(i + self.size)) for i in range(first, first + n)]


number = 5
'''


@pytest.fixture
def own(tmp_path):
    """`own(text, name)`: the path of a file of the user's."""

    def write(text: str = OWN, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def refused(build, table) -> str:
    """The sentence with which a table is refused."""
    with pytest.raises(UserError) as error:
        build(table)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence[-1] in ".?"
    return sentence


# Ours


def test_ours_are_found_by_name():
    assert {name: method_class(name) for name in METHODS} == METHODS
    assert {name: tasks_class(name) for name in TASKS} == TASKS
    assert build_method({"name": "elpo", "beta": 2}) == ELPO(beta=2.0)
    assert build_method({"name": "grpo"}) == GRPO()
    assert build_tasks({"name": "arithmetic", "operations_max": 6}) == Arithmetic(operations_max=6)


def test_a_jsonl_is_named_by_its_path():
    assert build_tasks({"name": "some/tasks.jsonl"}) == JsonlTasks(path=Path("some/tasks.jsonl"))
    both = build_tasks({"name": "a.jsonl", "held_out_path": "b.jsonl"})
    assert (both.path, both.held_out_path) == (Path("a.jsonl"), Path("b.jsonl"))
    assert build_tasks({"name": "a.jsonl", "path": "a.jsonl"}).path == Path("a.jsonl")
    assert refused(build_tasks, {"name": "a.jsonl", "path": "b.jsonl"}) == (
        "tasks a.jsonl: path = 'b.jsonl' is another file; leave it out."
    )


CHOICES = {
    build_method: f"choose one of {', '.join(METHODS)}, or file.py:ClassName.",
    build_tasks: f"choose one of {', '.join(TASKS)}, or a .jsonl file, or file.py:ClassName.",
}


@pytest.mark.parametrize(
    ("build", "name", "sentence"),
    [
        (build_method, "elpoo", "there is no method 'elpoo'; did you mean 'elpo'?"),
        (build_method, "ELPO", f"there is no method 'ELPO'; {CHOICES[build_method]}"),
        (build_method, "", f"there is no method ''; {CHOICES[build_method]}"),
        (build_tasks, "aritmetic", "there is no task family 'aritmetic'; did you mean 'arithmetic'?"),
        (build_tasks, "x", f"there is no task family 'x'; {CHOICES[build_tasks]}"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(build, name, sentence):
    assert refused(build, {"name": name}) == sentence


OPTIONS = [
    ({"rollouts": 0}, "rollouts = 0: input should be greater than or equal to 1."),
    ({"rollouts": 1.5}, "rollouts = 1.5: input should be a valid integer, got a number with a fractional part."),
    ({"rollouts": "many"}, "rollouts = 'many': input should be a valid integer, unable to parse string as an integer."),
    ({"lambda_tree": 1.1}, "lambda_tree = 1.1: input should be less than or equal to 1."),
    ({"clip_low": 1}, "clip_low = 1: input should be less than 1."),
    ({"beta": float("nan")}, "beta = nan: input should be a finite number."),
    (
        {"search": "binary"},
        "search = 'binary': input should be 'printed', 'verified', 'filled', 'posterior' or 'random'.",
    ),
    ({"tries_min": 4}, "tries_min = 4 exceeds tries_max = 3."),
    ({"rolouts": 8}, "there is no setting 'rolouts'; did you mean 'rollouts'?"),
    ({"x": 8}, f"there is no setting 'x'; there are {', '.join(ELPO.model_fields)}."),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sentence"), OPTIONS)
def test_bad_options_are_refused_in_one_sentence(options, sentence):
    assert refused(build_method, {"name": "elpo", **options}) == f"method elpo: {sentence}"


def test_the_options_of_another_method_are_refused():
    sentence = refused(build_method, {"name": "grpo", "lambda_tree": 0.5})
    assert sentence.startswith("method grpo: there is no setting 'lambda_tree'; there are rollouts, aggregation,")


# The user's own


def test_a_users_own_method_and_tasks_are_found_in_one_file(own):
    path = own()
    method = build_method({"name": f"{path}:Praise", "strength": 2, "rollouts": 4})
    assert (method.strength, method.rollouts, type(method).__name__) == (2.0, 4, "Praise")
    tasks = build_tasks({"name": f"{path}:Sums", "size": 1})
    assert [task.answer for task in tasks.train(0, 0, 3)] == ["1", "2", "3"]


def test_a_file_is_found_from_where_the_user_is(own, monkeypatch, tmp_path):
    own()
    monkeypatch.chdir(tmp_path)
    assert build_method({"name": "mine.py:Praise"}).strength == 1.0
    assert build_method({"name": "./mine.py:Praise"}).strength == 1.0


def test_a_file_that_was_changed_is_read_anew(own):
    path = own("from firstfault.methods import GRPO\nclass Mine(GRPO):\n    a: int = 1\n")
    assert build_method({"name": f"{path}:Mine"}).a == 1
    own("from firstfault.methods import GRPO\nclass Mine(GRPO):\n    answer: int = 42\n")
    assert build_method({"name": f"{path}:Mine"}).answer == 42


def test_a_file_may_have_the_name_of_a_module(own):
    before = sys.modules["random"]
    assert build_method({"name": f"{own(name='random.py')}:Praise"}).strength == 1.0
    assert sys.modules["random"] is before is random


def test_options_of_a_users_own_are_checked_too(own):
    path = own()
    assert refused(build_method, {"name": f"{path}:Praise", "strength": 0}).endswith(
        "mine.py:Praise: strength = 0: input should be greater than 0."
    )
    assert refused(build_tasks, {"name": f"{path}:Sums", "sise": 1}).endswith("did you mean 'size'?")


@pytest.mark.parametrize(
    ("build", "attribute", "base"),
    [
        (build_method, "Missing", "Method"),
        (build_method, "Sums", "Method"),
        (build_method, "number", "Method"),
        (build_method, "", "Method"),
        (build_tasks, "Praise", "TaskSource"),
    ],
)
def test_what_is_not_of_the_right_kind_is_refused(own, build, attribute, base):
    path = own()
    assert refused(build, {"name": f"{path}:{attribute}"}) == (
        f"{path}:{attribute}: {path} has no class {attribute!r} derived from {base}."
    )


@pytest.mark.parametrize("path", ["missing.py", "folder.py", "mine.txt", "mine", "", "folder"])
def test_what_is_not_a_python_file_is_refused(own, monkeypatch, tmp_path, path):
    own(name="mine.txt")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for build in (build_method, build_tasks):
        sentence = refused(build, {"name": f"{path}:Mine"})
        assert sentence == f"{path}:Mine: there is no Python file {path!r}; write path/to/file.py:ClassName."


BROKEN = {
    "an import that isn't there": ("import os\nimport nowhere", "line 2 of {}",
                                   "ModuleNotFoundError: No module named 'nowhere'."),
    "a mistake": ("x = 1\n\nx / 0\n", "line 3 of {}", "ZeroDivisionError: division by zero"),
    "a mistake in a function": ("def f():\n    return a\n\nf()", "line 2 of {}", "NameError: name 'a' is not defined"),
    "a mistake further down": ("import json\njson.loads('{')", "line 2 of {}", "JSONDecodeError: Expecting"),
    "no Python": ("class Mine(:\n", "the import of {}", "SyntaxError: invalid syntax (mine.py, line 1)"),
    "a message of many lines": ("raise ValueError('a\\nb')", "line 1 of {}", "ValueError: a b"),
    "an end of the program": ("import sys\nsys.exit('bye')", "line 2 of {}", "SystemExit: bye"),
    "an unknown annotation": (
        "from firstfault.methods import GRPO\nclass Mine(GRPO):\n    a: Other\n",
        "line 3 of {}",
        "NameError: name 'Other' is not defined.",
    ),
    "a refusal": ("from firstfault.errors import UserError\nraise UserError('no.')", "line 2 of {}", "UserError: no."),
}  # fmt: skip


@pytest.mark.parametrize(("text", "place", "what"), BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_fails_says_where_and_why(own, text, place, what):
    path = own(text)
    before = dict(sys.modules)
    sentence = refused(build_method, {"name": f"{path}:Mine"})
    assert sentence.startswith(f"{path}:Mine: {place.format(path)} fails with {what}")
    assert path not in sys.modules and sys.modules.items() >= before.items()
    with pytest.raises(UserError) as error:
        build_method({"name": f"{path}:Mine"})
    assert error.value.__cause__ is not None  # the whole story, for those who look


def test_an_interruption_is_not_taken_for_a_mistake(own):
    with pytest.raises(KeyboardInterrupt):
        build_method({"name": f"{own('raise KeyboardInterrupt')}:Mine"})


# The agent


def test_an_agent_has_the_tools_of_its_tasks_and_the_settings_of_the_run(make_tokenizer):
    tokenizer = make_tokenizer("qwen", "qwen2_5")
    config = AgentConfig(temperature=0.7, top_p=0.9, max_new_tokens=20, max_steps=5, max_context=300, stop=["END"])
    source = Arithmetic()
    agent = build_agent(config, None, tokenizer, source, source.tools())
    stop_tokens = frozenset(tokenizer.convert_tokens_to_ids(["<|im_end|>"]))
    assert agent.sampling == Sampling(0.7, 0.9, 20, stop_tokens, ("END",))
    assert (agent.max_steps, agent.max_context) == (5, 300)
    assert list(agent.session.functions) == ["python"]
    prompt = tokenizer.decode(agent.chat.prompt("How much?"))
    assert '"name": "python"' in prompt and "How much?" in prompt
    assert asyncio.run(agent.judge(Task("q", "268"), "\\boxed{268}", agent.session)) == (True, 1.0)


def test_the_system_prompt_is_that_of_the_tasks(make_tokenizer, tmp_path):
    source = JsonlTasks(path=tmp_path / "tasks.jsonl")
    tokenizer = make_tokenizer("qwen", "qwen2_5")
    agent = build_agent(AgentConfig(), None, tokenizer, source, source.tools())
    assert source.system in tokenizer.decode(agent.chat.prompt("Hi"))


def test_a_corpus_to_search_is_a_tool(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTFAULT_CACHE", str(tmp_path / "cache"))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "Tarn has a mill."}\n{"text": "Kibu has a port."}\n')
    _, tool = run_tools(RunConfig(search=str(corpus)), Arithmetic())
    assert asyncio.run(tool.call("search", {"query": "port"})) == "Kibu has a port."
    with pytest.raises(UserError, match="two tools have a function named 'search'"):
        run_tools(RunConfig(search=str(corpus)), Lore())


def test_outputs_are_as_long_as_the_settings_say(make_tokenizer):
    def repeat(n: int) -> str:
        """Say it again.

        Args:
            n: how often
        """
        return "a" * n

    source = Arithmetic()
    tools = [PythonTool(max_output=5000), FunctionTool(repeat)]
    agent = build_agent(AgentConfig(tool_output=3000), None, make_tokenizer("qwen", "qwen2_5"), source, tools)

    async def lengths() -> list[int]:
        calls = [("python", {"code": "print('a' * 9000)"}), ("repeat", {"n": 9000})]
        seen = [len((await agent.session.call(*call)).text) for call in calls]
        await agent.session.close()
        return seen

    assert asyncio.run(lengths()) == [5000, 3000]
