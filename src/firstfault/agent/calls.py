"""Reading the tool calls that an agent wrote: two formats, and a reason in one sentence where a call can't be read.

What a model writes is never trusted to be well formed. A call that can't be read is a `ParsedCall` with an `error`,
which the agent is told in place of an output, and the run goes on.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from firstfault.text import kind

OPEN, CLOSE, PYTHON_TAG = "<tool_call>", "</tool_call>", "<|python_tag|>"
# The first keys by which bare JSON shows that it is meant as a call and not as an answer.
BARE_CALL = re.compile(r'\{\s*"(?:type|function|name|parameters|arguments)"\s*:')
SPACE, SURROGATE = re.compile(r"\s*"), re.compile("[\ud800-\udfff]")
MAX_DEPTH = 64  # Python gives up on copying or saving values that nest a few hundred deep

_decoder = json.JSONDecoder()


@dataclass
class ParsedCall:
    """One tool call as the agent wrote it. `error` says why it can't be made; then the other fields may be empty."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def tagged_calls(text: str) -> tuple[str, list[ParsedCall]]:
    """Split Hermes and Qwen text, `<tool_call>{json}</tool_call>`, into what is outside of calls and the calls.

    >>> tagged_calls('Sum. <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    ('Sum. ', [ParsedCall(name='add', arguments={'a': 1}, error=None)])
    """
    outside, calls, position = [], [], 0
    while (start := text.find(OPEN, position)) >= 0:
        outside.append(text[position:start])
        call, position = _tagged_call(text, start + len(OPEN))
        calls.append(call)
    return "".join(outside) + text[position:], calls


def _tagged_call(text: str, start: int) -> tuple[ParsedCall, int]:
    """The call that begins at `start`, and the position where it ends."""
    try:
        # Decoding finds the end of the object by itself: a string in it may well hold the closing tag.
        value, end = _decoder.raw_decode(text, SPACE.match(text, start).end())
    except (ValueError, RecursionError) as error:
        return _unreadable(error), _next_tag(text, start)
    end = SPACE.match(text, end).end()
    if text.startswith(CLOSE, end):
        return check_call(value), end + len(CLOSE)
    if end == len(text) or text.startswith(OPEN, end):
        return ParsedCall("", error=f"The tool call is not closed by {CLOSE}."), end
    return ParsedCall("", error="The tool call has text after its JSON object."), _next_tag(text, end)


def _next_tag(text: str, start: int) -> int:
    """Where reading goes on after a broken call: behind its closing tag, or at the next opening one if nearer."""
    close, opening = text.find(CLOSE, start), text.find(OPEN, start)
    ends = [close + len(CLOSE) if close >= 0 else len(text), opening if opening >= 0 else len(text)]
    return min(ends)


def bare_call(text: str) -> tuple[str, list[ParsedCall]]:
    """Split Llama-3.1 text, a JSON object as the whole turn or behind `<|python_tag|>`, into text and at most one call.

    An object that names no `parameters` or `arguments` is an answer in JSON.

    >>> bare_call('{"name": "add", "parameters": {"a": 1}}')
    ('', [ParsedCall(name='add', arguments={'a': 1}, error=None)])
    >>> bare_call('{"name": "Ada"}')
    ('{"name": "Ada"}', [])
    """
    before, tag, body = text.partition(PYTHON_TAG)
    if not tag:
        before, body = "", text
        if not BARE_CALL.match(text.lstrip()):
            return text, []
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        return before, [_unreadable(error)]
    if not tag and not {"parameters", "arguments"} & _function(value).keys():
        return text, []
    return before, [check_call(value)]


def check_call(value: Any) -> ParsedCall:
    """The call that a decoded JSON value stands for: {"name": ..., "arguments" or "parameters": {...}}."""
    if not isinstance(value, dict):
        return ParsedCall("", error=f"A tool call must be a JSON object, not {kind(value)}.")
    value = _function(value)
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if not isinstance(name, str) or not name or _problem(name):
        return ParsedCall("", error='The tool call has no "name" that is a string.')
    if isinstance(arguments, str):  # some models write the arguments as a JSON object inside a string
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            return ParsedCall(name, error=_unreadable(error).error)
    if not isinstance(arguments, dict):
        return ParsedCall(name, error=f"The arguments of a tool call must be a JSON object, not {kind(arguments)}.")
    if problem := _problem(arguments):
        return ParsedCall(name, error=problem)
    return ParsedCall(name, arguments)


def as_object(arguments: Any) -> Any:
    """A call's arguments as chat templates want them: an object, and not its text; what is no such text stays as it is.

    >>> as_object('{"x": 1}'), as_object('{"x": '), as_object({"x": 1})
    ({'x': 1}, '{"x": ', {'x': 1})
    """
    try:
        return json.loads(arguments)
    except (ValueError, TypeError, RecursionError):
        return arguments


def _function(value: Any) -> dict[str, Any]:
    """OpenAI's form puts the call one level down: {"type": "function", "function": {...}}."""
    inner = value.get("function") if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else value if isinstance(value, dict) else {}


def _problem(value: Any) -> str | None:
    """Why a decoded value could not be kept: Python reads some things as JSON that can't be written as JSON again."""
    level = [value]
    for _ in range(MAX_DEPTH):
        strings = [x for x in level if isinstance(x, str)]
        strings += [key for x in level if isinstance(x, dict) for key in x]
        if any(SURROGATE.search(string) for string in strings):
            return "The tool call holds half of a surrogate pair, which is not text."
        if any(isinstance(x, float) and not math.isfinite(x) for x in level):
            return "The tool call holds NaN or an infinite number, which JSON does not have."
        level = [y for x in level if isinstance(x, dict | list) for y in (x.values() if isinstance(x, dict) else x)]
        if not level:
            return None
    return f"The tool call is nested more than {MAX_DEPTH} levels deep."


def _unreadable(error: Exception) -> ParsedCall:
    if isinstance(error, json.JSONDecodeError):  # its own position counts from the start of the turn
        return ParsedCall("", error=f"The tool call is not valid JSON: {error.msg}.")
    return ParsedCall("", error="The tool call is not valid JSON: it nests too deeply or holds too large a number.")
