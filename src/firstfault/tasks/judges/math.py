r"""Judges of mathematics, by math-verify in a process that can be stopped.

As the benchmarks have it, the form of an answer does not count but its value does: 2+3 is 5, 2/4 is 1/2, a unit is
passed over, and 50 is 50 %, which is 0.5. Of a number with a base, such as 101_2, the base may be left out.

Known limits: a unit is neither converted nor missed (5 cm passes for 5 m, 1 m not for 100 cm); a time of day is read as
a ratio (6:15 passes for 2:5); white space between digits is nothing (1 0 passes for 10), as in LaTeX.
"""

from __future__ import annotations

from pathlib import Path

from firstfault.errors import require
from firstfault.tasks.base import same_answer
from firstfault.tasks.judges.script import SandboxedScript

SCRIPT = Path(__file__).with_name("sandboxed_math.py")
WARM_UP = r"[same(r'\frac{1}{2}', gold) for gold in (r'\sqrt{4}', '0.5', r'\{1,2\}', '(1,2)')]"  # its parser learns
LONGEST = 1000  # characters; no answer to a problem is longer, and parsers do not like what is


def require_math_verify() -> None:
    require("math_verify", "math", "judging mathematics")


class MathJudge:
    """Whether two answers to a maths problem are the same. `close` ends its processes."""

    def __init__(self) -> None:
        self._script = SandboxedScript(SCRIPT, preload=("math_verify",), warm_up=WARM_UP, timeout=5.0)

    async def same(self, given: str, gold: str) -> bool:
        """Whether `given` says what `gold` says; False if that can't be found out in time."""
        if same_answer(given, gold):
            return True
        if len(given) > LONGEST or not given.strip():
            return False
        return await self._script.call("same", given, gold) is True

    async def close(self) -> None:
        await self._script.close()
