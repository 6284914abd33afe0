import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from sandboxed import LONG, SHORT, come_down_to, processes

from firstfault.errors import UserError
from firstfault.tools import Observation, PythonTool, ReplayError, Session, ToolError
from firstfault.tools.worker import check_bubblewrap

KEPT = "; variables are as they were before"
LIMIT = f"Error: stopped after {SHORT:g} s{KEPT}"
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def run(*codes: str, **options) -> list[Observation]:
    """Run pieces of code together, each in a session of its own, and see that nothing stays behind."""

    async def main():
        session = Session([PythonTool(**{"timeout": LONG, **options})])
        try:
            calls = [session.fork().call("python", {"code": textwrap.dedent(code)}) for code in codes]
            return await asyncio.gather(*calls)
        finally:
            await session.close()

    observations = asyncio.run(main())
    assert come_down_to(0)
    return observations


def test_what_is_printed_and_the_last_value():
    cases = {
        "17 + 5": "22",
        "print(1)\nprint(2)": "1\n2",
        "print('a')\n'b'": "a\n'b'",
        "x = 3": "(no output)",
        "": "(no output)",
        "x = 3\nx": "3",
        "None": "(no output)",
        "import math\nmath.sqrt(2)": "1.4142135623730951",
        "def f(n):\n    return n and n + f(n - 1)\nf(10)": "55",
        "if True:\n    5": "(no output)",
        "__name__": "'__main__'",
        "import sys; print('no', file=sys.stderr)": "no",
        "import os; os.write(1, b'raw'); None": "raw",
        "import sys; sys.stdout = None; 7": "7",
        "print('é\\ud800')": "é\\ud800",
        "import os; os.environ": "environ({})",
        "import sys; sys.exit()": "(no output)",
        "from __future__ import annotations\ndef f(x: nonsense): pass\nf(1)": "(no output)",
    }
    assert [(o.text, o.failed) for o in run(*cases)] == [(text, None) for text in cases.values()]


def test_sets_have_the_same_order_in_every_worker():
    texts = {o.text for o in run(*["{'a', 'b', 'c', 'd', 'e'}"] * 16, workers=4)}
    assert len(texts) == 1


@pytest.mark.skipif(
    sys.platform != "linux" or subprocess.run(["setarch", "-R", "true"], stderr=subprocess.DEVNULL).returncode != 0,
    reason="this system does not let programs fix their addresses",
)
def test_objects_have_the_same_addresses_in_every_worker():
    code = "class A: pass\n[object(), A(), lambda: 0, map(int, '12'), (x for x in '12')]"
    texts = {o.text for _ in range(2) for o in run(*[code] * 8, workers=4)}
    assert len(texts) == 1 and "0x" in texts.pop()


def test_errors_point_at_the_line():
    cases = {
        "x = 1\ny = x / 0": "line 2: y = x / 0\nZeroDivisionError: division by zero",
        "print('so far')\nfoo()": "so far\nline 2: foo()\nNameError: name 'foo' is not defined",
        "def f():\n    raise KeyError('k')\nf()": "line 3: f()\nline 2, in f: raise KeyError('k')\nKeyError: 'k'",
        "x = (1": "line 1: x = (1\nSyntaxError: '(' was never closed",
        "if 1:\nx": "line 2: x\nIndentationError: expected an indented block after 'if' statement on line 1",
        "import json\njson.loads('{')": "line 2: json.loads('{')\nJSONDecodeError: Expecting property name enclosed in "
        "double quotes: line 1 column 2 (char 1)",
        "assert False": "line 1: assert False\nAssertionError",
        "input()": "line 1: input()\nEOFError: EOF when reading a line",
        "def f(n):\n    return f(n + 1)\nf(0)": None,
        "import sys; sys.exit('bye')": "SystemExit: bye",
        "a\0b": None,
        "import os; os.fork()": "line 1: import os; os.fork()\nPermissionError: [Errno 1] Operation not permitted",
        "'\ud800'": None,
        "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E()": "line 3: raise E()\nE",
        "class R:\n    def __repr__(self):\n        return self.x\nR()": "line 3, in __repr__: return self.x\n"
        "AttributeError: 'R' object has no attribute 'x'",
    }
    for (code, text), observation in zip(cases.items(), run(*cases), strict=True):
        assert observation.failed == "raised", code
        assert observation.text == text or text is None, code
        assert len(observation.text) < 300, code
    recursion = run("def f(n):\n    return f(n + 1)\nf(0)")[0].text.split("\n")
    assert recursion[0] == "line 3: f(0)"
    assert recursion[1].startswith("... ") and len(recursion) == 5
    assert recursion[-1].startswith("RecursionError: maximum recursion depth exceeded")


