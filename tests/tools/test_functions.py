"""Functions and objects of the user's own as tools; `test_base.py` has what all tools share."""

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from firstfault.errors import UserError
from firstfault.tools import FunctionTool, ObjectTool, ReplayError, Session
from firstfault.tools.own import tools_from


class Shelf:
    """Nested state, methods of all kinds."""

    def __init__(self):
        self.boxes: dict[str, list[int]] = {"a": [], "b": []}

    @property
    def full(self) -> bool:
        """No function: a property."""
        raise RuntimeError("a property was run")

    def put(self, box: str, number: int) -> dict:
        """Put a number into a box.

        Args:
            box: which
            number: what
        """
        self.boxes[box].append(number)
        if number == 13:
            raise ValueError("13 is in it, though")
        return self.boxes

    async def take(self, box: str) -> int:
        """Take the last number.

        Args:
            box: which
        """
        return self.boxes[box].pop()

    @staticmethod
    def double(number: int) -> int:
        """Needs no state.

        Args:
            number: what
        """
        return 2 * number

    def hang(self) -> str:
        """Put 1000 into a, hang, and put another."""
        self.boxes["a"].append(1000)
        threading.Event().wait(0.5)
        self.boxes["a"].append(1000)
        return ""

    async def linger(self) -> str:
        """Put 1000 into a, and don't let go when it takes too long."""
        self.boxes["a"].append(1000)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
        return ""

    def helper(self) -> None:
        self.boxes.clear()

    def _hidden(self) -> None:
        """Not public."""


def some_calls(draw: random.Random, n: int) -> list[tuple[str, dict]]:
    put = lambda: ("put", {"box": draw.choice("abc"), "number": draw.randrange(14)})  # noqa: E731
    take = lambda: ("take", {"box": draw.choice("ab")})  # noqa: E731
    return [draw.choice([put, put, take])() for _ in range(n)]


def test_public_methods_with_a_docstring_are_its_functions():
    assert list(Session([ObjectTool(Shelf())]).functions) == ["put", "take", "double", "hang", "linger"]


def test_branches_are_like_runs_from_scratch():
    async def play(session: Session, calls: list[tuple[str, dict]]) -> list[str]:
        return [(await session.call(*call)).text for call in calls]

    async def main() -> int:
        seen = set()
        for seed in range(100):
            draw = random.Random(seed)
            stem, trunk = some_calls(draw, 6), Session([ObjectTool(Shelf())], timeout=60)
            branches = []
            for step, call in enumerate(stem, 1):
                await trunk.call(*call)
                branches.append((trunk.fork(), stem[:step], some_calls(draw, 4)))
            draw.shuffle(branches)
            for session, before, calls in branches:
                scratch = await play(Session([ObjectTool(Shelf())], timeout=60), before + calls)
                branched = await play(session, calls)
                assert branched == scratch[len(before) :]
                seen.update(branched)
        return len(seen)

    assert asyncio.run(main()) > 100


@pytest.mark.parametrize("slow", ["hang", "linger"])
def test_a_call_that_takes_too_long_has_not_happened(slow):
    async def main() -> list[str]:
        session = Session([ObjectTool(Shelf())], timeout=0.1)
        outputs = [await session.call("put", {"box": "a", "number": 1}), await session.call(slow, {})]
        session.timeout = 60.0
        outputs.append(await session.call("put", {"box": "a", "number": 2}))
        await asyncio.sleep(0.6)  # the slow one has come to its end, too late
        outputs += [await each.call("put", {"box": "b", "number": 3}) for each in (session.fork(), session)]
        return [output.text for output in outputs]

    assert asyncio.run(main()) == [
        "{'a': [1], 'b': []}",
        f"Error: {slow}: no result after 0.1 s",
        "{'a': [1, 2], 'b': []}",
        "{'a': [1, 2], 'b': [3]}",
        "{'a': [1, 2], 'b': [3]}",
    ]


class Sealed:
    """Can be copied until it is sealed, and never closed."""

    lock = None

    def seal(self) -> str:
        """Seal the box."""
        self.lock = threading.Lock()
        return "sealed"

    def close(self) -> None:
        raise RuntimeError("jammed")


def test_a_state_that_can_not_be_copied_ends_the_run_that_came_to_it_alone(caplog):
    async def main() -> tuple[str, str]:
        session = Session([ObjectTool(Sealed())])
        sealed = (await session.call("seal", {})).text
        with pytest.raises(ReplayError, match="Sealed can't be copied"):
            session.fork()
        again = (await session.call("seal", {})).text
        await session.close()
        return sealed, again

    sealed, again = asyncio.run(main())
    assert sealed == "sealed" and "Sealed can't be copied" in again
    assert "Sealed could not be closed: RuntimeError: jammed" in caplog.text


class Counted:
    """Counts its copies, which it makes itself."""

    alive: int

    def __init__(self, alive: list[int], value: int = 0):
        self.value = value
        self.count = alive
        self.count[0] += 1

    def up(self) -> int:
        """Count."""
        self.value += 1
        return self.value

    def fork(self) -> "Counted":
        """Not a function of the tool."""
        return Counted(self.count, self.value)

    def close(self) -> None:
        """Nor is this."""
        self.count[0] -= 1


