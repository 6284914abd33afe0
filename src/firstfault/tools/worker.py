"""Worker processes of the Python tool, seen from the library: `sandbox/supervisor.py` is what runs in them."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from firstfault.errors import UserError
from firstfault.tools.base import ToolError

Sandbox = Literal["bubblewrap", "process"]

SCRIPT = Path(__file__).parent / "sandbox" / "supervisor.py"
MAX_REQUEST = 1 << 16  # bytes; small enough that a worker's socket always takes it whole, and sending never waits
MAX_CALLS = 4  # that a worker runs at a time: one that hangs does not hold up all others
GRACE = 25.0  # seconds after its limit at which a call without an answer is given up, and its worker with it
GONE = {"end": "gone", "output": ""}  # what a worker that has died, and with it all its states, would answer
# -s and -P: nothing is imported from the home or the working directory.
OPTIONS = ["-s", "-P", "-B", "-X", "utf8", "-W", "ignore"]
# Nothing of this process's environment: it may hold secrets. A fixed hash seed makes the order of sets the same in all
# workers; LD_BIND_NOW looks symbols up before the forks; libraries that start threads of their own can't be forked.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LD_BIND_NOW": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


# Without "..": what a path leads through is not there in the sandbox.
PYTHON = os.path.abspath(sys.executable)
# What code can read: the system's libraries, this Python and its packages.
VISIBLE = list(dict.fromkeys(map(os.path.abspath, ["/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix])))


def bubblewrap() -> list[str]:
    """The command that starts a program apart from this machine's files, network and processes."""
    namespaces = [f"--unshare-{space}" for space in ("user", "ipc", "pid", "net", "uts", "cgroup-try")]
    devices = [word for device in ("/dev/null", "/dev/urandom") for word in ("--dev-bind", device, device)]
    files = [word for path in [*VISIBLE, str(SCRIPT.parent)] for word in ("--ro-bind-try", path, path)]
    return [
        shutil.which("bwrap") or "/usr/bin/bwrap", *namespaces, "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL",
        "--die-with-parent", "--as-pid-1", "--proc", "/proc", *devices, *files, "--remount-ro", "/", "--chdir", "/",
    ]  # fmt: skip


@functools.cache
def check_bubblewrap() -> None:
    """Raises UserError if code can't be put apart on this machine."""
    try:
        command = [*bubblewrap(), PYTHON, "-I", "-S", "-c", ""]
        trial = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=30)
        reason = (trial.stderr.strip() or f"exit code {trial.returncode}") if trial.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = "bubblewrap is not installed" if isinstance(error, FileNotFoundError) else str(error)
    if reason:
        raise UserError(
            f"this machine can't isolate the Python code that agents write ({reason}); install bubblewrap and allow "
            "user namespaces, or accept less isolation with --sandbox=process."
        )


class Worker:
    """One worker process and the calls that wait for its answers."""

    def __init__(self, settings: dict[str, Any], sandbox: Sandbox):
        self.settings = settings
        self.sandbox = sandbox
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

    async def run(self, base: int, code: str) -> dict[str, Any]:
        """The worker's answer to a call that goes on from the state `base`; see `sandbox/supervisor.py`."""
        self.last_id += 1
        id = self.last_id
        request = {"id": id, "base": base, "code": code}
        if len(json.dumps(request)) >= MAX_REQUEST:
            raise ToolError(f"Error: the code is longer than {MAX_REQUEST} bytes", "bad arguments")
        if self.process is None:
            self._start()
        if not self._send(request):
            self.stop()
            return GONE
        future = self.pending[id] = self.loop.create_future()
        give_up = self.loop.call_later(self.settings["timeout"] + GRACE, self.stop)
        try:
            return await future
        except asyncio.CancelledError:
            self._send({"kill": id, "drop": [id]})  # it may have ended just now
            raise
        finally:
            give_up.cancel()
            self.pending.pop(id, None)

    def drop(self, states: list[int]) -> None:
        """Free states that no call will go on from."""
        if self.process is not None:
            self._send({"drop": states})

    def _start(self) -> None:
        apart = self.sandbox == "bubblewrap"
        settings = json.dumps({**self.settings, "apart": apart, "visible": VISIBLE})
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST * (MAX_CALLS + 1))
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115
        command = [*(bubblewrap() if apart else []), PYTHON, *OPTIONS, str(SCRIPT), settings]
        with theirs:
            try:
                # in a session of its own: Ctrl-C is for this process, which then ends the worker
                self.process = subprocess.Popen(
                    command, stdin=theirs, stderr=self.complaints, env=ENVIRONMENT, start_new_session=True
                )
            except OSError as error:
                self.socket.close()
                raise UserError(f"the Python tool can't start a worker process: {error}") from error
        self.owner = os.getpid()
        self.isolation = None
        self.received = b""
        self.loop.add_reader(self.socket, self._receive)

    def _send(self, message: dict[str, Any]) -> bool:
        data = json.dumps(message).encode() + b"\n"
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
            future = self.pending.pop(answer["id"], None)
            if "isolation" in answer:
                self.isolation = answer["isolation"]
            elif future and not future.done():
                future.set_result(answer)

    def stop(self) -> None:
        """End the process; all its states are lost, and the calls that wait for it hear so."""
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
        pending, self.pending = self.pending, {}
        for future in pending.values():
            if not future.done() and self.isolation is None:  # it has not even said hello: no mistake of the model
                future.set_exception(UserError(f"the Python tool's worker process ended at its start: {self._said()}."))
            elif not future.done():
                future.set_result(GONE)

    def _said(self) -> str:
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no reason given"
