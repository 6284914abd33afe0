"""The states of interpreters: which worker has them, which of them go, and which calls need not be made again.

A state is dropped when nobody uses it, or when there are too many. One that is needed again is made from its parent by
its call, whose output is compared.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from dataclasses import dataclass, field
from resource import getpagesize
from typing import Any
from weakref import WeakKeyDictionary

from firstfault.errors import UserError
from firstfault.tools.base import ReplayError, ToolError, shorten
from firstfault.tools.worker import MAX_CALLS, Sandbox, Worker

TRIES = 5  # at a call whose base goes away under it
REMEMBERED, SHORT = 1024, 4096  # calls from a state that may be equal to one to come; characters of code and output
CROWD = 32  # sessions in one state, at which equal calls are made again, by the next worker if any can
IN_USE = 2 * MAX_CALLS  # states of a worker that calls may need just now: those they go on from and those they lead to


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
            ReplayError: if one of the calls that led to it says something else when it is made again, or ends it.
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
        raise ReplayError(f"the interpreter is gone whenever it is brought back to {shorten(state.code, 80)!r}")

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