class CountedAsync(Counted):
    def fork(self) -> "CountedAsync":
        return CountedAsync(self.count, self.value)

    async def close(self) -> None:
        self.count[0] -= 1


@pytest.mark.parametrize("cls", [Counted, CountedAsync])
def test_an_object_may_fork_and_close_itself(cls):
    async def main() -> tuple[list[str], list[int]]:
        alive = [0]
        first = Session([ObjectTool(cls(alive))])
        assert list(first.functions) == ["up"]
        await first.call("up", {})
        fork = first.fork()
        outputs = [(await each.call("up", {})).text for each in (first, first, fork)]
        await fork.close()
        await first.close()
        return outputs, alive

    assert asyncio.run(main()) == (["2", "3", "2"], [0])


class Locked:
    def __init__(self):
        self.lock = threading.Lock()

    def up(self) -> int:
        """Count."""
        return 1


class Lost(Locked):
    def fork(self) -> None:
        return None


class Empty:
    def up(self) -> int:
        return 1


class Unhinted:
    def up(self, by) -> int:
        """Count.

        Args:
            by: how much
        """
        return by


def bare(number: int) -> int:
    return number


def untold(number: int) -> int:
    """Say a number."""
    return number


def unknown(number: "Number") -> int:  # noqa: F821
    """Say a number.

    Args:
        number: it
    """
    return number


def several(*numbers: int) -> int:
    """Add numbers.

    Args:
        numbers: them
    """
    return sum(numbers)


def choosy(unit: str) -> str:
    """Choose.

    Args:
        unit: one of two (choices: [celsius, fahrenheit])
    """
    return unit


@pytest.mark.parametrize(("make", "words"), [
    (lambda: ObjectTool(Locked()), "the tool object Locked can't be copied (TypeError: cannot pickle '_thread.lock'"),
    (lambda: ObjectTool(Lost()), "the tool object Lost has a method fork() that returned NoneType"),
    (lambda: ObjectTool(Empty()), "the tool object Empty has no public method with a docstring"),
    (lambda: ObjectTool(Unhinted()), "Unhinted.up can't be a tool: Argument by is missing a type hint"),
    (lambda: FunctionTool(bare), "bare can't be a tool: Cannot generate JSON schema for bare because it has no docstr"),
    (lambda: FunctionTool(untold), "untold can't be a tool: Cannot generate JSON schema for untold because the docst"),
    (lambda: FunctionTool(unknown), "unknown can't be a tool: name 'Number' is not defined"),
    (lambda: FunctionTool(choosy), "choosy can't be a tool: the choices [celsius, fahrenheit] in its docstring are"),
    (lambda: FunctionTool(several), "several can't be a tool: it has arguments that can't be given by name"),
])  # fmt: skip
def test_what_is_missing_is_said_in_a_sentence(make, words):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


# from a file

TOOLS = '''
from math import sqrt
from firstfault.tools import FunctionTool


def add(a: int, b: int) -> int:
    """Add.

    Args:
        a: first
        b: second
    """
    return helper(a, b)


async def wait() -> str:
    """Wait."""
    return "waited"


def helper(a, b):
    return a + b


def _private() -> str:
    """Private."""


class Counter:
    def __init__(self):
        self.n = 0

    def up(self) -> int:
        """Count."""
        self.n += 1
        return self.n


class Picky:
    def __init__(self, size):
        self.size = size


class Own(FunctionTool):
    def __init__(self):
        super().__init__(add)
'''


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`write(text)`: that is what is in `mine.py`."""
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / "mine.py").write_text(text) and None


@pytest.mark.parametrize(("name", "functions"), [
    ("mine.py", ["add", "wait"]), ("mine.py:Counter", ["up"]), ("./mine.py:Own", ["add"]),
])  # fmt: skip
def test_a_file_has_tools(write, name, functions):
    write(TOOLS)
    session = Session(tools_from(name))
    assert list(session.functions) == functions
    expected = {"add": ({"a": 1, "b": 2}, "3"), "up": ({}, "1")}[functions[0]]
    assert asyncio.run(session.call(functions[0], expected[0])).text == expected[1]


@pytest.mark.parametrize(("text", "name", "sentence"), [
    (TOOLS, "mine.py:Nobody", "mine.py:Nobody: mine.py has no class 'Nobody'."),
    (TOOLS, "mine.py:add", "mine.py:add: mine.py has no class 'add'."),
    (TOOLS, "other.py", "other.py: there is no Python file 'other.py'; write path/to/file.py."),
    (TOOLS, "mine.py:Picky", "mine.py:Picky: Picky() fails with TypeError: Picky.__init__() missing 1 required "
                             "positional argument: 'size'; it must work without arguments."),
    ("x = 1", "mine.py", "mine.py defines no public function with a docstring, so it has no tools; write one."),
    ("x = 1 / 0", "mine.py", "mine.py: line 1 of mine.py fails with ZeroDivisionError: division by zero."),
])  # fmt: skip
def test_a_file_without_tools_is_refused(write, text, name, sentence):
    write(text)
    with pytest.raises(UserError) as error:
        tools_from(name)
    assert str(error.value) == sentence
