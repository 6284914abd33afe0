"""The worker process of `python.py`: forks a child for every piece of code, bounds it, and reports how it ended.

Run as a script, never imported by the library: it starts in a few milliseconds, and a fork of it costs a third of one.
It reads JSON lines from the socket that it gets as stdin, and answers with JSON lines on the same socket:

    {"id": 1, "code": "17 + 5"}  ->  {"id": 1, "output": "22\\n", "status": 100, "stopped": null}
    {"kill": 1}                      (no answer: the caller no longer waits)

`status` is the child's exit code, or minus the signal that ended it; `stopped` says why this process killed it.
The first line it sends is {"id": 0, "isolation": {...}}: what this system let it put in place.
"""

import ast
import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import types

FINISHED, RAISED = 100, 101  # exit codes of a child: anything else means that the code ended its process by itself
MAX_OUTPUT_BYTES = 1 << 16  # a child that prints more is killed
MAX_FILES = 64  # open in this process, and in a child
MAX_PROCESSES = 64  # in all children of this process together, threads counted; Linux does not hold root to it
FILE = "<code>"
# What short programs import most: loaded once here, they cost a child nothing.
PRELOADED = ("collections", "datetime", "fractions", "functools", "itertools", "math", "random", "re", "statistics")

CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
LANDLOCK_CREATE, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT = 444, 445, 446  # the same numbers on every architecture