def test_what_runs_too_long_is_killed():
    hangs = [
        "while True: pass",
        "print('working', flush=True)\nimport time; time.sleep(60)",
        "9 ** 10 ** 8",  # C code that does not look at signals
        "import re; re.match('(a+)+b', 'a' * 40)",
        """
        import signal, time
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
        """,
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ntime.sleep(60)",
        "import sys; sys.setrecursionlimit(10**9)\nwhile True:\n    try: 1 / 0\n    except BaseException: pass",
    ]
    start = time.monotonic()
    observations = run(*hangs, timeout=SHORT)
    assert time.monotonic() - start < 20
    assert [o.failed for o in observations] == ["timed out"] * len(hangs)
    assert observations[1].text == f"working\n{LIMIT}"
    assert observations[0].text == LIMIT


def test_what_breaks_its_process_is_told():
    cases = [
        ("import os; os._exit(0)", "died", f"Error: the code ended its process{KEPT}"),
        ("import os, time; os.closerange(0, 64); time.sleep(60)", "died", f"Error: the code ended its process{KEPT}"),
        ("import ctypes; ctypes.string_at(0)", "died", f"Error: the code ended its process{KEPT}"),
        ("print('a', flush=True); import os; os.abort()", "died", f"a\nError: the code ended its process{KEPT}"),
        ("import os\nos.close(1)\nprint(5)", "died", f"Error: the code ended its process{KEPT}"),
        ("(" * 1000, "raised", None),
        ("1" * 70000, "bad arguments", "Error: the code is longer than 65536 bytes"),
        ("open('/dev/full', 'w')", "raised", None),
    ]
    for (code, failed, text), observation in zip(cases, run(*[code for code, *_ in cases]), strict=True):
        assert observation.failed == failed, code
        assert observation.text == text or text is None, code


def test_floods_are_cut_off():
    flood, gigabyte, long, error = run(
        "while True: print('a' * 1000)",
        "import os\nwhile True: os.write(2, b'b' * 1000000)",
        "print('x' * 50000)",
        "print('y' * 50000)\n1 / 0",
        max_output=300,
    )
    for observation in (flood, gigabyte):
        assert observation.failed == "too much output"
        assert observation.text.endswith(f"Error: stopped, it printed more than 65536 bytes{KEPT}")
    assert long.failed is None and "characters cut]" in long.text
    assert error.failed == "raised" and error.text.endswith("ZeroDivisionError: division by zero")
    assert all(len(o.text) <= 300 for o in (flood, gigabyte, long, error))


@linux
def test_memory_is_bounded():
    bombs = ["x = 'a' * 10**9", "x = []\nwhile True: x.append('a' * 10**6)", "x = [0]\nwhile True: x += x"]
    for observation in run(*bombs, memory_mb=128):
        assert observation.failed == "raised"
        assert observation.text.endswith("MemoryError: over 128 MB")
    assert run("len('a' * 10**8)", memory_mb=128)[0].text == "100000000"


