"""The processes of the Python tools that a test has made."""

import os
import time
from collections.abc import Callable
from pathlib import Path

# The last digits of the time limits tell the worker processes of this test run from others.
MARK = f"{os.getpid():08d}1"
SHORT, LONG = float(f"0.5{MARK}"), float(f"20.0{MARK}")


def processes() -> list[int]:
    """All living processes of this test run's tools: their children have the command line of the worker."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if MARK.encode() in command and b"supervisor.py" in command:
            found.append(int(pid))
    return found


def running() -> int:
    """How many of them do not wait for a signal to go on."""
    number = 0
    for pid in processes():
        try:
            number += " T " not in Path(f"/proc/{pid}/stat").read_text()
        except OSError:  # it has ended
            continue
    return number


def soon(condition: Callable[[], bool]) -> bool:
    """Wait until it holds: the kernel may still be at it."""
    patience = time.monotonic() + 5
    while not condition() and time.monotonic() < patience:
        time.sleep(0.02)
    return condition()


def come_down_to(number: int) -> bool:
    """Wait until so many processes are left."""
    return soon(lambda: len(processes()) <= number)
