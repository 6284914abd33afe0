"""The `python` tool: an interpreter for each run, as in a notebook, whose state can be forked at any step.

What one call defines, the next one sees; the value of a last line is shown. A call never changes a state: it forks the
process that holds it, and the child, where the code has run, is the next state. So a fork of a session costs nothing,
siblings share memory until they write to it, and a call that is stopped or ends its process leaves all variables as
they were. States that are kept are bounded in number and memory; one that had to go is made again from its calls, and
its outputs are compared (`ReplayError`).

Sibling runs make many equal calls. Once two from one state have said the same, a third is not made while the state they
led to is there: its session joins theirs. Calls that say something else each time are always made.

On Linux, code runs inside bubblewrap (`sandbox = "bubblewrap"`), and is kept from this machine:

- files: it sees the system's libraries and this Python with its packages, read-only; it can write no file at all;
- network: none, not even to this machine;
- processes: it sees only the sandbox's own, can signal none of them nor read their memory, and can start none;
- kernel: system calls that short programs do not need are refused (`sandbox/confine.py`);
- bounds: wall time, processor time, memory, the size of code and output, open files (64), threads (32 or little more);
  states that wait are stopped, so nothing runs but the calls under way.

With `sandbox = "process"`, for machines where that can't be had (containers without user namespaces, macOS), the code
runs among this machine's other processes, with this program's rights. Linux still keeps it from files, network and
processes, where it has Landlock and seccomp (`isolation` tells), but it learns of the names and sizes of files; on
macOS only the bounds are left, without memory.

Not covered: the kernel is shared, so this guards against an agent's mistakes and tricks, not against an unknown hole
in the kernel. Timing tells code how busy the machine is. Memory is bounded for each process: several calls at a time
can use several times as much. Output that depends on the clock or on the system's random numbers differs from call to
call; the order of sets, the numbers of `random` and the addresses of objects (on Linux, where a container does not
forbid it) do not. What a call draws from the clock or the system and does not
print, siblings that made the same call may have in common; so are files and pipes that it leaves open shared by all
that go on from there, as by forks in general. Code can break its own interpreter, and so all calls that go on from it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, get_args

from firstfault.errors import UserError
from firstfault.tools.base import Tool, ToolError, shorten
from firstfault.tools.states import Pool, State
from firstfault.tools.worker import Sandbox, check_bubblewrap

# What short programs import most: loaded once, they cost a call nothing.
PRELOAD = ("collections", "datetime", "fractions", "functools", "itertools", "math", "random", "re", "statistics")
REFUSALS = {  # how a call can end without a new state
    "timed out": ("stopped after {timeout:g} s", "timed out"),
    "printed too much": ("stopped, it printed more than 65536 bytes", "too much output"),
    "died": ("the code ended its process", "died"),
    "hung": ("an earlier call has broken the interpreter", "died"),
}


class PythonTool(Tool):
    """Runs Python code; the answer is what it printed and the value of its last line, as in a notebook.

    Args:
        timeout: seconds that a call may take, from its start in a worker.
        memory_mb: memory of one interpreter, beyond what is preloaded.
        max_output: characters of an answer.
        preload: modules that are there at once, instead of being imported by each call that needs them.
        workers: processes that have interpreters forked, each with up to four calls at a time.
        snapshots, snapshot_mb: states that a worker keeps for later calls (eight at least), and their memory in MB,
            about.
        sandbox: "bubblewrap" or "process"; by default what $FIRSTFAULT_SANDBOX says, else "bubblewrap".

    Raises:
        UserError: if this machine can't isolate the code, and `sandbox` is not "process".

    The workers start with the first call, and serve one event loop at a time, but any number in turn. Of calls that one
    session makes at the same time, the last to end gives the next state.

    >>> import asyncio
    >>> async def main():
    ...     python = PythonTool(workers=1)
    ...     try:
    ...         await python.run("x = 17")
    ...         other = python.fork()
    ...         return await python.run("x += 5; x"), await other.run("x")
    ...     finally:
    ...         await python.close()
    >>> asyncio.run(main())
    ('22', '17')
    """

    keeps_time = True
    schemas = ({
        "type": "function",
        "function": {
            "name": "python",
            "description": "Run Python code. Returns what it prints and the value of the last line. Variables stay.",
            "parameters": {
                "type": "object",
                "properties": {"code": {"type": "string", "description": "The code to run"}},
                "required": ["code"],
            },
        },
    },)  # fmt: skip

    def __init__(
        self,
        *,
        timeout: float = 2.0,
        memory_mb: int = 256,
        max_output: int = 2000,
        preload: Sequence[str] = PRELOAD,
        workers: int = 2,
        snapshots: int = 512,
        snapshot_mb: int = 2048,
        sandbox: Sandbox | None = None,
    ):
        sandbox = sandbox or os.environ.get("FIRSTFAULT_SANDBOX", "bubblewrap")
        if sandbox not in get_args(Sandbox):
            raise UserError(f"there is no sandbox {sandbox!r}; choose bubblewrap or process.")
        if sandbox == "bubblewrap":
            check_bubblewrap()
        settings = {"timeout": timeout, "memory_mb": memory_mb, "preload": list(preload)}
        self.timeout = timeout
        self.max_output = max_output
        self._pool = Pool(settings, sandbox, workers, snapshots, snapshot_mb)
        self._is_fork = False
        self._state = State(users=1)

    @property
    def isolation(self) -> dict[str, bool] | None:
        """Which of "files", "network" and "processes" code is kept from; None before the first call."""
        return self._pool.workers[0].isolation

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return await self.run(**arguments)

    async def run(self, code: str) -> str:
        """Run code in the present state; the next call goes on from where it ends.

        Raises:
            ToolError: if it raised, which leads to a new state as well; or if it was stopped or ended its process,
                which leaves the state as it was.
        """
        state, end, output = await self._pool.run(self._state, code)
        if state is not None:
            state.users += 1
            self._leave()
            self._state = state
        if end == "finished":
            return shorten(output, self.max_output) or "(no output)"
        if end == "raised":
            raise ToolError(shorten(output, self.max_output) or "Error: raised, with its output closed", "raised")
        error, failed = REFUSALS[end]
        error = f"Error: {error.format(timeout=self.timeout)}; variables are as they were before"
        said = shorten(output, max(0, self.max_output - len(error) - 1))
        raise ToolError("\n".join(part for part in (said, error) if part), failed)

    def fork(self) -> PythonTool:
        forked = object.__new__(type(self))
        vars(forked).update(vars(self), _is_fork=True)
        self._state.users += 1
        return forked

    async def ready(self) -> None:
        await self._pool.revive(self._state)

    async def close(self) -> None:
        """Of a fork: give up its state. Of the tool itself: end all worker processes; a call would start them again."""
        if self._is_fork:
            self._leave()
        else:
            for worker in self._pool.workers:
                worker.stop()

    def _leave(self) -> None:
        self._state.users -= 1
        if self._state.users == 0:
            self._pool.drop(self._state)
