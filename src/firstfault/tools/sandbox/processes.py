"""The processes of the sandbox, as `supervisor.py` sees them. Where there is no /proc, there is little to see."""

import contextlib
import ctypes
import os
import signal
import socket
import sys

LINUX = sys.platform == "linux"
PR_SET_CHILD_SUBREAPER = 36


class State:
    """A process with an interpreter: it runs a call, or waits.

    `asked` counts the children that it has been asked for and that have not said a word, `permits` those of them that
    it has not made yet.
    """

    def __init__(self, pid: int, control: socket.socket):
        self.pid = pid
        self.control = control
        self.handle = handle(pid)
        self.asked = self.permits = 0

    @property
    def ended(self) -> int:
        """A descriptor with something to read as soon as the process has ended."""
        return self.control.fileno() if self.handle is None else self.handle

    def signal(self, number: int) -> None:
        """Without a handle, nothing is stopped: the end of its children would not be seen until it goes on."""
        with contextlib.suppress(ProcessLookupError):
            if self.handle is not None:
                signal.pidfd_send_signal(self.handle, number)
            elif number == signal.SIGKILL:
                os.kill(self.pid, number)

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        self.control.close()
        if self.handle is not None:
            os.close(self.handle)


def handle(pid: int) -> int | None:
    """A descriptor that stands for the process, whose number may be another's as soon as it has ended.

    Raises:
        ProcessLookupError: if it has ended.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # not Linux, or one without
        return None


def inherit_orphans() -> None:
    """Make this process the parent of all that its children leave behind, so that it can find them."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 1


def own_pages(pid: int) -> int:
    """At most so many pages does a process have that no other has: those it touched, of those that are no file's."""
    try:
        with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/statm") as statm:
            touched = int(stat.read().rpartition(")")[2].split()[7])
            _, resident, shared, *_ = map(int, statm.read().split())
    except OSError:
        return 0
    return min(touched, resident - shared)


def descendants() -> set[int]:
    """All processes that this one has started, and theirs."""
    parents = {}
    for path in os.listdir("/proc") if LINUX else []:
        if path.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{path}/stat") as stat:
                parents[int(path)] = int(stat.read().rpartition(")")[2].split()[1])
    found: set[int] = set()
    new = {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in new}:
        found |= new
    return found
