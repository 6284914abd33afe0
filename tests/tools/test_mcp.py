"""MCP servers as tools: real servers, in processes of their own."""

import asyncio
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firstfault.errors import UserError
from firstfault.tools import MCPTool, Observation, ReplayError, Session, mcp_connection

SERVER = Path(__file__).parent.parent / "mcp_server.py"
COMMAND = shlex.join([sys.executable, str(SERVER)])


@pytest.fixture(scope="module")
def stack() -> MCPTool:
    """The server of `mcp_server.py`; tests use forks of it."""
    return MCPTool(COMMAND)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The same server over HTTP."""
    process, url = serve()
    yield url
    process.kill()
    process.wait()


def serve(port: int | None = None) -> tuple[subprocess.Popen, str]:
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port or 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVER, "--port", str(port)])
    while True:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, f"http://127.0.0.1:{port}/mcp"
        except OSError:
            time.sleep(0.02)


def run(tool: MCPTool, *calls: tuple, timeout: float = 20.0) -> list[Observation]:
    """What a new run of these calls, (name, arguments) each, observes."""

    async def main() -> list[Observation]:
        session = Session([tool.fork()], timeout=timeout)
        try:
            return [await session.call(name, arguments) for name, arguments in calls]
        finally:
            await session.close()

    return asyncio.run(main())


def texts(observations: list[Observation]) -> list[str]:
    return [observation.text for observation in observations]


def push(number: int) -> tuple:
    return "push", {"number": number}


POP = ("pop", {})


# what a server offers


def test_functions_are_described_as_the_server_describes_them(stack):
    schemas = {schema["function"]["name"]: schema for schema in Session([stack]).schemas}
    assert list(schemas) == ["push", "pop", "roll", "draw", "crash", "hang"]
    assert schemas["push"]["type"] == "function"
    assert schemas["push"]["function"]["description"] == "Put a number on the stack."
    assert schemas["push"]["function"]["parameters"]["properties"]["number"]["type"] == "integer"
    assert schemas["push"]["function"]["parameters"]["required"] == ["number"]
    assert schemas["pop"]["function"]["parameters"]["properties"] == {}


def test_results_become_text(stack):
    observations = run(stack, push(3), push(4), POP, ("draw", {}), ("push", {"number": "x"}), POP, POP)
    assert texts(observations)[:4] == [
        "1 numbers, sum 3",
        "2 numbers, sum 7",
        "4",
        "see\n[image image/png]\n[resource file:///a.txt]\nits text\n[resource file:///b.txt]",
    ]
    assert "should be a valid integer" in texts(observations)[4]  # as the server says
    assert texts(observations)[5] == "3"
    assert "Error executing tool pop" in texts(observations)[6]
    assert [o.failed for o in observations] == [None, None, None, None, "raised", None, "raised"]


# forks


def test_forks_are_independent(stack):
    async def main() -> list[str]:
        first = Session([stack.fork()], timeout=20)
        await first.call(*push(1))
        fork = first.fork()
        await first.call(*push(2))
        await fork.ready()
        outputs = [(await session.call(*push(5))).text for session in (first, fork)]
        await fork.close()
        outputs.append((await first.call(*POP)).text)
        await first.close()
        return outputs

    assert asyncio.run(main()) == ["3 numbers, sum 8", "2 numbers, sum 6", "5"]


async def branch(tool: MCPTool, seed: int, steps: int) -> tuple[list[str], list[str]]:
    """What runs that branch off at every step of a run observe, and runs from scratch with the same calls."""
    draw = random.Random(seed)
    some = lambda n: [push(draw.randrange(100)) if draw.random() < 0.6 else POP for _ in range(n)]  # noqa: E731
    stem = some(steps)

    async def play(session: Session, calls: list[tuple]) -> list[str]:
        await session.ready()
        outputs = [(await session.call(*call)).text for call in calls]
        await session.close()
        return outputs

    trunk, branches = Session([tool.fork()], timeout=20), []
    for step, call in enumerate(stem, 1):
        await trunk.call(*call)
        branches.append((trunk.fork(), stem[:step], some(3)))
    branched, scratch = [], []
    for session, before, calls in branches:
        branched += await play(session, calls)
        scratch += (await play(Session([tool.fork()], timeout=20), before + calls))[len(before) :]
    await trunk.close()
    return branched, scratch


def test_branches_are_like_runs_from_scratch(stack):
    branched, scratch = asyncio.run(branch(stack, seed=0, steps=3))
    assert branched == scratch and len(set(branched)) > 3


@pytest.mark.parametrize("seed", range(3))
def test_branches_over_http_are_like_runs_from_scratch(url, seed):
    branched, scratch = asyncio.run(branch(MCPTool(url), seed, steps=6))
    assert branched == scratch and len(set(branched)) > 6


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_a_replay_that_differs_is_refused(stack, url, transport):
    tool = stack if transport == "stdio" else MCPTool(url)

    async def main() -> str:
        session = Session([tool.fork()], timeout=20)
        await session.call(*push(1))
        rolled = (await session.call("roll", {})).text
        fork = session.fork()
        with pytest.raises(ReplayError) as error:
            await fork.ready()
        assert rolled in str(error.value)
        assert (await session.call(*POP)).text == rolled  # the run itself goes on
        with pytest.raises(ReplayError):
            await fork.call(*POP)
        await fork.close()
        await session.close()
        return str(error.value)

    assert "roll({}) gave" in asyncio.run(main())


# calls without a result


@pytest.mark.parametrize(("name", "text", "failed"), [
    ("hang", "Error: hang: no result after 2 s", "timed out"),
    ("crash", "Error: crash: no result from its server (Connection closed)", "no result"),
])  # fmt: skip
def test_a_call_without_a_result_has_not_happened(stack, name, text, failed):
    before, lost, after, fork = run(stack, push(1), (name, {}), push(2), POP, timeout=2)
    assert before.text == "1 numbers, sum 1"
    assert (lost.text, lost.failed) == (text, failed)
    assert (after.text, fork.text) == ("2 numbers, sum 3", "2")


def test_an_http_server_that_is_started_again_is_reached_again():
    process, url = serve()

    async def main() -> list[str]:
        nonlocal process
        session = Session([MCPTool(url)], timeout=20)
        outputs = [(await session.call(*push(n))).text for n in (1, 2)]
        process.kill()
        process.wait()
        outputs.append((await session.call(*push(3))).failed)
        with pytest.raises(ReplayError, match="can't be started"):
            await session.call(*push(3))
        process, _ = serve(int(url.split(":")[2].split("/")[0]))
        outputs.append((await session.call(*push(3))).text)
        await session.close()
        return outputs

    assert asyncio.run(main()) == ["1 numbers, sum 1", "2 numbers, sum 3", "no result", "3 numbers, sum 6"]
    process.kill()
    process.wait()


# servers that are of no use

PYTHON = f"{shlex.quote(sys.executable)} -c "
NO_TOOLS = "from mcp.server import MCPServer; MCPServer('none').run()"
USELESS = {
    "no program": ("nowhere-to-be-found --x", "there is no program 'nowhere-to-be-found'"),
    "nothing": ("", "there is no program ''"),
    "an open quote": ("python 'x", "can't be read as a command (No closing quotation)"),
    "ends": ("true", "can't be started (Connection closed); check that it runs and speaks MCP."),
    "dies": (PYTHON + "'import sys; sys.exit(\"no key\")'", "(Connection closed); its last words: no key; check"),
    "hangs": ("sleep 1000", "can't be started (no answer within 0.5 s); check that it runs and speaks MCP."),
    "nonsense": ("yes hello", "can't be started (no answer within 0.5 s); check that it runs and speaks MCP."),
    "nobody there": ("http://127.0.0.1:1/mcp", "can't be started (ConnectError"),
    "no tools": (PYTHON + shlex.quote(NO_TOOLS), "has no tools; give another server."),
}


@pytest.mark.parametrize(("server", "words"), USELESS.values(), ids=USELESS)
def test_useless_servers_are_refused_in_a_sentence(server, words, monkeypatch, capfd):
    if "no answer" in words:
        monkeypatch.setattr(mcp_connection, "PATIENCE", 0.5)
    with pytest.raises(UserError) as error:
        MCPTool(server)
    sentence = str(error.value)
    assert words in sentence and "\n" not in sentence and sentence.startswith(f"the MCP server {server!r}")
    assert capfd.readouterr() == ("", "")


def test_a_missing_sdk_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(UserError) as error:
        MCPTool("cat")
    assert str(error.value) == "the MCP server 'cat' needs mcp; install it with pip install 'firstfault[mcp]'."


def test_a_server_can_be_asked_inside_of_an_event_loop():
    async def main() -> MCPTool:
        return MCPTool(COMMAND)

    assert len(asyncio.run(main()).schemas) == 6


def test_servers_see_nothing_of_this_process(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    tell = "import os, sys; sys.exit(str('SECRET' in os.environ) + str('PATH' in os.environ))"
    with pytest.raises(UserError, match="its last words: FalseTrue"):
        MCPTool(PYTHON + shlex.quote(tell))


# no process is left


@pytest.fixture
def started(tmp_path: Path) -> Callable[[], list[int]]:
    """The process ids of the servers that were started with `--log`."""
    return lambda: [int(line) for line in (tmp_path / "log").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_no_server_outlives_its_session(tmp_path, started):
    tool = MCPTool(f"{COMMAND} --log {tmp_path / 'log'}")

    async def main() -> None:
        sessions = [Session([tool.fork()], timeout=20) for _ in range(3)]
        ready, cancelled, opening = sessions
        await ready.ready()
        task = asyncio.create_task(cancelled.call("hang", {}))
        while len(started()) < 3:
            await asyncio.sleep(0.02)
        half_open = asyncio.create_task(opening.ready())
        while len(started()) < 4:
            await asyncio.sleep(0.02)
        for each in (task, half_open):
            each.cancel()
        await asyncio.gather(task, half_open, return_exceptions=True)
        assert is_alive(started()[1])
        for session in sessions:
            await session.close()

    asyncio.run(main())
    assert len(started()) == 4 and not any(map(is_alive, started()))


PROGRAM = """
import asyncio, signal, sys
from firstfault.tools import MCPTool

signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts tests in the background may have it ignored

async def main():
    tool = MCPTool(sys.argv[1])
    await tool.ready()
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere servers have to see the end of their stdin")
@pytest.mark.parametrize(("end", "manners"), [(signal.SIGKILL, "--stubborn"), (signal.SIGINT, "")])
def test_no_server_outlives_this_process(tmp_path, started, end, manners):
    command = f"{COMMAND} {manners} --log {tmp_path / 'log'}"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    assert is_alive(started()[-1])
    process.send_signal(end)
    process.communicate()
    while any(map(is_alive, started())):
        time.sleep(0.02)