def main() -> None:
    limits = json.loads(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    warm_up()
    isolated, read_only = False, False
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        isolated = enter_namespaces(libc, control)
        read_only = forbid_writing(libc)
    send(control, {"id": 0, "isolation": {"network": isolated, "processes": isolated, "files": read_only}})
    os.chdir("/")
    os.environ.clear()
    gc.disable()
    gc.freeze()  # a collection in a child would copy pages that it shares with this process
    Zygote(control, libc, isolated, limits).serve()


def enter_namespaces(libc: ctypes.CDLL, control: socket.socket) -> bool:
    """Leave the network, and go on as the first process of a process namespace; False if the system refuses.

    With a user namespace this needs no rights, and takes those of root away: files that root may read only because it
    is root are then out of reach. Where user namespaces are switched off, root can do without.
    """
    spaces = CLONE_NEWNET | CLONE_NEWPID
    if libc.unshare(CLONE_NEWUSER | spaces) and libc.unshare(spaces):
        return False
    pid = os.fork()
    if pid:  # the process that the library started only waits; killing it kills the other
        control.close()
        os.waitpid(pid, 0)
        os._exit(0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return True


def forbid_writing(libc: ctypes.CDLL) -> bool:
    """With Landlock: no file but /dev/null can be written, made or removed by this process and its children.

    Landlock also hides the memory and the environment of all other processes from them. Since Linux 6.12 it keeps
    them from TCP and from signalling those processes, which is some help where namespaces are refused.
    """
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    write_file, remove_and_make, refer, truncate = 1 << 1, 0b1_1111_1111 << 4, 1 << 13, 1 << 14
    rights = write_file | remove_and_make | (refer if version >= 2 else 0) | (truncate if version >= 3 else 0)
    tcp, signals_and_sockets = 0b11, 0b11
    attributes = struct.pack("3Q", rights, tcp, signals_and_sockets) if version >= 6 else struct.pack("Q", rights)
    ruleset = libc.syscall(LANDLOCK_CREATE, attributes, len(attributes), 0)
    null = os.open(os.devnull, os.O_RDONLY)
    libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", write_file, null), 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done = libc.syscall(LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(null)
    os.close(ruleset)
    return done


def send(control: socket.socket, message: dict) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


class Run:
    """A child that is running."""

    def __init__(self, id: int, pid: int, pipe: int, deadline: float):
        self.id = id
        self.pid = pid
        self.pipe = pipe
        self.deadline = deadline
        self.output = b""
        self.stopped: str | None = None

    def stop(self, why: str) -> None:
        self.stopped = self.stopped or why
        self.deadline = float("inf")
        self.kill()

    def kill(self) -> None:
        for kill in (os.kill, os.killpg):  # both: the child may not have made its group yet
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: the latter if all are zombies
                kill(self.pid, signal.SIGKILL)

    def read(self) -> bool:
        """Take all that is in the pipe (it never holds more than one read); False if there is no use in more."""
        try:
            data = os.read(self.pipe, MAX_OUTPUT_BYTES)
        except BlockingIOError:
            return True
        if len(self.output) + len(data) > MAX_OUTPUT_BYTES:
            self.stop("printed too much")
        self.output += data[: MAX_OUTPUT_BYTES - len(self.output)]
        return bool(data) and self.stopped is None


class Zygote:
    """The loop: start a child for each request, read its output, stop it at its deadline, answer when it has ended."""

    def __init__(self, control: socket.socket, libc: ctypes.CDLL, isolated: bool, limits: dict):
        self.control = control
        self.libc = libc
        self.limits = limits
        self.namespace = os.open("/proc/self/ns/pid", os.O_RDONLY) if isolated else None
        self.runs: dict[int, Run] = {}  # by the descriptor of their pipe
        self.received = b""

    def serve(self) -> None:
        wake, wakeup = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # its byte in the pipe ends `poll`
        self.poll = select.poll()
        self.poll.register(wake, select.POLLIN)
        self.poll.register(self.control, select.POLLIN)
        while True:
            now = time.monotonic()
            for run in self.runs.values():
                if run.deadline <= now:
                    run.stop("timed out")
            first = min((run.deadline for run in self.runs.values()), default=float("inf"))
            for fd, _ in self.poll.poll(None if first == float("inf") else max(0.0, first - now) * 1000 + 1):
                if fd == wake:
                    os.read(wake, MAX_OUTPUT_BYTES)
                    self.reap()
                elif fd == self.control.fileno():
                    self.receive()
                elif fd in self.runs and not self.runs[fd].read():
                    self.poll.unregister(fd)  # now there is only the child's end to wait for

    def receive(self) -> None:
        data = self.control.recv(1 << 16)
        if not data:  # the library has closed the tool, or died
            for run in self.runs.values():
                run.kill()
            os._exit(0)
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "code" in message:
                self.start(message["id"], message["code"])
            for run in self.runs.values():
                if run.id == message.get("kill"):
                    run.stop("unwanted")

    def start(self, id: int, code: str) -> None:
        pipe = ()
        try:
            reader, writer = pipe = os.pipe()
            if self.namespace is not None:
                # The child will be the first process of a namespace: when it ends, the kernel ends all others there.
                # A process can prepare a second such child only after it has returned to its own namespace.
                self.libc.setns(self.namespace, CLONE_NEWPID)
                self.libc.unshare(CLONE_NEWPID)
            pid = os.fork()
        except OSError as error:
            for fd in pipe:
                os.close(fd)
            send(self.control, {"id": id, "output": "", "status": 0, "stopped": f"not started ({error.strerror})"})
            return
        if pid == 0:
            try:
                child(code, writer, self.libc, self.namespace is not None, self.limits)
            finally:
                os._exit(1)  # only if `child` itself has failed
        os.close(writer)
        os.set_blocking(reader, False)
        self.runs[reader] = Run(id, pid, reader, time.monotonic() + self.limits["timeout"])
        self.poll.register(reader, select.POLLIN)

    def reap(self) -> None:
        """Answer for the children that have ended."""
        for run in list(self.runs.values()):
            pid, status = os.waitpid(run.pid, os.WNOHANG)
            if pid == 0:
                continue
            run.kill()  # whatever is left of its process group
            run.read()
            del self.runs[run.pipe]
            with contextlib.suppress(KeyError):  # its end may have been seen before
                self.poll.unregister(run.pipe)
            os.close(run.pipe)
            answer = {"id": run.id, "output": run.output.decode(errors="replace"), "stopped": run.stopped}
            send(self.control, {**answer, "status": os.waitstatus_to_exitcode(status)})


def child(code: str, pipe: int, libc: ctypes.CDLL, isolated: bool, limits: dict) -> None:
    """Bound this process, run the code, and end."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(pipe, 1)
    os.dup2(pipe, 2)
    os.closerange(3, MAX_FILES)  # this process has none above; also the socket: the code can't speak for this file
    bound(limits, isolated)
    out = sys.stderr = sys.stdout
    gc.enable()
    status = RAISED
    try:
        value = execute(code, sys.modules["__main__"].__dict__)
        if value is not None:
            out.write(f"{value!r}\n")
        status = FINISHED
    except SystemExit as error:
        if error.code in (None, 0):
            status = FINISHED
        else:
            out.write(f"SystemExit: {error.code}\n")
    except BaseException as error:
        if isinstance(error, MemoryError):  # the soft limit is lower than the hard one, so that this can be told
            resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
        out.write(report(error, code, limits))
    finally:
        try:
            out.flush()
        finally:
            os._exit(status)


def bound(limits: dict, isolated: bool) -> None:
    """Bound this process and what it will start; each limit counts for each process by itself, but for RLIMIT_NPROC."""
    memory, spare = int(limits["memory_mb"]) << 20, 16 << 20
    cpu = int(limits["timeout"] * (os.cpu_count() or 1)) + 2  # a second line: the deadline of the run comes first
    bounds = {
        resource.RLIMIT_AS: (memory, memory + spare),
        resource.RLIMIT_CPU: (cpu, cpu),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (MAX_FILES, MAX_FILES),
    }
    if isolated:  # elsewhere all other processes of the user would count too
        bounds[resource.RLIMIT_NPROC] = (MAX_PROCESSES, MAX_PROCESSES)
    for which, limit in bounds.items():
        with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
            resource.setrlimit(which, limit)


def warm_up() -> None:
    """Do here what each child would otherwise do for itself: it pays for every page of memory that it touches."""
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdout__ = sys.__stderr__ = sys.stdout  # sys.stderr follows in the child: it is where this process complains
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    for name in PRELOADED:
        __import__(name)
    execute("for i in range(3):\n    print(i)\ni", {})


def execute(code: str, namespace: dict) -> object:
    """Run the code; the value of its last line, if that is an expression."""
    tree = ast.parse(code, FILE)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, FILE, "exec", dont_inherit=True), namespace)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), FILE, "eval", dont_inherit=True), namespace)


def report(error: BaseException, code: str, limits: dict) -> str:
    """The lines of the code that led to the error, and the error."""
    source = code.split("\n")
    frames = []
    try:
        message = str(error)
    except Exception:  # the code may have defined the class, with a mistake in it
        message = ""
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == FILE:
            frames.append((trace.tb_lineno, trace.tb_frame.f_code.co_name))
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == FILE:
        frames.append((error.lineno, "<module>"))
        message = error.msg
    elif isinstance(error, MemoryError):
        message = f"over {limits['memory_mb']} MB"
    lines = []
    for number, function in frames:
        text = source[number - 1].strip()[:80] if number and number <= len(source) else ""
        lines.append(f"line {number}{'' if function == '<module>' else f', in {function}'}: {text}")
    if len(lines) > 4:
        lines[1:-2] = [f"... {len(lines) - 3} calls ..."]
    name = type(error).__name__
    return "\n".join([*lines, f"{name}: {message[:500]}" if message else name]) + "\n"


if __name__ == "__main__":
    main()
