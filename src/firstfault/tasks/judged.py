"""How answers are judged, for tasks that come with right answers or tests."""

from __future__ import annotations

import functools
from typing import Literal

from pydantic import Field, model_validator

from firstfault.config import Settings
from firstfault.tasks.base import TaskSource, last_boxed, same_answer
from firstfault.tasks.judges.code import Asserts, CodeJudge, Examples, program_in
from firstfault.tasks.judges.math import MathJudge, require_math_verify
from firstfault.tasks.judges.text import Grade, chosen, graded, require_sacrebleu
from firstfault.tools import PythonTool, Session
from firstfault.tools.python import PRELOAD
from firstfault.tree import Task

Judging = Literal["same", "math", "choice", "code"] | Grade

# What is said after each question: not in a system prompt, because the tasks of a mix have none of their own.
_BOX = "Put the final answer, and nothing else, in \\boxed{}."
INSTRUCTION: dict[Judging, str] = {
    "math": f"Solve the problem step by step, and use the python tool for calculations. {_BOX}",
    "choice": "Find the right choice step by step. Put its letter, and nothing else, in \\boxed{}.",
    "exact": f"Find the answer step by step; it has a few words at most. {_BOX}",
    "f1": f"Find the answer step by step; it has a few words at most. {_BOX}",
    "bleu": f"Find the answer step by step; it has a few words at most. {_BOX}",
    "code": "Try your program with the python tool. End with the whole program in one block that starts with "
    "```python and ends with ```.",
}


class PythonOptions(Settings):
    """The bounds of the Python tool, and what is loaded in it from the start."""

    timeout: float = Field(5.0, gt=0, description="seconds of a call")
    memory_mb: int = Field(512, ge=16, description="memory of an interpreter, beyond what is preloaded")
    max_output: int = Field(2000, ge=100, description="characters of an output")
    preload: list[str] = Field([*PRELOAD, "numpy", "sympy"], description="modules that are there from the start")


class Judged(TaskSource):
    r"""Tasks that are judged by their answer alone.

    It has to stand in the last `\boxed{}`; a program in the last block of Python. The reward is 1 for a success and 0
    otherwise; f1 and bleu reward some of the right words, too. Of several right answers, `info["answers"]` lists all.
    """

    python: PythonOptions = PythonOptions()

    @property
    def judging(self) -> Judging:
        """How answers are judged: as the same number or text; as mathematics; as one of `info["choices"]`; by exact
        match of the words, or also by F1 or BLEU; or as a program, by `tests`."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _can_judge(self) -> Judged:
        if self.judging == "math":
            require_math_verify()
        if self.judging == "bleu":
            require_sacrebleu()
        return self

    def tools(self) -> list[PythonTool]:
        return [PythonTool(**self.python.model_dump())]

    def judging_of(self, task: Task) -> Judging:
        """How the answers of one task are judged."""
        return self.judging

    def tests(self, task: Task) -> Examples | Asserts:
        """The tests of a task that asks for a program."""
        raise NotImplementedError

    async def judge(self, task: Task, answer: str, session: Session) -> tuple[bool, float]:
        judging = self.judging_of(task)
        if judging == "code":
            success = await self._code.passes(program_in(answer), self.tests(task))
            return success, float(success)
        given = last_boxed(answer)
        if given is None:
            return False, 0.0
        golds = task.info.get("answers", [task.answer])
        if judging == "same":
            success = any(same_answer(given, gold) for gold in golds)
        elif judging == "math":
            success = any([await self._math.same(given, gold) for gold in golds])
        elif judging == "choice":
            success = chosen(given, task.info["choices"]) == task.answer
        else:
            return graded(given, golds, judging)
        return success, float(success)

    @functools.cached_property
    def _math(self) -> MathJudge:
        return MathJudge()

    @functools.cached_property
    def _code(self) -> CodeJudge:
        return CodeJudge()

    async def close(self) -> None:
        for name in ("_math", "_code"):
            if name in self.__dict__:  # it has judged
                await getattr(self, name).close()
