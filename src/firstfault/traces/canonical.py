"""The canonical form of a trace: OpenAI chat messages in text that can be replayed, or a reason why there is none.

The formats' readers say what stands in a log (`Said`). What may stand in a trace is decided here, for all formats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from firstfault.agent.calls import check_call
from firstfault.text import encodable, kind


class Refused(Exception):
    """Why a trace can't be replayed: the end of a sentence that begins with the trace's name."""


@dataclass
class Asked:
    """One tool call as a log has it: `arguments` a JSON object, or its text."""

    id: str | None
    name: Any
    arguments: Any


@dataclass
class Said:
    """One message as a log has it. `number` is its place there, from 1; `answers` the id of a tool message's call."""

    number: int
    role: str  # system, user, assistant or tool
    content: Any = None  # a text, or a list of parts
    calls: list[Asked] = field(default_factory=list)
    answers: str | None = None
    name: str | None = None  # of the tool, where a tool message says it


@dataclass(frozen=True)
class Facts:
    """What a log says of a run besides its messages; None where it says nothing."""

    tools: list[dict[str, Any]] | None = None
    success: bool | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Draft:
    """A trace that was found in a file, at `where`. It is read by itself, so that it can be refused by itself."""

    source: str
    where: str
    id: str | None
    read: Callable[[], tuple[list[Said], Facts]]


def refused(source: str, where: str, reason: str) -> Draft:
    """What was taken for a trace and can't be read at all."""

    def refuse() -> tuple[list[Said], Facts]:
        raise Refused(reason)

    return Draft(source, where, None, refuse)


# Parts of a message by their type: where the text is, what is left out, what repeats the message's calls.
TEXTS = {"text": ("text", "content"), "input_text": ("text",), "output_text": ("text",), "refusal": ("refusal",)}
THOUGHTS = {"reasoning", "thinking", "redacted_thinking", "reasoning_content"}
CALLS = {"tool_use", "tool_call", "tool_call_chunk", "function_call"}


def canonical(said: list[Said]) -> list[dict[str, Any]]:
    """The messages of a trace, or `Refused` where they can't be replayed.

    >>> canonical([Said(1, "user", "1 + 1?"), Said(2, "assistant", None, [Asked("a", "add", {"x": 1, "y": 1})]),
    ...            Said(3, "tool", "2", answers="a")])[1:]  # doctest: +NORMALIZE_WHITESPACE
    [{'role': 'assistant', 'content': '', 'tool_calls': [{'id': 'a', 'type': 'function',
      'function': {'name': 'add', 'arguments': '{"x": 1, "y": 1}'}}]},
     {'role': 'tool', 'tool_call_id': 'a', 'content': '2'}]
    """
    if not said:
        raise Refused("it holds no messages; give the whole conversation, from the system or user message on.")
    if said[0].role not in ("system", "user"):
        raise Refused(
            f"it starts in the middle: message {said[0].number} is of the role {said[0].role}, and the first one must "
            "be a system or user message; log the whole conversation."
        )
    messages: list[dict[str, Any]] = []
    caller, unanswered, made = 0, [], 0
    for message in said:
        if message.role == "tool":
            call = _answered(message, unanswered)
            unanswered.remove(call)
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": _text(message.content, message, False)}
            )
            continue
        if unanswered:
            raise Refused(
                f"message {caller} calls {_named(unanswered[0])}, and message {message.number} follows without a "
                "result; only the last message may leave a call open: log what the tool returned, errors included."
            )
        canon = {"role": message.role, "content": _text(message.content, message, bool(message.calls))}
        if message.calls and message.role != "assistant":
            raise Refused(
                f"message {message.number} makes a call, but is of the role {message.role}; only those of the "
                "assistant make calls: log it as one of these."
            )
        if message.calls:
            canon["tool_calls"] = [_call(call, message, made + i) for i, call in enumerate(message.calls)]
            caller, made, unanswered = message.number, made + len(message.calls), list(canon["tool_calls"])
            ids = [call["id"] for call in unanswered]
            if len(set(ids)) < len(ids):
                raise Refused(
                    f"message {message.number} gives two calls the same id, so that it is unclear which result is "
                    "whose; give every call of a message an id of its own."
                )
        messages.append(canon)
    if sum("tool_calls" in message for message in messages) == bool(unanswered):  # the last may leave a call open
        raise Refused(
            "it has no step whose tool calls all have results, so there is none to search; give the trace of an agent "
            "that used a tool, with the results."
        )
    return messages