def converse(*codes: str, **options) -> list[str]:
    """What one session answers to one call after the other."""

    async def main():
        session = Session([PythonTool(**{"timeout": LONG, "workers": 1, **options})])
        try:
            return [(await session.call("python", {"code": code})).text for code in codes]
        finally:
            await session.close()

    return asyncio.run(main())


def test_a_session_is_a_notebook():
    conversation = {
        "x = 1\nimport math": "(no output)",
        "x += math.floor(2.5)\nx": "3",
        "def half(n):\n    return n / x": "(no output)",
        "x = 0": "(no output)",
        "half(3)": "line 1: half(3)\ncall 3, line 2, in half: return n / x\nZeroDivisionError: division by zero",
        "y = 5\nraise ValueError('after y')": "line 2: raise ValueError('after y')\nValueError: after y",
        "y": "5",  # what was done before an error stays
        "import inspect; print(inspect.getsource(half))": "def half(n):\n    return n / x",
        "import random; random.seed(7)": "(no output)",
        "random.random() == random.Random(7).random()": "True",
        "print = None": "(no output)",
        "import sys; sys.stdout = None": "(no output)",
        "7": "7",
        "import threading; t = threading.Thread(target=lambda: 1); t.start(); t.join(); t.is_alive()": "False",
        "import asyncio; asyncio.run(asyncio.sleep(0, 'slept'))": "'slept'",
    }
    assert converse(*conversation) == list(conversation.values())


def test_what_is_stopped_leaves_the_variables_as_they_were():
    died = f"Error: the code ended its process{KEPT}"
    calls = ["x = 1", "x = 2; import os; os._exit(0)", "x", "x = 3\nwhile True: pass", "x", "x = 4; print('a' * 10**6)"]
    said = converse(*calls, "x", timeout=SHORT)
    assert said[:5] == ["(no output)", died, "1", LIMIT, "1"] and said[6] == "1"


@linux
def test_threads_end_with_their_call():
    start = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nthreading.active_count()"
    assert converse(start, "threading.active_count()") == ["2", "1"]


def test_forks_go_their_own_ways():
    async def main():
        tool = PythonTool(timeout=LONG, workers=2)
        await tool.run("x = [0]; import random")
        forks = [tool.fork() for _ in range(8)]
        await asyncio.gather(*[fork.run(f"x.append({i})") for i, fork in enumerate(forks)])
        grandchildren = [fork.fork() for fork in forks]
        await asyncio.gather(*[fork.run("x.append(-1)") for fork in forks])
        await forks[0].close()
        told = await asyncio.gather(*[grandchild.run("x, random.random()") for grandchild in grandchildren])
        told += [await forks[1].run("x"), await tool.run("x")]
        await tool.close()
        return told

    *told, child, parent = asyncio.run(main())
    numbers = {text.rpartition(", ")[2] for text in told}
    assert [text.rpartition(", ")[0] for text in told] == [f"([0, {i}]" for i in range(8)]
    assert len(numbers) == 1  # they are equal until they differ in what they do
    assert (child, parent) == ("[0, 1, -1]", "[0]")
    assert come_down_to(0)


def test_what_two_siblings_were_told_alike_is_not_asked_again():
    async def main():
        tool = PythonTool(timeout=LONG, workers=1)
        made = lambda: tool._pool.workers[0].last_id  # noqa: E731
        await tool.run("x = [17]")
        forks = [tool.fork() for _ in range(12)]
        told = await asyncio.gather(*[fork.run("x.append(5); x") for fork in forks])
        assert set(told) == {"[17, 5]"} and made() == 1 + 2
        for fork in forks:
            with pytest.raises(ToolError, match="ZeroDivisionError"):
                await fork.run("x.append(6); 1 / 0")
        assert made() == 3 + 2
        told = await asyncio.gather(*[fork.run(f"x.append({i}); x") for i, fork in enumerate(forks)])
        assert told == [f"[17, 5, 6, {i}]" for i in range(12)] and made() == 5 + 12
        late = tool.fork()  # nobody stands there any more
        assert await late.run("x.append(5); x") == "[17, 5]" and made() == 17 + 1
        for fork in forks[:4]:
            with pytest.raises(ToolError, match="ended its process"):
                await fork.fork().run("import os; os._exit(3)")  # each from another state
            with pytest.raises(ToolError, match="ended its process"):
                await late.fork().run("import os; os._exit(3)")
        assert made() == 18 + 4 + 2
        told = [await tool.fork().run("import os; os.urandom(8)") for _ in range(5)]
        assert len(set(told)) == 5 and made() == 24 + 5
        await tool.close()

    asyncio.run(main())
    assert come_down_to(0)


