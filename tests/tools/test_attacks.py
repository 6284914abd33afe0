"""Hostile programs (`attacks.py`): each is contained, leaves other sessions alone, and no process behind.

Where pytest runs as root, all of them run a second time as an ordinary user.
"""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from attacks import ATTACKS, ENDLESS, PRELUDE, Calls, holds, works
from sandboxed import LONG, SHORT, come_down_to, processes, running, soon

from firstfault.tools import Observation, PythonTool, ReplayError, Session

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere code is not isolated")


PRELOAD = ["ctypes", "platform", "socket", "threading"]


class Arena:
    """A worker, a session in it that must not notice anything, and what attacks must not reach."""

    def __init__(self, sandbox: str, timeout: float, canary: Path):
        self.canary = canary
        canary.write_text("untouched")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        here = {"HOST": os.getpid(), "CANARY": str(canary), "PORT": self.listener.getsockname()[1]}
        self.prelude = PRELUDE + "".join(f"{name} = {value!r}\n" for name, value in here.items())
        self.runner = asyncio.Runner()
        self.others, self.running = set(processes()), running()
        self.tool = PythonTool(timeout=timeout, memory_mb=128, workers=1, preload=PRELOAD, snapshots=8, sandbox=sandbox)
        self.sibling = Session([self.tool.fork()])
        self.answers = 0
        self.runner.run(self.sibling.call("python", {"code": "answers = 0"}))
        self.processes = len(processes()) - self.states
        self.running += self.processes - len(self.others) - 1  # all but the one that states begin with

    @property
    def states(self) -> int:
        """How many the tool keeps; all other processes of the worker are few, and always the same."""
        return sum(map(len, self.tool._pool.live.values()))

    def face(self, *attacks: Calls) -> None:
        self.runner.run(self._face(attacks))

    async def _face(self, attacks: tuple[Calls, ...]) -> None:
        free = asyncio.Semaphore(3)  # of the worker's four
        await self._ask_the_sibling()
        under_way = asyncio.gather(*[self._attack(calls, free) for calls in attacks])
        while not under_way.done():
            await self._ask_the_sibling()
            await asyncio.sleep(0.005)
        await under_way
        await self._ask_the_sibling()
        assert come_down_to(self.processes + self.states)
        assert soon(lambda: running() == self.running)  # states don't
        assert self.canary.read_text() == "untouched" and [self.canary] == list(self.canary.parent.iterdir())
        with pytest.raises(BlockingIOError):
            self.listener.accept()

    async def _attack(self, calls: Calls, free: asyncio.Semaphore) -> None:
        async with free:
            session = Session([self.tool.fork()], max_output=100_000)
            try:
                for call in [*works(self.prelude), *calls, *([] if calls[-1][0] == "x" else works("x", "17"))]:
                    try:
                        observation = await session.call("python", {"code": call[0]})
                    except ReplayError as error:  # the run would be discarded
                        observation = Observation(str(error), "sandbox")
                    assert holds(call, observation.failed, observation.text), (call, observation)
                    assert "hunter2" not in observation.text
            finally:
                await session.close()

    async def _ask_the_sibling(self) -> None:
        self.answers += 1
        observation = await self.sibling.call("python", {"code": "answers += 1; answers"})
        assert observation.text == str(self.answers)

    def close(self) -> None:
        self.runner.run(self.tool.close())
        self.runner.close()
        self.listener.close()
        assert come_down_to(len(self.others))


@pytest.fixture(scope="module", params=["bubblewrap", "process"])
def arena(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "hunter2")
        arena = Arena(request.param, LONG, tmp_path_factory.mktemp("host") / "canary")
    yield arena
    arena.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(arena, name):
    arena.face(ATTACKS[name])


@pytest.mark.parametrize("sandbox", ["bubblewrap", "process"])
def test_attacks_without_an_end(sandbox, tmp_path):
    arena = Arena(sandbox, SHORT, tmp_path / "canary")
    arena.face(*ENDLESS.values())
    arena.close()


@pytest.mark.parametrize(("sandbox", "ends"), [("bubblewrap", "raised"), ("process", "answered")])
def test_names_of_host_files(sandbox, ends, tmp_path):
    """What Landlock does not cover, and `sandbox = "process"` lets through."""
    arena = Arena(sandbox, LONG, tmp_path / "canary")
    arena.face([("os.stat(CANARY).st_size", ends, r"(.|\n)*")])
    arena.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="then all of the above was run as an ordinary user")
def test_all_of_it_as_an_ordinary_user():
    """One that owns what root owns, so that it can read this Python, but has no rights beyond that."""
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000", sys.executable]
    status = "print(open('/proc/self/status').read())"
    rights = subprocess.run([*user, "-c", status], capture_output=True, text=True, check=True).stdout
    assert "Uid:\t1000" in rights and "CapEff:\t0000000000000000" in rights
    command = [*user, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-5000:]
    assert " skipped" not in done.stdout.replace("1 skipped", "")