def merged(said: list[Said]) -> list[Said]:
    """The messages, where the log has a turn of the agent in several: what follows on itself is one turn."""
    turns: list[Said] = []
    for message in said:
        if turns and message.role == "assistant" == turns[-1].role:
            last = turns[-1]
            turns[-1] = Said(last.number, "assistant", _parts(last) + _parts(message), last.calls + message.calls)
        else:
            turns.append(message)
    return turns


def schemas(tools: Any) -> list[dict[str, Any]] | None:
    """The schemas of functions in OpenAI's chat form, from any of the forms that logs have them in."""
    if not isinstance(tools, list):
        return None
    found = []
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            known = ("name", "description", "parameters", "strict")
            function = {"parameters": function.get("input_schema"), **function}  # as Anthropic calls them
            function = {key: function[key] for key in known if function.get(key) is not None}
            found.append({"type": "function", "function": function})
    return found or None


def is_success(score: Any) -> bool | None:
    """A reward or score of 1 or more is a success, as are Inspect's C, yes and true; None for what is no score."""
    words = {"c": True, "p": False, "i": False, "n": False, "yes": True, "true": True, "no": False, "false": False}
    if isinstance(score, str):
        word = score.strip().lower()
        if word in words:
            return words[word]
        try:
            score = float(word)
        except ValueError:
            return None
    return score >= 1 if isinstance(score, int | float) else None


def _text(content: Any, message: Said, has_calls: bool) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return encodable(content)
    if not isinstance(content, list):
        raise Refused(
            f"message {message.number} has {kind(content)} for content, where a text or a list of text parts was "
            "expected; log what the model saw as text."
        )
    return "".join(_part(part, message, has_calls) for part in content)


def _part(part: Any, message: Said, has_calls: bool) -> str:
    if isinstance(part, str):
        return encodable(part)
    type_ = part.get("type") if isinstance(part, dict) else None
    if isinstance(type_, str):
        if type_ in THOUGHTS or (type_ in CALLS and has_calls):
            return ""
        for key in TEXTS.get(type_, ()):
            if isinstance(part.get(key), str):
                return encodable(part[key])
    given = f"a part of the type {type_!r}" if isinstance(type_, str) else "a part without a type"
    raise Refused(
        f"message {message.number} holds {given}, where only text can be replayed; log what the model saw as text, or "
        "leave this trace out."
    )


def _parts(message: Said) -> list[Any]:
    content = message.content
    return content if isinstance(content, list) else [] if content is None else [content]


def _call(call: Asked, message: Said, number: int) -> dict[str, Any]:
    arguments = {} if call.arguments is None or call.arguments == "" else call.arguments
    read = check_call({"name": call.name, "arguments": arguments})
    if read.error:
        raise Refused(
            f"message {message.number} makes a call that can't be replayed ({read.error.rstrip('.')}); leave this "
            "trace out, or end it before that message."
        )
    if call.id is not None and not isinstance(call.id, str | int):
        raise Refused(f"message {message.number} has a call whose id is {kind(call.id)}; ids of calls are texts.")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    id_ = f"call_{number}" if call.id is None or call.id == "" else encodable(str(call.id))
    return {"id": id_, "type": "function", "function": {"name": read.name, "arguments": text}}


def _answered(message: Said, unanswered: list[dict[str, Any]]) -> dict[str, Any]:
    """The call that a tool message answers: by its id, or where the log has none, by its name, or else the first."""
    if message.answers is None or message.answers == "":
        named = [call for call in unanswered if call["function"]["name"] == message.name]
        found = named if message.name else unanswered
    else:
        found = [call for call in unanswered if call["id"] == encodable(str(message.answers))]
    if not found:
        raise Refused(
            f"message {message.number} is the result of a call that was not made right before it "
            f"({message.answers or message.name or 'no id'}); every result needs its call: log what the agent said too."
        )
    return found[0]


def _named(call: dict[str, Any]) -> str:
    return f"{call['function']['name']} ({call['id']})"
