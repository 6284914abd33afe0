"""An engine that reads its turns from a script, and insists on what an engine may expect of those who ask it."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from firstfault.engines.base import Completion, Hold, Sampling, Turnstile

Key = tuple[int, ...]


def call(name: str, **arguments: Any) -> str:
    """A tool call as Qwen writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@dataclass
class _Request:
    key: Key
    tokens: list[int]
    sampling: Sampling
    to_say: list[int]
    due: int
    future: asyncio.Future[Completion]
    completion: Completion = field(default_factory=Completion)


class Scripted:
    """Says `script(key)` to a request, up to a stop token, a stop string or the limit, and ends the turn after it.

    Like any engine it writes one token of each of its requests in a pass, and lets others join between passes; and the
    company shows in the log-probabilities, as rounding would show it. `passes` has the keys of each pass, `joined` of
    those who joined together, `asked` the tokens of each request. `watch` is called before each pass.
    """

    def __init__(
        self,
        tokenizer: Any,
        script: Callable[[Key], str],
        *,
        deterministic: bool = True,
        overlap: int = 0,
        watch: Callable[[], None] = lambda: None,
    ):
        self.turnstile = Turnstile(deterministic, overlap)
        self.passes: list[list[Key]] = []
        self.joined: list[list[Key]] = []
        self.asked: dict[Key, list[int]] = {}
        self._tokenizer = tokenizer
        self._script = script
        self._watch = watch
        self._written: dict[Key, list[int]] = {}
        self._waiting: list[_Request] = []
        self._active: list[_Request] = []
        self._serving: asyncio.Task[None] | None = None

    def load(self, weights: dict[str, Any]) -> None:
        assert not self._waiting and not self._active

    async def generate(self, tokens: list[int], sampling: Sampling, key: Key, hold: Hold) -> Completion:
        assert tokens and sampling.max_new_tokens >= 1
        assert key not in self.asked, "the same randomness was asked for twice"
        self.asked[key] = list(tokens)
        self._check_history(tokens, key)
        to_say = [*self._tokenizer.encode(self._script(key), add_special_tokens=False), self._tokenizer.eos_token_id]
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(key, tokens, sampling, to_say, hold.due, future))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        with hold.asking():
            return await future

    def _check_history(self, tokens: list[int], key: Key) -> None:
        """The tokens of a step begin with all that was asked and written on the way to it."""
        *tree, rollout, step = key
        if step == 0:
            return
        before = (*tree, rollout, step - 1)
        if before in self._written:
            histories = [self._written[before]]
        else:  # the first step of a branch goes on from somebody else's
            histories = [w for k, w in self._written.items() if k[:-2] == tuple(tree) and k[-1] == step - 1]
        assert any(tokens[: len(history)] == history and len(tokens) > len(history) for history in histories)

    async def _serve(self) -> None:
        try:
            while self._waiting or self._active:
                await self.turnstile.quiet()
                self._watch()
                self._pass()
                self.turnstile.passes += 1
        except Exception as error:  # whoever waits must hear of it
            for request in self._waiting + self._active:
                if not request.future.done():
                    request.future.set_exception(error)
            self._waiting, self._active = [], []

    def _pass(self) -> None:
        joining = [request for request in self._waiting if self.turnstile.admits(request.due)]
        if joining:
            joining.sort(key=lambda request: request.key)
            self.joined.append([request.key for request in joining])
            self._active += joining
            self._waiting = [request for request in self._waiting if not self.turnstile.admits(request.due)]
        if not self._active:
            return
        self.passes.append([request.key for request in self._active])
        logprob = -(1 + zlib.crc32(repr(self.passes[-1]).encode()) % 1000) / 1000
        for request in self._active:
            self._write(request, logprob)
        self._active = [request for request in self._active if not request.future.done()]

    def _write(self, request: _Request, logprob: float) -> None:
        done = request.completion
        done.tokens.append(request.to_say[len(done.tokens)])
        done.logprobs.append(logprob)
        done.entropies.append(-logprob)
        text = self._tokenizer.decode(done.tokens)
        stops = done.tokens[-1] in request.sampling.stop_tokens
        if stops or any(stop in text for stop in request.sampling.stop_strings):
            done.stop_reason = "stop"
        if request.future.done():  # nobody waits any more
            return
        if done.stop_reason == "stop" or len(done.tokens) == request.sampling.max_new_tokens:
            self._written[request.key] = request.tokens + done.tokens
            request.future.set_result(done)
