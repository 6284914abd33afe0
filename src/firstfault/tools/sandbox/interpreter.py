"""The processes in which code runs: each is one state of an interpreter, and forks a child to go on from there.

The first of them is forked by the supervisor and never runs any code itself. Each serves requests on a socket of its
own, all of which come from the supervisor:

    "f" with two descriptors   fork; the child takes the socket and the pipe that they are
    (end of file)              exit

A child sends the number of its process on its socket (four bytes), reads the code from it (its length in four bytes,
and itself in UTF-8), and runs that with the variables that it has inherited, stdout and stderr on the pipe. It answers
"f" if the code finished and "r" if it raised. Then it is a state itself, and serves requests. Code can only spoil the
process that it runs in, and those that are forked from it.

What costs a call most is the memory that a child touches, two microseconds a page: so `load` does what it can before
the forks, and the children use little of Python's library.
"""

import ast
import ctypes
import gc
import linecache
import os
import random
import resource
import signal
import socket
import struct
import sys
import types

MAX_FILES = 64  # open at once
FINISHED, RAISED = b"f", b"r"
SPARE = 16 << 20  # bytes between the soft limit of memory, which code runs into, and the hard one


def load(preload: list[str]) -> None:
    """Do here what each child would otherwise do for itself: it pays for every page of memory that it touches."""
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdout__ = sys.__stderr__ = sys.stdout  # sys.stderr follows in the child: it is where this process complains
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    for name in preload:
        __import__(name)
    execute("for i in range(3):\n    print(i)\ni", "<warm up>", {})
    random.seed(0)  # equal calls give equal outputs
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    gc.collect()
    gc.freeze()  # a collection in a child would copy pages that it shares with this process
    if sys.platform == "linux":
        use_huge_pages()


def use_huge_pages() -> None:
    """Gather memory in pages of 2 MB where that can be done: a fork copies the table of pages, and has less to copy."""
    madvise, collapse = ctypes.CDLL(None).madvise, 25
    with open("/proc/self/maps") as file:
        for span, rights, _, _, inode, *_ in map(str.split, file.readlines()):
            start, end = (int(address, 16) for address in span.split("-"))
            if rights == "rw-p" and inode == "0":
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), collapse)


def bound(memory_mb: int) -> None:
    """Limits that are the same for all; the memory is what a process may have beyond what is loaded here."""
    bounds = {
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (MAX_FILES, MAX_FILES),
    }
    if sys.platform == "linux":
        bounds[resource.RLIMIT_SIGPENDING] = (64, 64)  # timers: they are counted for all processes of a user
        with open("/proc/self/statm") as file:
            memory = int(file.read().split()[0]) * resource.getpagesize() + (memory_mb << 20)
        bounds[resource.RLIMIT_AS] = (memory, memory + SPARE)
    for which, limit in bounds.items():
        resource.setrlimit(which, limit)


def serve(control: socket.socket, cpu_seconds: int, memory_mb: int) -> None:
    """Fork at each request, here and in all children; never returns."""
    calls = 0
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: the supervisor sees them end
    try:
        while True:
            message, descriptors, *_ = socket.recv_fds(control, 1, 2)
            if not message:
                os._exit(0)
            randomness = random.getstate()  # Python seeds it anew in a child
            try:
                pid = os.fork()
            except OSError:
                pid = None  # that both descriptors are closed says enough
            if pid != 0:
                for descriptor in descriptors:
                    os.close(descriptor)
                continue
            random.setstate(randomness)
            control.close()
            for standard in (1, 2):
                os.dup2(descriptors[1], standard)
            os.close(descriptors[1])
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            control = socket.socket(fileno=descriptors[0])
            control.send(struct.pack("i", os.getpid()))
            length = struct.unpack("i", control.recv(4))[0]
            code = control.recv(length, socket.MSG_WAITALL).decode(errors="surrogatepass")
            calls += 1
            control.send(run(code, f"<call {calls}>", memory_mb))
    except BaseException:  # the code has broken what this file needs
        os._exit(1)


def run(code: str, name: str, memory_mb: int) -> bytes:
    """Run a piece of code as a notebook runs a cell; what it prints, its last value and its error go to stdout."""
    out = sys.stdout = sys.stderr = sys.__stdout__
    linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
    status = RAISED
    try:
        value = execute(code, name, sys.modules["__main__"].__dict__)
        if value is not None:
            out.write(f"{value!r}\n")
        status = FINISHED
    except SystemExit as error:
        if error.code in (None, 0):
            status = FINISHED
        else:
            out.write(f"SystemExit: {error.code}\n")
    except BaseException as error:
        if isinstance(error, MemoryError):
            limits = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (limits[1], limits[1]))
            out.write(report(error, name, f"over {memory_mb} MB"))
            resource.setrlimit(resource.RLIMIT_AS, limits)
        else:
            out.write(report(error, name))
    out.flush()
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    return status


def execute(code: str, name: str, namespace: dict) -> object:
    """Run the code; the value of its last line, if that is an expression."""
    tree = ast.parse(code, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec", dont_inherit=True), namespace)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), namespace)


def report(error: BaseException, name: str, message: str = "") -> str:
    """The lines of the code that led to the error, and the error. Lines of earlier calls say which call."""
    frames = []
    trace = error.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        if code.co_filename.startswith("<call "):
            frames.append((code.co_filename, trace.tb_lineno, code.co_name))
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == name:
        frames.append((name, error.lineno, "<module>"))
        message = error.msg
    elif not message:
        try:
            message = str(error)
        except Exception:  # the code may have defined the class, with a mistake in it
            message = ""
    lines = []
    for file, number, function in frames:
        call = "" if file == name else f"{file[1:-1]}, "
        text = linecache.getline(file, number or 0).strip()[:80]
        lines.append(f"{call}line {number}{'' if function == '<module>' else f', in {function}'}: {text}")
    if len(lines) > 4:
        lines[1:-2] = [f"... {len(lines) - 3} calls ..."]
    kind = type(error).__name__
    return "\n".join([*lines, f"{kind}: {message[:500]}" if message else kind]) + "\n"
