"""Who writes tokens: the protocol of engines, and the turnstile that makes their batches reproducible."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 takes the likeliest token."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop_tokens: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()


@dataclass
class Completion:
    """What an engine wrote.

    `logprobs` and `entropies` are nats under the whole vocabulary at the sampling temperature (1 where it is 0),
    before top-p. `stop_reason` is "stop" (a stop token or string, which is kept) or "length".
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    stop_reason: str = "length"


class Engine(Protocol):
    turnstile: Turnstile

    async def generate(
        self, tokens: list[int], sampling: Sampling, key: tuple[int, ...], hold: Hold | None = None
    ) -> Completion:
        """Continue `tokens`. All randomness comes from `key`, none from the order or company of requests.

        Whoever wants the company to be the same each time asks with his `hold`, and `hold.asking` while he waits.
        """
        ...

    def load(self, weights: dict[str, Any]) -> None:
        """Take a new policy version. Must not be called while requests are under way."""
        ...


class Turnstile:
    """Says who takes part in each pass of an engine, so that it does not follow from how long tools take.

    Rounding depends on which sequences share a batch. If batches followed the clock, a slow tool call could change a
    token. So whoever may still ask has a `Hold`. Whoever is answered by one pass is due again after `overlap` more:
    tools run while the engine takes these, then it waits for him, and if he is early, he waits for it.

    With `deterministic=False` nobody waits: faster when tools are slow, and not bitwise reproducible.
    """

    def __init__(self, deterministic: bool = True, overlap: int = 0):
        self.deterministic = deterministic
        self.overlap = overlap
        self.passes = 0  # that the engine has taken
        self.awake: Counter[int] = Counter()  # holds that the engine will wait for, by the pass that they are due at
        self._fewer = asyncio.Event()

    def hold(self) -> Hold:
        return Hold(self, self.passes)

    def admits(self, due: int) -> bool:
        """Whether who is due at that pass may take part in the next one."""
        return due <= self.passes or not self.deterministic

    def count(self, due: int, change: int) -> None:
        self.awake[due] += change
        if not self.awake[due]:
            del self.awake[due]
            self._fewer.set()

    async def quiet(self) -> None:
        """Wait for all that are due."""
        await asyncio.sleep(0)  # those that the last pass answered hear of it
        while self.deterministic and any(due <= self.passes for due in self.awake):
            self._fewer = asyncio.Event()  # an event belongs to one event loop; the turnstile may outlive it
            await self._fewer.wait()


class Hold:
    """One who may ask the engine. It sleeps while he waits for the answer, and while holds forked from it are open."""

    def __init__(self, turnstile: Turnstile, due: int, parent: Hold | None = None):
        self.due = due
        self._turnstile = turnstile
        self._parent = parent
        self._asleep = 0
        self._open = True
        turnstile.count(due, 1)

    def _sleep(self) -> None:
        if not self._asleep:
            self._turnstile.count(self.due, -1)
        self._asleep += 1

    def _wake(self, due: int) -> None:
        self.due = max(self.due, due)
        self._asleep -= 1
        if not self._asleep:
            self._turnstile.count(self.due, 1)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """For an engine, around its waiting for an answer."""
        self._sleep()
        try:
            yield
        finally:
            self._wake(self._turnstile.passes + self._turnstile.overlap)

    def fork(self) -> Hold:
        """For somebody that the holder waits for; when the last of them has closed his, the holder is due as he was."""
        self._sleep()
        return Hold(self._turnstile, self.due, self)

    def close(self) -> None:
        """He will not ask again. A second call does nothing."""
        if not self._open:
            return
        self._open = False
        self._sleep()
        if self._parent is not None:
            self._parent._wake(self.due)