def test_siblings_are_told_what_is_so_even_after_a_worker_has_died():
    async def main():
        tool = PythonTool(timeout=LONG, workers=2)
        forks = [tool.fork() for _ in range(80)]
        told = set(await asyncio.gather(*[fork.run("def f(): return 7\nf") for fork in forks]))
        assert {fork._state.worker for fork in forks} == set(tool._pool.workers)  # equal calls don't end up with one
        for pid in processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(worker.process for worker in tool._pool.workers):
            await asyncio.sleep(0.01)  # until it is noticed
        later = [tool.fork() for _ in range(4)]
        told.update(await asyncio.gather(*[fork.run("def f(): return 7\nf") for fork in later]))
        assert all(text.startswith("<function f at 0x") for text in told)
        assert await asyncio.gather(*[fork.run("f()") for fork in later]) == ["7"] * 4
        await tool.close()

    asyncio.run(main())
    assert come_down_to(0)


def test_siblings_of_a_cancelled_call_go_on():
    async def main():
        tool = PythonTool(timeout=LONG, workers=1)
        await tool.run("1")
        forks = [tool.fork() for _ in range(3)]
        tasks = [asyncio.create_task(fork.run("while True: pass")) for fork in forks]
        await asyncio.sleep(0.1)
        assert tool._pool.workers[0].last_id == 3  # the third waits for what the first two are told
        for task in tasks[:2]:
            task.cancel()
        await asyncio.gather(*tasks[:2], return_exceptions=True)
        await asyncio.sleep(0.1)
        assert tool._pool.workers[0].last_id == 4 and not tasks[2].done()
        tasks[2].cancel()
        await asyncio.gather(tasks[2], return_exceptions=True)
        assert await forks[2].run("2") == "2"
        await tool.close()

    asyncio.run(main())
    assert come_down_to(0)


def test_states_that_had_to_go_are_made_again():
    async def main():
        tool = PythonTool(timeout=LONG, workers=1, snapshots=8)
        await tool.run("x = 0")
        forks = [tool.fork() for _ in range(20)]
        for i, fork in enumerate(forks):
            for _ in range(3):
                await fork.run(f"x += {i}")
        if sys.platform == "linux":
            assert come_down_to(3 + 8)  # the states, bubblewrap, its supervisor, the first interpreter
        told = await asyncio.gather(*[fork.run("x") for fork in forks])
        for pid in processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        told += await asyncio.gather(*[fork.run("x") for fork in forks])
        await tool.close()
        return told

    assert asyncio.run(main()) == [str(3 * i) for i in range(20)] * 2
    assert come_down_to(0)


def test_a_state_that_can_not_be_made_again_is_not_used():
    async def main():
        tool = PythonTool(timeout=LONG, workers=1, snapshots=8)
        fresh = tool.fork()
        await tool.run("import time; now = time.time_ns(); now")
        kept = tool.fork()
        for i in range(8):
            await fresh.fork().run(f"{i}")  # now there is no room for the state of `kept`
        try:
            with pytest.raises(ReplayError, match=r"when it was made again"):
                await kept.ready()
            with pytest.raises(ReplayError):
                await Session([kept]).call("python", {"code": "now"})
        finally:
            await tool.close()

    asyncio.run(main())


