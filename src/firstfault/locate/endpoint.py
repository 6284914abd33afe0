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

from firstfault.cache import cache_folder, write_whole
from firstfault.errors import UserError
from firstfault.tools.arguments import Schema

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Message = dict[str, Any]  # in OpenAI's form


class EndpointError(UserError):
    """The server can't be reached, or gives nothing to go on with."""


class Refused(Exception):
    """The server takes no such messages, such as calls with broken arguments, or too many tokens."""


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
    other numbers are other draws. So two models must not have one name, or must have caches of their own.

    Args:
        model: its name there.
        url: of the API, such as http://localhost:8000/v1; by default the `openai` package's own.
        temperature: of sampling.
        max_tokens: most tokens of one message; 0 leaves it to the server.
        parallel: most requests at a time.
        cache: the folder of what came back; by default in the user's cache.
        timeout: seconds of a request, which is tried `retries` more times.

    Raises:
        UserError: if the package `openai` is missing, or the cache can't be written.
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
        self.model, self.url, self.parallel, self.timeout, self.retries = model, url, parallel, timeout, retries
        self.options = {"temperature": temperature} | ({"max_tokens": max_tokens} if max_tokens else {})
        self.cache = cache or cache_folder() / "completions"
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the cache {self.cache} can't be made ({error.strerror}); name another folder.") from error
        self.spent = Spent()
        self._client: AsyncOpenAI | None = None  # of the event loop that runs
        self._asked: dict[str, asyncio.Task[Message]] = {}

    async def complete(self, messages: Sequence[Message], tools: Sequence[Schema], sample: Sequence[int]) -> Message:
        """The next message of the assistant, with "content" and "tool_calls"; "cut" if it was cut off at its limit.

        Raises:
            EndpointError: if the server can't be reached, or gives no message.
            Refused: if it does not take these messages.
        """
        request = {"model": self.model, "messages": list(messages), **self.options}
        request |= {"tools": list(tools)} if tools else {}
        name = hashlib.sha256(json.dumps([request, list(sample)], sort_keys=True).encode()).hexdigest()
        known = self.cache / f"{name}.json"
        if known.exists():
            self.spent.known += 1
            return json.loads(known.read_text(encoding="utf-8"))
        if name not in self._asked:  # who asks the same at the same time waits for the one answer
            self._asked[name] = asyncio.ensure_future(self._pay(request, known))
            self._asked[name].add_done_callback(lambda task: self._asked.pop(name))
        return dict(await asyncio.shield(self._asked[name]))

    async def _pay(self, request: dict[str, Any], known: Path) -> Message:
        import openai

        if self._client is None:
            self._client = openai.AsyncOpenAI(
                base_url=self.url, api_key=os.environ.get("OPENAI_API_KEY", "none"), timeout=self.timeout,
                max_retries=self.retries,
            )  # fmt: skip
            self._turns = asyncio.Semaphore(self.parallel)
        where = f"the endpoint {self._client.base_url}"
        async with self._turns:
            try:
                answer = await self._client.chat.completions.create(**request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                raise Refused(f"{where} refuses the messages ({_line(error)})") from error
            except openai.OpenAIError as error:
                raise EndpointError(
                    f"{where} does not answer for model {self.model!r} ({_line(error)}); what came back so far is "
                    "kept, so give the same command again when it does."
                ) from error
        if not getattr(answer, "choices", None):
            raise EndpointError(f"{where} answers with something else than a completion; give the URL of its API.")
        self.spent.calls += 1
        if answer.usage is not None:
            self.spent.prompt_tokens += answer.usage.prompt_tokens
            self.spent.completion_tokens += answer.usage.completion_tokens
        [choice, *_] = answer.choices
        message = plain(choice.message.model_dump(exclude_none=True))
        message |= {"cut": True} if choice.finish_reason == "length" else {}
        write_whole(known, json.dumps(message))
        return message

    async def close(self) -> None:
        """Close what is open of this event loop."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def plain(message: Message) -> Message:
    """What of an assistant's message goes back to a server: its role, content and calls, which all have an id.

    >>> plain({"role": "assistant", "content": "Hi", "tool_calls": [], "refusal": None, "audio": None})
    {'role': 'assistant', 'content': 'Hi'}
    """
    calls = [
        {"id": call.get("id") or f"call_{number}", "type": "function", "function": call["function"]}
        for number, call in enumerate(message.get("tool_calls") or ())
        if "function" in call
    ]
    text = (message.get("content") or "").encode("utf-8", "replace").decode()  # servers refuse half a surrogate pair
    return {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")[:300]
