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

import asyncio
import itertools
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from resource import getpagesize
from typing import Any, get_args
from weakref import WeakKeyDictionary

from firstfault.errors import UserError
from firstfault.tools.base import ReplayError, Tool, ToolError, shorten
from firstfault.tools.worker import MAX_CALLS, Sandbox, Worker, check_bubblewrap

# What short programs import most: loaded once, they cost a call nothing.
PRELOAD = ("collections", "datetime", "fractions", "functools", "itertools", "math", "random", "re", "statistics")
TRIES = 5  # at a call whose base goes away under it
REMEMBERED, SHORT = 1024, 4096  # calls from a state that may be equal to one to come; characters of code and output
CROWD = 32  # sessions in one state, at which equal calls are made again, by the next worker if any can
IN_USE = 2 * MAX_CALLS  # states of a worker that calls may need just now: those they go on from and those they lead to
REFUSALS = {  # how a call can end without a new state
    "timed out": ("stopped after {timeout:g} s", "timed out"),
    "printed too much": ("stopped, it printed more than 65536 bytes", "too much output"),
    "died": ("the code ended its process", "died"),
    "hung": ("an earlier call has broken the interpreter", "died"),
}


@dataclass(eq=False)
class State:
    """An interpreter after some calls. It can be made again from its parent, so its process may go."""

    parent: State | None = None
    code: str = ""
    said: tuple[str, str] = ("", "")  # how the call ended, and what it printed
    worker: Worker | None = None
    number: int = 0  # the worker's name for it
    process: Any = None  # the worker's process that has it
    pages: int = 0
    users: int = 0
    has_heirs: bool = False  # other states were made from it
    repeats: dict[str, Repeat] = field(default_factory=dict)  # calls from it, by their code

    @property
    def is_live(self) -> bool:
        return self.parent is None or (self.process is not None and self.process is self.worker.process)


Answer = tuple[State | None, str, str]  # the state after a call, how it ended, and what it printed


class Repeat:
    """Equal calls from one state, in one worker. `settled`: two have ended; `answer`: that of both, if they agree."""

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop):
        self.worker = worker
        self.loop = loop
        self.begun = 0
        self.ended: list[Answer] = []
        self.answer: Answer | None = None
        self.settled = asyncio.Event()

    def end(self, answer: Answer) -> Answer:
        """Note what one of the two came to; returns what its session goes on with, which may be that of the other."""
        self.ended.append(answer)
        if len(self.ended) < 2:
            return answer
        (state, *first), (_, *second) = self.ended
        if first == second and len(first[1]) <= SHORT:
            self.answer = self.ended[0] if state is None or state.is_live else answer
        self.ended.clear()
        self.settled.set()
        return self.answer or answer

    @property
    def is_over(self) -> bool:
        """There was an answer, but the state that it leads to is gone or crowded."""
        state = self.answer[0] if self.answer else None
        return state is not None and (not state.is_live or state.users >= CROWD)

    def leads_to(self, state: State) -> bool:
        return any(answer[0] is state for answer in (*self.ended, self.answer) if answer)


