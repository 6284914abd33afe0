"""The worker process of `../python.py`: has interpreters forked, bounds them, and reports how each call ended.

Run as a script, never imported by the library. It reads JSON lines from the socket that it gets as stdin, and answers
with JSON lines on the same socket:

    {"id": 1, "base": 0, "code": "17 + 5"}  ->  {"id": 1, "output": "22\\n", "end": "finished", "pages": 180}
    {"kill": 1}     (no answer: the caller no longer waits)
    {"drop": [1]}   (no answer: these states are no longer needed)

A call goes on from the state `base` and leads to a state with the number `id`; state 0 has run no code. A base stays
as it is. `end` is "finished" or "raised"; or else there is no new state, and it says why: "gone" (there is no such
base any more), "hung" (it does not fork any more), "died" (the code ended its process), or why this process killed it.
`pages` is about how many pages of memory the new state has for itself. The first line is {"id": 0, "isolation": {...}}:
what this system let it do.

On Linux, states that wait are stopped (SIGSTOP): nothing runs but calls, and states while they fork.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import NoReturn

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import interpreter
from confine import confine
from processes import LINUX, State, descendants, inherit_orphans, kill, own_pages, threads

del sys.path[0]  # the code that will run here imports nothing of ours

MAX_OUTPUT_BYTES = 1 << 16  # code that prints more is stopped
MAX_THREADS = 32  # in one interpreter
HANDSHAKE = 2.0  # seconds that a state has to fork
SWEEP = 1.0  # seconds after a failed fork at which what may have come of it is looked for
SOCKET_BUFFER = 1 << 18  # takes any code whole
ENDS = {interpreter.FINISHED: "finished", interpreter.RAISED: "raised"}
CLONE_THREAD, FORK_OPTIONS = 0x10000, 0x1200000  # the latter is how the C library tells a child its number
# From linux/seccomp.h: the two requests to a listener, and their structures.
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
NOTIFICATION, RESPONSE = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")


def fix_addresses() -> None:
    """Have objects stand at the same addresses in every worker, which code may print: if need be, by a new start."""
    personality, fixed = ctypes.CDLL(None).personality, 0x0040000
    present = personality(0xFFFFFFFF)
    if not present & fixed and personality(present | fixed) >= 0 and personality(0xFFFFFFFF) & fixed:
        os.execv(sys.executable, sys.orig_argv)


def main() -> None:
    if LINUX:
        fix_addresses()
    settings = json.loads(sys.argv[1])
    library = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.environ.clear()
    os.chdir("/")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets children that have ended
    inherit_orphans()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        library.close()
        ours.close()
        interpreter.load(settings["preload"])
        interpreter.bound(settings["memory_mb"])
        files, listener = confine(settings["visible"])
        kinds = bytes([files, listener is not None])
        socket.send_fds(theirs, [kinds], [] if listener is None else [listener])
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, limit)
        cpu = int(settings["timeout"] * (os.cpu_count() or 1)) + 2  # a second line: a call's deadline comes first
        interpreter.serve(theirs, cpu, settings["memory_mb"])
    theirs.close()
    kinds, descriptors, *_ = socket.recv_fds(ours, 2, 1)
    if not kinds:  # its traceback is on stderr
        os._exit(1)
    apart, files, calls = settings["apart"], *map(bool, kinds)
    send(library, {"id": 0, "isolation": {"files": apart or files, "network": apart or calls, "processes": calls}})
    Supervisor(library, State(pid, ours), descriptors[0] if descriptors else None, settings["timeout"]).serve()


def send(connection: socket.socket, message: dict) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


class Call:
    """A call under way. Its process is not known before its first word."""

    def __init__(self, id: int):
        self.id = id
        self.output = b""
        self.end: str | None = None

    def begin(self, base: State, control: socket.socket, pipe: int) -> None:
        self.base = base
        self.control = control
        self.pipe = pipe
        self.state: State | None = None
        self.deadline = time.monotonic() + HANDSHAKE


class Supervisor:
    """The loop: have a state forked for each call, read what it prints, stop it at its deadline, answer at its end."""

    def __init__(self, library: socket.socket, first: State, listener: int | None, timeout: float):
        self.library = library
        self.listener = listener
        self.timeout = timeout
        self.states: dict[int, State] = {}
        self.calls: dict[int, Call] = {}
        self.known = {first.pid: first}  # all processes that have said a word
        self.sweep_at = float("inf")
        self.received = b""
        self.poll = select.poll()
        self.handlers = {}  # what to do when there is something to read, by descriptor
        self.watch(library.fileno(), self.receive)
        if listener is not None:
            self.watch(listener, self.decide)
        self.keep(0, first)

    def watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self.poll.register(descriptor, select.POLLIN)
        self.handlers[descriptor] = handler

    def forget(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None):
            self.poll.unregister(descriptor)

    def serve(self) -> None:
        while True:
            now = time.monotonic()
            for call in list(self.calls.values()):
                if call.deadline <= now:
                    self.stop(call, "timed out")
            if self.sweep_at <= now:
                self.sweep()
            first = min([self.sweep_at, *(call.deadline for call in self.calls.values())])
            ready = self.poll.poll(None if first == float("inf") else max(0.0, first - now) * 1000 + 1)
            for descriptor, handler in [(descriptor, self.handlers[descriptor]) for descriptor, _ in ready]:
                if self.handlers.get(descriptor) is handler:  # its number may be another's by now
                    handler()

    # what the library asks for

    def receive(self) -> None:
        data = self.library.recv(1 << 16)
        if not data:  # the library has closed the tool, or died
            self.exit()
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "code" in message:
                call = self.calls[message["id"]] = Call(message["id"])
                self.begin(call, message["base"], message["code"])
            for id in message.get("drop", ()):
                self.drop(id)
            if message.get("kill") in self.calls:
                self.stop(self.calls[message["kill"]], "unwanted")

    def begin(self, call: Call, base: int, code: str) -> None:
        """Have the base forked; its child finds the code waiting for it."""
        if base not in self.states:
            self.answer(call, "gone")
            return
        state = self.states[base]
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        if LINUX:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        state.asked += 1
        state.permits += 1
        state.signal(signal.SIGCONT)
        with contextlib.suppress(OSError):  # of a base that has died: then the child's socket has ended, too
            socket.send_fds(state.control, [b"f"], [theirs.fileno(), writer])
            data = code.encode(errors="surrogatepass")
            ours.sendall(struct.pack("i", len(data)) + data)
        theirs.close()
        os.close(writer)
        call.begin(state, ours, reader)
        self.watch(ours.fileno(), lambda: self.hear(call))
        self.watch(reader, lambda: self.read(call))

    def keep(self, id: int, state: State) -> None:
        """A state that waits is stopped; it can only end."""
        state.signal(signal.SIGSTOP)
        self.states[id] = state
        self.watch(state.ended, lambda: self.drop(id))

    def drop(self, id: int) -> None:
        if id == 0:  # no call can begin any more
            self.exit()
        if id in self.states:
            state = self.states.pop(id)
            self.forget(state.ended)
            self.end(state)

    def end(self, state: State) -> None:
        del self.known[state.pid]
        state.close()

    # what interpreters say and do; they are believed about nobody but themselves

    def decide(self) -> None:
        """A process asks for a new process or thread: states may fork as often as they were asked to."""
        request = bytearray(NOTIFICATION.size)
        with contextlib.suppress(OSError):  # it may die in the meantime
            fcntl.ioctl(self.listener, RECEIVE, request)
            id, tid, _, _, _, _, flags, *_ = NOTIFICATION.unpack(request)
            state = None if flags & CLONE_THREAD else self.known.get(tid)
            if flags & CLONE_THREAD:
                allowed = threads(tid) < MAX_THREADS
            else:
                allowed = state is not None and state.permits > 0 and flags & ~FORK_OPTIONS == signal.SIGCHLD
            fcntl.ioctl(self.listener, SEND, RESPONSE.pack(id, 0, 0 if allowed else -1, CONTINUE if allowed else 0))
            if state and allowed:
                state.permits -= 1

    def hear(self, call: Call) -> None:
        """The first word of a call's process, its last one, or its end."""
        try:
            word, ancillary, *_ = call.control.recvmsg(4, socket.CMSG_SPACE(12))
        except OSError:
            word = b""
        if call.state is None and len(word) == 4:
            # on Linux, the kernel says who speaks
            self.meet(call, struct.unpack("i", ancillary[0][2][:4] if LINUX else word)[0])
        elif call.state is not None and word in ENDS:
            self.finish(call, ENDS[word])
        else:
            self.stop(call, "died")

    def meet(self, call: Call, pid: int) -> None:
        """The process of a call is there. One that has spoken before is not a new one."""
        state = None
        if pid not in self.known:
            try:
                state = State(pid, call.control)
            except ProcessLookupError:  # it has ended since
                call.end = "died"
        if state is None:
            self.stop(call, "died")
            return
        self.settle(call)
        call.state = self.known[pid] = state
        call.deadline = time.monotonic() + self.timeout
        if state.ended != state.control.fileno():  # which may be open elsewhere when it ends
            self.watch(state.ended, lambda: self.stop(call, "died"))

    def settle(self, call: Call) -> None:
        """A base has no child to make for this call any more."""
        call.base.asked -= 1
        call.base.permits = min(call.base.permits, call.base.asked)

    def read(self, call: Call) -> None:
        """Take what is in the pipe."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(call.pipe, MAX_OUTPUT_BYTES)
            call.output += data[: MAX_OUTPUT_BYTES - len(call.output)]
            if not data:
                self.forget(call.pipe)
            elif len(call.output) == MAX_OUTPUT_BYTES:
                self.stop(call, "printed too much")

    def finish(self, call: Call, end: str) -> None:
        """The process of a call is a state now. If it has left threads running, a fork of it, which has none, is."""
        settling = call.end is not None
        if not settling:
            call.end = end
            self.read(call)
            if call.id not in self.calls:
                return
        self.release(call)
        self.drop(call.id)  # the one that was settled
        self.keep(call.id, call.state)
        if settling or threads(call.state.pid) <= 1:
            self.answer(call, call.end, own_pages(call.state.pid))
        else:
            self.begin(call, call.id, "")

    def stop(self, call: Call, why: str) -> None:
        """End a call that leads to no state; of a child that never spoke, the base is at fault."""
        if why == "died":  # it may have said something before
            self.read(call)
            if call.id not in self.calls:
                return
        self.release(call)
        if call.state is not None:
            self.end(call.state)
        else:
            call.control.close()
            self.settle(call)
            self.sweep_at = time.monotonic() + SWEEP
            for id, state in list(self.states.items()):
                if state is call.base and id != 0 and why != "unwanted" and call.end is None:
                    self.drop(id)
            self.rest(call.base)
            why = "died" if call.end else "hung" if why == "timed out" else "gone"
        self.drop(call.id)  # the one that was to be settled
        self.answer(call, why)

    def release(self, call: Call) -> None:
        self.forget(call.control.fileno())
        self.forget(call.pipe)
        os.close(call.pipe)
        if call.state is not None:
            self.forget(call.state.ended)
            self.rest(call.base)  # not earlier: by now, it has closed what it has opened for its child

    def rest(self, base: State) -> None:
        """Stop a base that nobody waits for."""
        if not base.asked and self.known.get(base.pid) is base:
            base.signal(signal.SIGSTOP)

    def answer(self, call: Call, end: str, pages: int = 0) -> None:
        del self.calls[call.id]
        send(self.library, {"id": call.id, "output": call.output.decode(errors="replace"), "end": end, "pages": pages})

    def sweep(self) -> None:
        """End the processes that were forked and never said a word. While forks are under way, nobody can tell."""
        self.sweep_at = float("inf")
        if any(call.state is None for call in self.calls.values()):
            self.sweep_at = time.monotonic() + SWEEP
        else:
            for pid in descendants() - self.known.keys():
                kill(pid)

    def exit(self) -> NoReturn:
        for state in self.known.values():
            state.signal(signal.SIGKILL)
        while left := descendants():  # they end in their own time
            for pid in left:
                kill(pid)
            time.sleep(0.001)
        os._exit(0)


if __name__ == "__main__":
    main()
