"""Chat completions of an OpenAI-compatible server, each paid for once: what came back is kept on disk."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstfault.cache import cache_folder
from firstfault.errors import UserError
from firstfault.tools.arguments import Schema

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

Message = dict[str, Any]  # in OpenAI's form


@dataclass
class Spent:
    """What was paid for, and how many completions were known already."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    known: int = 0


class Endpoint:
    """A model behind an OpenAI-compatible server, such as vLLM, llama.cpp, Ollama or a provider's.

    The same question with the same `sample` number gives the same completion from disk, whatever server it came from;
    other numbers are other draws.

    Args:
        url: of the API, such as http://localhost:8000/v1; by default the `openai` package's own.
        model: its name there.
        temperature: of sampling.
        max_tokens: most tokens of one message.
        parallel: most requests at a time.
        cache: the folder of what came back; by default in the user's cache.
        timeout: seconds of a request, which is tried `retries` more times.

    Raises:
        UserError: if the package `openai` is missing.
    """

    def __init__(
        self,
        model: str,
        url: str | None = None,
        *,
        temperature: float = 1.0,
        max_tokens: int = 2048,
        parallel: int = 8,
        cache: Path | None = None,
        timeout: float = 300.0,
        retries: int = 2,
    ):
        if importlib.util.find_spec("openai") is None:
            raise UserError("an endpoint needs openai; install it with pip install 'firstfault[locate]'.")
        self.url, self.parallel, self.timeout, self.retries = url, parallel, timeout, retries
        self.model, self.temperature, self.max_tokens = model, temperature, max_tokens
        self.cache = cache or cache_folder() / "completions"
        self.spent = Spent()
        self._client: AsyncOpenAI | None = None  # of the event loop that runs

    async def complete(self, messages: Sequence[Message], tools: Sequence[Schema], sample: Sequence[int]) -> Message:
        """The next message of the assistant, with "content" and "tool_calls" where it has some.

        Raises:
            UserError: if the server can't be reached, refuses, or gives no message.
        """
        request = {"model": self.model, "messages": list(messages), "temperature": self.temperature,
                   "max_tokens": self.max_tokens} | ({"tools": list(tools)} if tools else {})  # fmt: skip
        known = self.cache / f"{_digest([request, list(sample)])}.json"
        if known.exists():
            self.spent.known += 1
            return json.loads(known.read_text(encoding="utf-8"))
        answer = await self._ask(request)
        self.spent.calls += 1
        if answer.usage is not None:
            self.spent.prompt_tokens += answer.usage.prompt_tokens
            self.spent.completion_tokens += answer.usage.completion_tokens
        if not answer.choices:
            raise UserError(f"the endpoint {self._client.base_url} gave a completion without a message.")
        message = plain(answer.choices[0].message.model_dump(exclude_none=True))
        _write(known, json.dumps(message, ensure_ascii=False))
        return message

    async def _ask(self, request: dict[str, Any]) -> ChatCompletion:
        import openai

        if self._client is None:
            key = os.environ.get("OPENAI_API_KEY", "none")
            self._client = openai.AsyncOpenAI(
                base_url=self.url, api_key=key, timeout=self.timeout, max_retries=self.retries
            )
            self._turns = asyncio.Semaphore(self.parallel)
        async with self._turns:
            try:
                return await self._client.chat.completions.create(**request)
            except openai.OpenAIError as error:
                reason = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
                raise UserError(
                    f"the endpoint {self._client.base_url} does not answer for model {self.model!r} ({reason}); what "
                    "came back so far is kept, so give the same command again when it does."
                ) from error

    async def close(self) -> None:
        """Close what is open of this event loop."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def plain(message: Message) -> Message:
    """What of an assistant's message goes back to a server: its role, content and calls.

    >>> plain({"role": "assistant", "content": "Hi", "tool_calls": [], "refusal": None, "audio": None})
    {'role': 'assistant', 'content': 'Hi'}
    """
    calls = {"tool_calls": message["tool_calls"]} if message.get("tool_calls") else {}
    return {"role": "assistant", "content": message.get("content") or "", **calls}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    """So that the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