class Pool:
    """The workers of one tool, and the states that live in them."""

    def __init__(self, settings: dict[str, Any], sandbox: Sandbox, workers: int, snapshots: int, snapshot_mb: int):
        self.workers = [Worker(settings, sandbox) for _ in range(workers)]
        self.snapshots = snapshots
        self.pages = (snapshot_mb << 20) // getpagesize()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.live: dict[Worker, OrderedDict[State, None]] = {worker: OrderedDict() for worker in self.workers}
        self.turns = itertools.cycle(self.workers)

    def attach(self) -> None:
        """Serve the running event loop; any number in turn, one at a time."""
        loop = asyncio.get_running_loop()
        if loop is self.loop:
            return
        if self.loop is not None and self.loop.is_running():
            raise UserError("this PythonTool serves another running event loop; make one tool for each loop")
        self.loop = loop
        self.free = {worker: asyncio.Semaphore(MAX_CALLS) for worker in self.workers}
        self.rebuilding: WeakKeyDictionary[State, asyncio.Lock] = WeakKeyDictionary()
        for worker in self.workers:
            worker.attach(loop)

    async def run(self, base: State, code: str) -> Answer:
        """The state after a call, how the call ended, and what it printed; no state if it did not get to its end."""
        self.attach()
        if len(code) > SHORT:
            return await self._run(base, code, base.worker or next(self.turns))
        repeat = self._repeat(base, code)
        repeat.begun += 1
        if repeat.begun > 2:
            await repeat.settled.wait()
            if repeat.is_over:
                return await self.run(base, code)
            if repeat.answer is None:
                return await self._run(base, code, base.worker or next(self.turns))
            if (state := repeat.answer[0]) is not None:
                self._touch(state)
            return repeat.answer
        try:
            made = await self._run(base, code, repeat.worker)
        except BaseException:
            base.repeats.pop(code, None)
            repeat.settled.set()
            raise
        answer = repeat.end(made)
        if answer[0] is not made[0]:
            self.drop(made[0])
        return answer

    def _repeat(self, base: State, code: str) -> Repeat:
        repeat = base.repeats.get(code)
        if repeat is None or repeat.loop is not self.loop or repeat.is_over:
            repeat = base.repeats[code] = Repeat(base.worker or next(self.turns), self.loop)
            if len(base.repeats) > REMEMBERED:
                del base.repeats[next(iter(base.repeats))]
        return repeat

    async def _run(self, base: State, code: str, worker: Worker) -> Answer:
        async with self.free[worker]:
            for _ in range(TRIES):  # a base may go while the call is on its way to it
                await self._revive(base)
                self._touch(base)
                answer = await worker.run(base.number, code)
                end, output = answer["end"], answer["output"].rstrip("\n")
                if end in ("finished", "raised"):
                    state = State(base, code, (end, output), worker)
                    self._keep(state, answer)
                    return state, end, output
                if end != "gone":
                    return None, end, output
                base.process = None
        raise ToolError("Error: the interpreter is gone", "sandbox")

    async def revive(self, state: State) -> None:
        """See to it that the state has a process.

        Raises:
            ReplayError: if one of the calls that led to it says something else when it is made again.
        """
        self.attach()
        if not state.is_live:
            async with self.free[state.worker]:
                await self._revive(state)

    async def _revive(self, state: State) -> None:
        for _ in range(TRIES):
            lost, last = [], state
            while not last.is_live:
                lost.append(last)
                last = last.parent
            for each in reversed(lost):
                async with self.rebuilding.setdefault(each, asyncio.Lock()):  # each state once
                    if not each.is_live and not await self._rebuild(each):
                        break
            else:
                return
        raise ToolError("Error: the interpreter is gone", "sandbox")

    async def _rebuild(self, state: State) -> bool:
        """Make a state again; false if its parent has gone."""
        answer = await state.worker.run(state.parent.number, state.code)
        said = answer["end"], answer["output"].rstrip("\n")
        if answer["end"] == "gone":
            state.parent.process = None
            return False
        if said != state.said:
            state.worker.drop([answer["id"]])
            raise ReplayError(
                f"the Python call {shorten(state.code, 80)!r} gave {shorten(state.said[1], 80)!r}, and "
                f"{shorten(said[1] or said[0], 80)!r} when it was made again"
            )
        self._keep(state, answer)
        return True

    def _keep(self, state: State, answer: dict[str, Any]) -> None:
        """Note where a new state lives; if there are too many, some go.

        First those from which others were made, for a run goes on from its last one; then the longest unused.
        """
        state.number, state.process, state.pages = answer["id"], state.worker.process, answer["pages"]
        state.parent.has_heirs = True
        self._touch(state.parent)
        self._touch(state)
        live = self.live[state.worker]
        while len(live) > IN_USE and (len(live) > self.snapshots or sum(s.pages for s in live) > self.pages):
            old = list(itertools.islice(live, len(live) - IN_USE))
            self.drop(next((state for state in old if state.has_heirs), old[0]))

    def _touch(self, state: State) -> None:
        if state.parent is not None:
            live = self.live[state.worker]
            live[state] = None
            live.move_to_end(state)

    def drop(self, state: State) -> None:
        if state.parent is not None:
            self.live[state.worker].pop(state, None)
            if state.is_live:
                state.worker.drop([state.number])
            state.process = None
            repeat = state.parent.repeats.get(state.code)
            if repeat and repeat.leads_to(state):
                del state.parent.repeats[state.code]


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