def test_a_state_whose_processes_end_by_themselves_can_not_be_brought_back():
    async def main():
        ends = f"lambda: time.time() > {time.time() + 1} and os._exit(1)"
        tool = PythonTool(timeout=LONG, workers=1, snapshots=8)
        kept, fresh = tool.fork(), tool.fork()
        await kept.run(f"import os, time; os.register_at_fork(after_in_child={ends})")
        await kept.run("now = 1")
        for i in range(8):
            await fresh.fork().run(f"{i}")  # now there is no room for the states of `kept`
        await asyncio.sleep(1)
        try:
            with pytest.raises(ReplayError, match="the interpreter is gone"):
                await kept.ready()
        finally:
            await tool.close()

    asyncio.run(main())


@linux
def test_memory_of_states_is_bounded():
    async def main():
        tool = PythonTool(timeout=LONG, workers=1, snapshot_mb=64)
        forks = [tool.fork() for _ in range(20)]
        for i, fork in enumerate(forks):
            await fork.run(f"x = bytearray(b'1') * (5 << 20); {i}")
        assert come_down_to(3 + 64 // 5)
        told = [await fork.run("len(x) >> 20") for fork in forks]
        await tool.close()
        return told

    assert asyncio.run(main()) == ["5"] * 20


def test_packages_are_there_before_they_are_asked_for():
    assert converse("import sys; 'sympy' in sys.modules", preload=["math"]) == ["False"]
    seen = "import sys; 'sympy' in sys.modules and 'numpy' in sys.modules"
    root = "import sympy; sympy.sqrt(8)", "import numpy; numpy.ones(3).sum()", "numpy.random.random()"
    first, second = (converse(seen, *root, preload=["sympy", "numpy"]) for _ in range(2))
    assert first[:3] == ["True", "2*sqrt(2)", "np.float64(3.0)"] and first == second
    with pytest.raises(UserError, match=r"No module named 'nonsense'"):
        converse("1", preload=["nonsense"])


def test_many_calls_at_once_each_get_their_own_answer():
    observations = run(*[f"{n} * {n}" for n in range(200)])
    assert [o.text for o in observations] == [str(n * n) for n in range(200)]


def test_bad_calls_leave_the_others_unharmed():
    bad = ["while True: pass", "import os; os._exit(1)", "print('a' * 10**6)", "import os; os.kill(os.getpid(), 11)"]
    observations = run(*(bad + [f"{n}" for n in range(20)]), timeout=SHORT, workers=1)
    assert [o.text for o in observations[4:]] == [str(n) for n in range(20)]


@linux
@pytest.mark.parametrize("sandbox", ["bubblewrap", "process"])
def test_isolation(tmp_path, monkeypatch, sandbox):
    monkeypatch.setenv("SECRET", "hunter2")
    kept, doomed = tmp_path / "kept", tmp_path / "doomed"
    kept.write_text("mine")
    doomed.touch()
    listener = socket.create_server(("127.0.0.1", 0))
    me, port = os.getpid(), listener.getsockname()[1]
    attempts = {
        "network": f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=1)",
        "processes": f"import os; os.kill({me}, 0)",
        "files": f"open({str(kept)!r}, 'w').write('yours')",
    }
    more = [
        f"open({str(kept)!r}).read()",
        f"import os; os.remove({str(doomed)!r})",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.chmod({str(kept)!r}, 0o777)",
        f"open('/proc/{me}/environ').read()",
        "open('/etc/passwd').read()",
    ]

    async def main():
        tool = PythonTool(timeout=LONG, sandbox=sandbox)
        session = Session([tool])
        assert tool.isolation is None
        observations = [await session.call("python", {"code": code}) for code in [*attempts.values(), *more]]
        await session.close()
        return tool.isolation, observations

    isolation, observations = asyncio.run(main())
    listener.close()
    assert set(isolation) == set(attempts)
    if sandbox == "bubblewrap":
        assert all(isolation.values())
    for name, observation in zip(attempts, observations, strict=False):
        assert observation.failed == "raised" or not isolation[name], name
    if isolation["files"]:
        assert kept.read_text() == "mine" and os.listdir(tmp_path) and doomed.exists()
        assert [o.failed for o in observations[3:]] == ["raised"] * len(more)
    assert come_down_to(0)


