"""Who writes tokens: the protocol of engines, and the turnstile that makes their batches reproducible."""

from __future__ import annotations

import asyncio
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

    async def generate(self, tokens: list[int], sampling: Sampling, key: tuple[int, ...]) -> Completion:
        """Continue `tokens`. All randomness comes from `key`, none from the order or company of requests."""
        ...

    def load(self, weights: dict[str, Any]) -> None:
        """Take a new policy version. Must not be called while requests are under way."""
        ...


class Turnstile:
    """Lets an engine take a step only when everyone who may still ask has asked.

    Rounding depends on which sequences share a batch. If batches followed the clock, a slow tool call could change a
    token. So whoever is between two requests holds the turnstile (`enter`), and lets go (`leave`) while it waits for
    the engine; the engine waits for `quiet`. With `deterministic=False` the engine goes on without waiting: faster when
    tools are slow, and not bitwise reproducible.
    """

    def __init__(self, deterministic: bool = True):
        self.deterministic = deterministic
        self._holders = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def enter(self) -> None:
        if self._holders == 0:
            self._quiet = asyncio.Event()  # a new one: an event belongs to the event loop that first waited for it
        self._holders += 1

    def leave(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._quiet.set()

    async def quiet(self) -> None:
        await asyncio.sleep(0)
        while self.deterministic and self._holders:
            await self._quiet.wait()
            await asyncio.sleep(0)  # siblings that were started together all get to speak
