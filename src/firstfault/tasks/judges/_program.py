"""Runs a program that a model wrote on one test: the source of this file runs in the sandbox (see `code.py`).

The program runs in a process forked for it, and only its output comes back: what it should print or return is not
known here. With `hashed`, it is the hash of the output that comes back, where that is too long to be sent. Each
function returns None if the program did not come to its end.
"""

import base64
import contextlib
import hashlib
import json
import os
import sys
import threading
import zlib

MAX_FILES = 1024  # more than a process of the sandbox may have open


def run_program(preamble: str, source: str, stdin: str, hashed: bool) -> str | None:
    """What a program prints when it reads `stdin`."""

    def body(reply: int) -> None:
        os.dup2(reply, 1)
        execute(preamble, source, "__main__")
        sys.stdout.flush()

    return _sendable(_forked(body, stdin), hashed)


def call_function(preamble: str, source: str, name: str, arguments: str, hashed: bool) -> str | None:
    """What a function, or a method of `Solution`, returns, as JSON; `arguments` are one JSON value a line."""

    def body(reply: int) -> None:
        names = execute(preamble, source, "solution", without=name)
        function = getattr(names["Solution"](), name) if "Solution" in names else names[name]
        result = function(*(json.loads(line) for line in arguments.split("\n") if line.strip()))
        _write(reply, json.dumps(result).encode())

    return _sendable(_forked(body), hashed)


def pass_asserts(preamble: str, source: str, asserts: str, token: str) -> str | None:
    """`token`, if nothing raised in the program and then in the asserts."""

    def body(reply: int) -> None:
        if source.lstrip("\n")[:1] in (" ", "\t"):  # the body of the function that the preamble begins
            names = execute("", preamble + source, "solution")
        else:
            names = execute(preamble, source, "solution")
        exec(compile(asserts, "<test>", "exec"), names)
        _write(reply, token.encode())

    return _sendable(_forked(body), hashed=False)


def execute(preamble: str, source: str, name: str, without: str = "") -> dict:
    """The names that a preamble, but for one, and a program define. A main program may end with exit()."""
    sys.setrecursionlimit(50_000)
    names = {"__name__": name}
    try:
        exec(compile(preamble, "<preamble>", "exec"), names)
        names.pop(without, None)
        exec(compile(source, "<program>", "exec"), names)
    except SystemExit:
        if name != "__main__":
            raise
    return names


def _forked(body, stdin: str = "") -> bytes | None:
    """What `body` writes to the descriptor that it gets, in a fork with a stdin, but no stdout and stderr."""
    (given, give), (take, reply) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            for source, target in ((given, 0), (null, 1), (null, 2)):
                os.dup2(source, target)
            os.closerange(3, reply)
            os.closerange(reply + 1, MAX_FILES)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, "r" if fd == 0 else "w", encoding="utf-8")
                                                 for fd in (0, 1, 2))  # fmt: skip
            body(reply)
            status = 0
        finally:
            os._exit(status)
    os.close(given)
    os.close(reply)
    threading.Thread(target=_feed, args=(give, stdin.encode()), daemon=True).start()
    with open(take, "rb") as pipe:
        output = pipe.read()
    return output if os.waitpid(pid, 0)[1] == 0 else None


def _feed(pipe: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # it need not read all
        _write(pipe, data)
    os.close(pipe)


def _write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


def _sendable(output: bytes | None, hashed: bool) -> str | None:
    if output is None:
        return None
    return hash_of(output.decode(errors="replace")) if hashed else base64.b64encode(zlib.compress(output)).decode()


def hash_of(text: str) -> str:
    """Of an output, as far as it counts: white space at the ends of lines does not."""
    return hashlib.sha256("\n".join(line.strip() for line in text.strip().split("\n")).encode()).hexdigest()
