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


def run_program(preamble: str, source: str, stdin: str, hashed: bool) -> str | None:
    """What a program prints when it reads `stdin`."""

    def body(reply: int) -> None:
        execute(preamble, source, "__main__")
        sys.stdout.flush()

    return _sendable(_forked(body, stdin, read=1), hashed)


def call_function(preamble: str, source: str, name: str, arguments: str, hashed: bool) -> str | None:
    """What a function, or a method of `Solution`, returns, as JSON; `arguments` are one JSON value a line."""

    def body(reply: int) -> None:
        names = execute(preamble, source, "solution", without=name)
        function = getattr(names["Solution"](), name) if "Solution" in names else names[name]
        result = function(*(json.loads(line) for line in arguments.split("\n") if line.strip()))
        _write(reply, json.dumps(result).encode())

    return _sendable(_forked(body, "", read=None), hashed)


def pass_asserts(preamble: str, source: str, asserts: str, token: str) -> str | None:
    """`token`, if nothing raised in the program and then in the asserts."""

    def body(reply: int) -> None:
        names = execute(preamble, source, "solution")
        exec(compile(asserts, "<test>", "exec"), names)
        _write(reply, token.encode())

    return _sendable(_forked(body, "", read=None), hashed=False)


def execute(preamble: str, source: str, name: str, without: str = "") -> dict:
    """The names that a preamble, but for one, and a program define. A main program may end with exit()."""
    sys.setrecursionlimit(50_000)
    names = {"__name__": name}
    if source[:1].isspace():  # the body of the function that the preamble begins
        source, preamble = preamble + source, ""
    try:
        exec(compile(preamble, "<preamble>", "exec"), names)
        names.pop(without, None)
        exec(compile(source, "<program>", "exec"), names)
    except SystemExit:
        if name != "__main__":
            raise
    return names


def _forked(body, stdin: str, read: int | None) -> bytes | None:
    """Run `body` in a fork with these bytes on its stdin; `read` is what to read: 1 its stdout, None its reply."""
    (given, give), (take, taken) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(given, 0)
            os.dup2(taken if read == 1 else null, 1)
            os.dup2(null, 2)
            reply = os.dup2(taken, 3) if read is None else -1
            os.closerange(4 if read is None else 3, 256)
            sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
            sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115
            body(reply)
            status = 0
        finally:
            os._exit(status)
    os.close(given)
    os.close(taken)
    feeder = threading.Thread(target=_feed, args=(give, stdin.encode()), daemon=True)
    feeder.start()
    with open(take, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(pid, 0)
    return output if status == 0 else None


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
