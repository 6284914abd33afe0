"""The `python` tool: runs Python code that a model wrote, each piece in a process of its own.

A few worker processes (`_zygote.py`) fork a child for every call, so a call costs a fork, not the start of an
interpreter. Calls share nothing: what one defines, the next does not see.

Bounded on Linux and macOS: wall time, processor time, the size of the code and of its output, and open files; no file
can be filled; stdin, the environment of this process and the pipes to the worker are out of reach; when a call ends,
its process group is killed. Bounded on Linux: the memory of each process.

Where Linux allows it (`isolation` says what took hold; containers often refuse the first two):

- network: none, not even to this machine;
- processes: the code sees and signals none but its own, no process it starts outlives the call, and there can be
  64 of them (any number if this program runs as root);
- files: none is written, created or removed, and the memory and environment of other processes can't be read.

Not covered: the files of this machine can be read, and their modes be changed. A call that forks can use several times
its share of memory until its time is up; without "processes", a process that leaves its group lives on. The kernel is
shared: all this guards against a model's mistakes, not against an attack on the kernel. Output that depends on the
clock or on random numbers differs from call to call; the order of sets does not.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import UserError
from ._zygote import FINISHED, MAX_OUTPUT_BYTES, RAISED
from .base import Tool, ToolError, shorten

MAX_REQUEST = 1 << 16  # bytes; small enough that a worker's socket always takes it whole, and sending never waits
CALLS_PER_WORKER = 4  # children that a worker runs at a time, so that a call that hangs does not hold up all others
GRACE = 10.0  # seconds after its limit at which a call without an answer is given up, and its worker with it
# -s and -P: nothing is imported from the home or the working directory.
OPTIONS = ["-s", "-P", "-B", "-X", "utf8", "-W", "ignore"]
# Nothing of this process's environment: it may hold secrets. A fixed hash seed makes the order of sets the same in all
# workers; LD_BIND_NOW looks symbols up before the forks.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"}


class PythonTool(Tool):
    """Runs Python code; the answer is what it printed and the value of its last line, as in a notebook.

    `timeout` (seconds), `memory_mb` and `max_output` (characters) bound a call, from its start in a worker. The
    workers start with the first call, and serve one event loop at a time, but any number in turn.

    >>> async def main():
    ...     python = PythonTool(workers=1)
    ...     try:
    ...         return await python.run("17 + 5")
    ...     finally:
    ...         await python.close()
    >>> asyncio.run(main())
    '22'
    """

    keeps_time = True
    schemas = ({
        "type": "function",
        "function": {
            "name": "python",
            "description": "Run Python code. Returns what it prints and the value of the last line.",
            "parameters": {
                "type": "object",
                "properties": {"code": {"type": "string", "description": "The code to run"}},
                "required": ["code"],
            },
        },
    },)  # fmt: skip

    def __init__(self, *, timeout: float = 2.0, memory_mb: int = 256, max_output: int = 2000, workers: int = 2):
        self.timeout = timeout
        self.memory_mb = memory_mb
        self.max_output = max_output
        limits = json.dumps({"timeout": timeout, "memory_mb": memory_mb})
        self._workers = [_Worker(limits, timeout + GRACE) for _ in range(workers)]
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def isolation(self) -> dict[str, bool] | None:
        """Which of "network", "processes" and "files" the workers are kept from; None before the first call."""
        return self._workers[0].isolation

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return await self.run(**arguments)

    async def run(self, code: str) -> str:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and self._loop.is_running():
                raise UserError("this PythonTool serves another running event loop; make one tool for each loop")
            self._loop = loop
            self._free = asyncio.Semaphore(len(self._workers) * CALLS_PER_WORKER)
            for worker in self._workers:
                worker.attach(loop)
        async with self._free:
            worker = min(self._workers, key=lambda worker: len(worker.pending))
            answer = await worker.run(code)
        return self._read(**answer)

    async def close(self) -> None:
        """End the worker processes. A later call would start them again."""
        for worker in self._workers:
            worker.stop()

    def _read(self, output: str, status: int, stopped: str | None) -> str:
        """The result of a call from its worker's answer, or the error that it is."""
        output = output.rstrip("\n")
        if stopped == "timed out":
            error, failed = f"Error: stopped after {self.timeout:g} s", "timed out"
        elif stopped == "printed too much":
            error, failed = f"Error: stopped, it printed more than {MAX_OUTPUT_BYTES} bytes", "too much output"
        elif stopped:
            error, failed = f"Error: {stopped}", "sandbox"
        elif status == FINISHED:
            return shorten(output, self.max_output) or "(no output)"
        elif status == RAISED:
            error, failed = "" if output else "Error: raised, with its output closed", "raised"
        elif status < 0:
            error, failed = f"Error: crashed ({_signal_name(-status)})", "crashed"
        else:
            error, failed = f"Error: the code ended its process with exit code {status}", "exited"
        room = max(0, self.max_output - len(error) - 1)
        raise ToolError("\n".join(part for part in (shorten(output, room), error) if part), failed)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Worker:
    """One worker process and the calls that wait for its answers."""

    def __init__(self, limits: str, patience: float):
        self.limits = limits
        self.patience = patience
        self.loop: asyncio.AbstractEventLoop | None = None
        self.process: subprocess.Popen | None = None
        self.isolation: dict[str, bool] | None = None
        self.pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.last_id = 0

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve `loop` from now on; what awaited an answer in another loop has ended with it."""
        self.pending = {}
        if self.process is not None and self.owner != os.getpid():  # this process is a fork: the worker is not its own
            self.process = None
            self.socket.close()
        if self.process is not None:
            if not self.loop.is_closed():
                self.loop.remove_reader(self.socket)
            loop.add_reader(self.socket, self._receive)
        self.loop = loop

    async def run(self, code: str) -> dict[str, Any]:
        self.last_id += 1
        id = self.last_id
        request = json.dumps({"id": id, "code": code}).encode() + b"\n"
        if len(request) > MAX_REQUEST:
            raise ToolError(f"Error: the code is longer than {MAX_REQUEST} bytes", "bad arguments")
        if self.process is None or not self._send(request):
            self.stop()  # it died since the last call
            self._start()
            if not self._send(request):
                raise self._death()
        future = self.pending[id] = self.loop.create_future()
        give_up = self.loop.call_later(self.patience, self.stop)
        try:
            return await future
        except asyncio.CancelledError:
            self._send(json.dumps({"kill": id}).encode() + b"\n")
            raise
        finally:
            give_up.cancel()
            self.pending.pop(id, None)

    def _start(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST * (CALLS_PER_WORKER + 1))
        script = Path(__file__).with_name("_zygote.py")
        command = [sys.executable, *OPTIONS, script, self.limits]
        with theirs:
            try:
                # in a group of its own: Ctrl-C is for this process, which then ends the worker
                self.process = subprocess.Popen(command, stdin=theirs, env=ENVIRONMENT, process_group=0)
            except OSError as error:
                self.socket.close()
                raise UserError(f"the Python tool can't start a worker process: {error}") from error
        self.owner = os.getpid()
        self.isolation = None
        self.received = b""
        self.loop.add_reader(self.socket, self._receive)

    def _send(self, data: bytes) -> bool:
        try:
            return self.socket.send(data) == len(data)
        except OSError:
            return False

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self.stop()
            return
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            future = self.pending.pop(answer.pop("id"), None)
            if "isolation" in answer:
                self.isolation = answer["isolation"]
            elif future and not future.done():
                future.set_result(answer)

    def stop(self) -> None:
        """End the process; calls that still wait for it fail."""
        if self.process is None:
            return
        if not self.loop.is_closed():
            self.loop.remove_reader(self.socket)
        self.socket.close()  # this ends the process and all that it has started...
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:  # ... unless it hangs
            self.process.kill()
            self.process.wait()
        self.process = None
        for future in self.pending.values():
            if not future.done():
                future.set_exception(self._death())
        self.pending = {}

    def _death(self) -> Exception:
        if self.isolation is None:  # it has not even said hello: no mistake of the model
            return UserError("the Python tool's worker process ended at its start; its own message is on stderr")
        return ToolError("Error: the Python process died; nothing was run to its end", "sandbox")
