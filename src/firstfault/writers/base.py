"""What writes an agent's next message, and keeps on disk what it wrote: nothing is asked for twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from firstfault.errors import UserError
from firstfault.files import cache_folder, saving, try_folder, write_whole
from firstfault.text import encodable
from firstfault.tools.arguments import Schema

Message = dict[str, Any]  # in OpenAI's form


class Refused(Exception):
    """The model takes no such messages, such as calls with broken arguments, or too many tokens."""


@dataclass
class Spent:
    """What was paid for, and how many completions were known already."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    known: int = 0


def in_words(spent: Sequence[Spent], money: Callable[[int, int], str] = lambda read, written: "") -> str:
    """A sentence about what several have spent; `money` says what so many tokens cost."""
    read, written = sum(s.prompt_tokens for s in spent), sum(s.completion_tokens for s in spent)
    return (
        f"paid for {sum(s.calls for s in spent):,} calls: {read:,} tokens read, {written:,} written"
        f"{money(read, written)}; {sum(s.known for s in spent):,} were known."
    )


class Writer(Protocol):
    """What writes the agent's next message."""

    async def complete(self, messages: Sequence[Message], tools: Sequence[Schema], sample: Sequence[int]) -> Message:
        """The next message of the assistant; equal questions with equal `sample` numbers have equal answers."""
        ...

    async def close(self) -> None:
        """Called at the end of each search."""
        ...


class KeptWriter(ABC):
    """A model that writes messages. The same question with the same `sample` number has the same answer, from disk.

    Other numbers are other draws. Two models must not have one name, or must have caches of their own.

    Raises:
        UserError: if the cache can't be written.
    """

    def __init__(self, model: str, temperature: float, max_tokens: int, cache: Path | None):
        self.model, self.temperature, self.max_tokens = model, temperature, max_tokens
        self.cache = cache or cache_folder() / "completions"
        try:
            try_folder(self.cache)
        except OSError as error:
            raise UserError(
                f"the cache {self.cache} can't be written ({error.strerror}); name another folder."
            ) from error
        self.spent = Spent()
        self._asked: dict[str, asyncio.Task[Message]] = {}

    async def complete(self, messages: Sequence[Message], tools: Sequence[Schema], sample: Sequence[int]) -> Message:
        """The next message of the assistant, with "content" and "tool_calls"; "cut" if it was cut off at its limit, and
        how many "tokens" it has, where that is known. `plain` leaves the latter two out.

        Raises:
            UserError: if the model can't be asked, or gives no message.
            Refused: if it does not take these messages.
        """
        request = {"model": self.model, "messages": list(messages), "temperature": self.temperature}
        request |= {"max_tokens": self.max_tokens} if self.max_tokens else {}
        request |= {"tools": list(tools)} if tools else {}
        question = json.dumps([request, list(sample)], sort_keys=True).encode()
        name = hashlib.sha256(question).hexdigest()
        known = self.cache / f"{name}.json"
        if known.exists():
            self.spent.known += 1
            return json.loads(known.read_text(encoding="utf-8"))
        if name not in self._asked:  # who asks the same at the same time waits for the one answer
            self._asked[name] = asyncio.ensure_future(self._kept(request, known))
            self._asked[name].add_done_callback(lambda task: self._answered(name))
        return dict(await asyncio.shield(self._asked[name]))

    def _answered(self, name: str) -> None:
        task = self._asked.pop(name)
        if not task.cancelled():
            task.exception()  # who asked may have gone, and asyncio prints failures that nobody has looked at

    async def _kept(self, request: dict[str, Any], known: Path) -> Message:
        message = await self.write(request, seed=int(known.stem[:16], 16))
        with saving(self.cache):
            write_whole(known, json.dumps(message))
        return message

    @abstractmethod
    async def write(self, request: dict[str, Any], seed: int) -> Message:
        """Answer a request in OpenAI's form; `seed` is of this question and sample alone."""

    async def close(self) -> None:
        """Called at the end of each search."""
        return None


def plain(message: Message) -> Message:
    """What of an assistant's message goes back to a model: its role, content and calls, which all have an id.

    Servers are a little off OpenAI's form each in their way; content and arguments are texts from here on.

    >>> plain({"role": "assistant", "content": [{"type": "text", "text": "Hi"}], "tool_calls": [], "refusal": None})
    {'role': 'assistant', 'content': 'Hi'}
    >>> plain({"tool_calls": [{"function": {"name": "add", "arguments": {"x": 1}}}]})["tool_calls"]
    [{'id': 'call_0', 'type': 'function', 'function': {'name': 'add', 'arguments': '{"x": 1}'}}]
    """
    calls = [
        {"id": encodable(str(call.get("id") or f"call_{number}")), "type": "function", "function": _function(function)}
        for number, call in enumerate(message.get("tool_calls") or ())
        if (function := call.get("function")) is not None
    ]
    content = message.get("content") or ""
    parts = content if isinstance(content, list) else [content]
    text = "".join(part if isinstance(part, str) else part.get("text") or "" for part in parts)
    return {"role": "assistant", "content": encodable(text)} | ({"tool_calls": calls} if calls else {})


def _function(function: dict[str, Any]) -> dict[str, str]:
    name, arguments = function.get("name"), function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"name": encodable(name) if isinstance(name, str) else "", "arguments": encodable(text)}
