"""A model of this machine in the place of an endpoint."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from firstfault.agent.calls import ParsedCall
from firstfault.agent.chat import Chat
from firstfault.engines.base import Sampling
from firstfault.engines.transformers import TransformersEngine
from firstfault.errors import UserError
from firstfault.policy import load_policy, pick_device, version
from firstfault.tools.arguments import Schema
from firstfault.writers.base import KeptWriter, Message, Refused, Spent, plain


class LocalModel(KeptWriter):
    """A Hugging Face model that writes an agent's messages on this machine, on its GPU where there is one.

    Messages of the record are put into words by the model's chat template. What comes back is kept under the name of
    the model; of a folder, also under the time and size of its weights.

    Args:
        model: a folder or a Hub id.
        temperature: of sampling.
        max_tokens: most tokens of one message; 0 bounds it by the model's context alone.
        cache: the folder of what came back; by default in the user's cache.

    Raises:
        UserError: if the model can't be loaded, or its chat template can't carry tools.
    """

    def __init__(
        self, model: str, *, temperature: float = 1.0, max_tokens: int = 2048, cache: Path | None = None
    ):  # fmt: skip
        super().__init__(version(model), temperature, max_tokens, cache)
        policy, self._tokenizer = load_policy(model, pick_device())
        self._engine = TransformersEngine(policy, self._tokenizer, deterministic=False)
        self._context = policy.config.max_position_embeddings
        self._chats: dict[str, Chat] = {}  # by tools

    def at(self, temperature: float) -> LocalModel:
        """The same model at another temperature, with the same weights."""
        other = copy.copy(self)
        other.temperature, other.spent, other._asked = temperature, Spent(), {}
        return other

    async def write(self, request: dict[str, Any], seed: int) -> Message:
        chat = self._chat(request.get("tools", []))
        try:
            seen = chat.conversation(request["messages"])
        except UserError as error:
            raise Refused(str(error).rstrip(".")) from error
        room = min(self._context - len(seen), self.max_tokens or self._context)
        if room < 1:
            raise Refused(f"the model {self.model} has room for {self._context} tokens, and the run has {len(seen)}")
        sampling = Sampling(self.temperature, max_new_tokens=room, stop_tokens=chat.stop_tokens)
        done = await self._engine.generate(seen, sampling, (seed,))
        self.spent.calls += 1
        self.spent.prompt_tokens += len(seen)
        self.spent.completion_tokens += len(done.tokens)
        said = chat.parse(done.tokens)
        calls = [{"function": _function(call, said.text)} for call in said.calls]
        message = plain({"content": said.content, "tool_calls": calls}) | {"tokens": len(done.tokens)}
        return message | ({"cut": True} if done.stop_reason == "length" else {})

    def _chat(self, tools: list[Schema]) -> Chat:
        key = json.dumps(tools, sort_keys=True)
        if key not in self._chats:
            self._chats[key] = Chat(self._tokenizer, tools)
        return self._chats[key]


def _function(call: ParsedCall, text: str) -> dict[str, str]:
    """A call that can't be read keeps what was written, which is no JSON object: the agent is told so."""
    return {"name": call.name, "arguments": json.dumps(call.arguments) if call.error is None else text}
