"""Chat completions of an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstfault.errors import UserError, require
from firstfault.writers.base import KeptWriter, Message, Refused, plain

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class EndpointError(UserError):
    """The server can't be reached, or gives nothing to go on with."""


class ServerFailed(EndpointError):
    """The server is there, and fails at this request; it may not at others."""


class Endpoint(KeptWriter):
    """A model behind an OpenAI-compatible server, such as vLLM, llama.cpp, Ollama or a provider's.

    Args:
        model: its name there.
        url: of the API, such as http://localhost:8000/v1; by default the `openai` package's own.
        temperature: of sampling.
        max_tokens: most tokens of one message; 0 leaves it to the server.
        parallel: most requests at a time.
        cache: the folder of what came back; by default in the user's cache. It is not asked which server that was.
        timeout: seconds of a request, which is tried `retries` more times.
        any_temperature: where the server takes none but its own, be content with that.

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
        any_temperature: bool = False,
    ):
        require("openai", "locate", "an endpoint")
        super().__init__(model, temperature, max_tokens, cache)
        self.url, self.parallel, self.timeout, self.retries = url, parallel, timeout, retries
        self.any_temperature = any_temperature
        self._limit = "max_tokens"  # what the server calls it
        self._client: AsyncOpenAI | None = None  # of the event loop that runs

    async def write(self, request: dict[str, Any], seed: int) -> Message:
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
                answer = await self._ask(request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                raise Refused(f"{where} refuses the messages ({_line(error)})") from error
            except openai.OpenAIError as error:
                kind = ServerFailed if isinstance(error, openai.InternalServerError) else EndpointError
                raise kind(
                    f"{where} does not answer for model {self.model!r} ({_line(error)}); what came back so far is "
                    "kept, so give the same command again when it does."
                ) from error
        try:
            answer = json.loads(answer)
            [choice, *_] = answer["choices"]
            message = plain(choice["message"])
            message |= {"cut": True} if choice.get("finish_reason") == "length" else {}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise EndpointError(
                f"{where} answers with something else than a completion; give the URL of its API."
            ) from error
        read, written = (_count(answer.get("usage"), name) for name in ("prompt_tokens", "completion_tokens"))
        self.spent.calls += 1
        self.spent.prompt_tokens += read or 0
        self.spent.completion_tokens += written or 0
        return message if written is None else message | {"tokens": written}

    async def _ask(self, request: dict[str, Any]) -> bytes:
        """As the server wants it: OpenAI's later models call the limit otherwise, and have one temperature only.

        What comes back is read by `write`: the package takes any JSON for a completion, and warns when it is used.
        """
        import openai

        renamed = {self._limit if key == "max_tokens" else key: value for key, value in request.items()}
        try:
            answer = await self._client.chat.completions.with_raw_response.create(**renamed)
            return answer.http_response.content
        except openai.BadRequestError as error:
            if "max_completion_tokens" in str(error) and "max_tokens" in renamed:
                self._limit = "max_completion_tokens"
                return await self._ask(request)
            if error.param == "temperature" and "temperature" in request:
                if self.any_temperature:
                    return await self._ask({key: value for key, value in request.items() if key != "temperature"})
                raise EndpointError(
                    f"the model {self.model!r} does not take the temperature {self.temperature:g} ({_line(error)}); "
                    "give the one that it has, mostly 1."
                ) from error
            raise

    async def close(self) -> None:
        """Close what is open of this event loop."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def _count(usage: Any, name: str) -> int | None:
    """A number of tokens, where the server tells it."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")[:300]
