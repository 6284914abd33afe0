"""Runs a program that a model wrote on one test: the source of this file runs in the sandbox (see `code.py`).

Each test is a call of the tool, in a process of its own, and only its output comes back: what a program should print
or return is not known here. With `hashed`, it is the hash of the output that comes back, where that is too long to be
sent. What raises or ends its process gives no reply.
"""

import atexit
import base64
import contextlib
import hashlib
import json
import os
import sys
import threading
import zlib


def run_program(preamble: str, source: str, stdin: str, hashed: bool) -> str:
    """What a program prints when it reads `stdin`."""
    os._exit = sys.exit  # some end so, to be fast
    with streams(stdin) as output:
        execute(preamble, source, "__main__")
        atexit._run_exitfuncs()  # where some print
    return _sendable(bytes(output), hashed)


def call_function(preamble: str, source: str, name: str, arguments: str, hashed: bool) -> str:
    """What a function, or a method of `Solution`, returns, as JSON; `arguments` are one JSON value a line."""
    with streams():
        names = execute(preamble, source, "solution", without=name)
        function = getattr(names["Solution"](), name) if "Solution" in names else names[name]
        result = function(*(json.loads(line) for line in arguments.split("\n") if line.strip()))
    return _sendable(json.dumps(result).encode(), hashed)


def pass_asserts(preamble: str, source: str, asserts: str, token: str) -> str:
    """`token`, if nothing raises in the program and then in the asserts."""
    with streams():
        if source.lstrip("\n")[:1] in (" ", "\t"):  # the body of the function that the preamble begins
            names = execute("", preamble + source, "solution")
        else:
            names = execute(preamble, source, "solution")
        exec(compile(asserts, "<test>", "exec"), names)
    return _sendable(token.encode(), hashed=False)


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


@contextlib.contextmanager
def streams(stdin: str = ""):
    """Have a program read `stdin`, and collect what it prints, which is complete when the context ends."""
    output = bytearray()
    (given, give), (take, taken), null = os.pipe(), os.pipe(), os.open(os.devnull, os.O_RDWR)
    own = os.dup(1)
    for new, descriptor in ((given, 0), (taken, 1), (null, 2)):
        os.dup2(new, descriptor)
        os.close(new)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(descriptor, mode, encoding="utf-8", closefd=False)
                                         for descriptor, mode in enumerate("rww"))  # fmt: skip
    out = sys.stdout
    feeder = threading.Thread(target=_feed, args=(give, stdin.encode()), daemon=True)
    reader = threading.Thread(target=_drain, args=(take, output), daemon=True)
    feeder.start()
    reader.start()
    try:
        yield output
        for file in {sys.stdout, out}:
            with contextlib.suppress(ValueError):  # it is closed
                file.flush()
    finally:
        sys.stdout = sys.stderr = sys.__stdout__
        for descriptor in (1, 2, 0):
            os.dup2(own, descriptor)
    reader.join()


def _feed(pipe: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # it need not read all
        while data:
            data = data[os.write(pipe, data) :]
    os.close(pipe)


def _drain(pipe: int, output: bytearray) -> None:
    while data := os.read(pipe, 1 << 16):
        output += data
    os.close(pipe)


def _sendable(output: bytes, hashed: bool) -> str:
    return hash_of(output.decode(errors="replace")) if hashed else base64.b64encode(zlib.compress(output)).decode()


def hash_of(text: str) -> str:
    """Of an output, as far as it counts: white space at the ends of lines does not."""
    return hashlib.sha256("\n".join(line.strip() for line in text.strip().split("\n")).encode()).hexdigest()