def test_without_isolation_there_is_one_sentence(monkeypatch):
    check_bubblewrap.cache_clear()
    monkeypatch.setattr("shutil.which", lambda _: "/nowhere/bwrap")
    with pytest.raises(UserError, match=r"install bubblewrap and allow user namespaces, or accept .*--sandbox=process"):
        PythonTool(sandbox="bubblewrap")
    monkeypatch.setenv("FIRSTFAULT_SANDBOX", "process")
    PythonTool()
    with pytest.raises(UserError, match="there is no sandbox 'docker'; choose bubblewrap or process"):
        PythonTool(sandbox="docker")


def test_one_tool_serves_several_event_loops():
    tool = PythonTool(timeout=LONG)

    async def some():
        return await asyncio.gather(*[tool.run(f"{n}") for n in range(10)])

    async def leave_one_behind():
        hanging = asyncio.create_task(tool.run("while True: pass"))
        await tool.run("1")
        return hanging  # asyncio.run cancels it

    for _ in range(3):
        assert asyncio.run(some()) == [str(n) for n in range(10)]
        asyncio.run(leave_one_behind())
    asyncio.run(tool.close())
    assert come_down_to(0)
    assert asyncio.run(some()) == [str(n) for n in range(10)]  # a closed tool starts again
    asyncio.run(tool.close())
    assert come_down_to(0)


@linux
def test_a_cancelled_call_is_killed():
    async def main():
        tool = PythonTool(timeout=LONG, workers=1)
        assert await tool.run("1") == "1"
        before = len(processes())
        task = asyncio.create_task(tool.run("while True: pass"))
        await asyncio.sleep(0)  # it is sent first: the state that both go on from ends with the second call
        assert await tool.run("1") == "1"  # by now the other one is running
        assert come_down_to(before + 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert come_down_to(before)
        await tool.close()

    asyncio.run(main())
    assert come_down_to(0)


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_dies_is_replaced(number):
    async def main():
        tool = PythonTool(timeout=LONG, workers=1)
        session = Session([tool])
        await session.call("python", {"code": "1"})
        waiting = asyncio.create_task(session.call("python", {"code": "import time; time.sleep(0.3); x = 22"}))
        await asyncio.sleep(0.1)
        # all at once; or the first, with which the others end: if asked to end, that of the call might be quicker
        for pid in processes() if number == signal.SIGKILL else [tool._pool.workers[0].process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        observations = [await waiting, *[await session.call("python", {"code": "x"}) for _ in range(2)]]
        await session.close()
        return observations

    for observation, text in zip(asyncio.run(main()), ["(no output)", "22", "22"], strict=True):
        assert (observation.text, observation.failed) == (text, None)
    assert come_down_to(0)


@linux
def test_workers_end_with_the_program_that_started_them():
    program = f"""
    import asyncio, os, signal
    from firstfault.tools import PythonTool

    async def main():
        tool = PythonTool(timeout={LONG})
        hanging = [asyncio.create_task(tool.run("while True: pass")) for _ in range(4)]
        await tool.run("1")
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert come_down_to(0)


def test_a_python_named_by_a_path_with_dots_is_found():
    python = Path(sys.executable)
    roundabout = python.parent / ".." / python.parent.name / python.name
    code = "import asyncio\nfrom firstfault.tools import PythonTool\ntool = PythonTool()\nasync def main():\n"
    code += "    print(await tool.run('6 * 7'))\n    await tool.close()\nasyncio.run(main())"
    done = subprocess.run([roundabout, "-c", code], capture_output=True, text=True)
    assert done.stdout == "42\n", done.stderr
