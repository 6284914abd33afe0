"""How OpenAI's two interfaces, Anthropic's and LangChain write the messages of a conversation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from firstfault.text import kind
from firstfault.traces.canonical import Asked, Refused, Said, merged

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "ai": "assistant", "model": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip
LANGCHAIN_TYPES = {"human", "ai", "system", "tool", "function", "chat", "developer", "remove"}


# OpenAI chat completions


def chat(messages: Iterable[Any]) -> list[Said]:
    """The messages of a request to chat completions."""
    return [chat_message(message, number) for number, message in enumerate(messages, 1)]


def chat_message(message: Any, number: int) -> Said:
    """One of them; Inspect's differ only in that a call's name and arguments stand a level higher."""
    if not isinstance(message, dict):
        raise Refused(f"message {number} is {kind(message)}, where an object with a role was expected; log it whole.")
    role = role_of(message.get("role"), number)
    content = message.get("content")
    if message.get("audio"):
        content = [{"type": "audio"}]
    if role == "assistant" and content is None:
        content = message.get("refusal")
    said = Said(number, role, content, name=message.get("name") or message.get("function"))
    if role == "tool":
        said.answers = message.get("tool_call_id")
    elif role == "assistant":
        said.calls = [_chat_call(call, number) for call in message.get("tool_calls") or []]
        if not said.calls and isinstance(message.get("function_call"), dict):
            call = message["function_call"]
            said.calls = [Asked(None, call.get("name"), call.get("arguments"))]
    return said


def role_of(role: Any, number: int) -> str:
    """One of our four roles for what a library calls it."""
    known = ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise Refused(
            f"message {number} has the role {role!r}, where system, user, assistant or tool was expected; write it as "
            "one of these, or leave this trace out."
        )
    return known


def _chat_call(call: Any, number: int) -> Asked:
    if not isinstance(call, dict):
        raise Refused(f"message {number} has {kind(call)} for a call, where an object was expected; log it whole.")
    if call.get("type") == "custom" or "custom" in call:
        raise Refused(
            f"message {number} calls a custom tool, whose input is free text; only functions, whose arguments are a "
            "JSON object, can be replayed."
        )
    if call.get("parse_error"):  # of Inspect
        raise Refused(
            f"message {number} makes a call whose arguments could not be read when it was made; leave this trace out, "
            "or end it before that message."
        )
    function = call.get("function")
    function = function if isinstance(function, dict) else {"name": function, "arguments": call.get("arguments")}
    return Asked(call.get("id"), function.get("name"), function.get("arguments"))


# Anthropic Messages


def is_anthropic(message: dict[str, Any]) -> bool:
    """Whether a message has calls, or their results, among the parts of its content."""
    parts = message.get("content")
    types = [part.get("type") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "tool_calls" not in message and bool({"tool_use", "tool_result"} & {*map(str, types)})


def anthropic(messages: Iterable[Any]) -> list[Said]:
    """The messages of a request to Anthropic's API: results of tools first, as each of them is a message of ours."""
    said = []
    for number, message in enumerate(messages, 1):
        turn = chat_message(message, number)
        parts = turn.content if isinstance(turn.content, list) else []
        results = [part for part in parts if isinstance(part, dict) and part.get("type") == "tool_result"]
        said += [Said(number, "tool", part.get("content"), answers=part.get("tool_use_id")) for part in results]
        for part in parts:
            if isinstance(part, dict) and part.get("type") == "tool_use":
                turn.calls.append(Asked(part.get("id"), part.get("name"), part.get("input")))
        if results:
            turn.content = [part for part in parts if part not in results]
        if turn.content or turn.calls or not results:
            said.append(turn)
    return said


# OpenAI Responses


def responses(items: Iterable[Any]) -> list[Said]:
    """The items as turns: calls and texts that follow on each other are one turn of the agent."""
    said = []
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise Refused(f"message {number} is {kind(item)}, where an item was expected; log it whole.")
        type_ = item.get("type") or "message"
        if type_ == "message":
            role = role_of(item.get("role"), number)
            said.append(Said(number, role, item.get("content")))
        elif type_ == "function_call":
            call = Asked(item.get("call_id"), item.get("name"), item.get("arguments"))
            said.append(Said(number, "assistant", None, [call]))
        elif type_ == "function_call_output":
            said.append(Said(number, "tool", item.get("output"), answers=item.get("call_id")))
        elif type_ != "reasoning":
            raise Refused(
                f"message {number} is an item of the type {type_!r}, which can't be replayed; known are message, "
                "function_call, function_call_output and reasoning: leave this trace out."
            )
    return merged(said)


# LangChain and LangGraph


def is_langchain(message: dict[str, Any]) -> bool:
    """Whether a message has a type of LangChain's where OpenAI's have a role."""
    type_ = message.get("type")
    return isinstance(type_, str) and "role" not in message and _langchain_type(type_) in LANGCHAIN_TYPES


def _langchain_type(type_: str) -> str:
    """The short name of a class of messages: ai for AIMessage and AIMessageChunk."""
    return type_.removesuffix("Chunk").removesuffix("Message").lower()


def langchain(messages: Iterable[Any]) -> list[Said]:
    """The messages of a state, in any of the three forms in which LangChain writes them."""
    return [_langchain_message(message, number) for number, message in enumerate(messages, 1)]


def _langchain_message(message: Any, number: int) -> Said:
    if not isinstance(message, dict) or ("role" in message and "type" not in message):
        return chat_message(message, number)
    fields, type_ = message, message.get("type")
    if message.get("lc") == 1:
        path = message.get("id")
        if type_ != "constructor" or not isinstance(message.get("kwargs"), dict) or not isinstance(path, list):
            raise Refused(
                f"message {number} is an object that LangChain could not write down ({type_}); write the messages with "
                "messages_to_dict."
            )
        fields, type_ = message["kwargs"], path[-1] if path else None
    elif isinstance(message.get("data"), dict):
        fields = message["data"]
    type_ = _langchain_type(type_) if isinstance(type_, str) else type_
    role = role_of(fields.get("role") if type_ == "chat" else type_, number)
    more = fields.get("additional_kwargs")
    more = more if isinstance(more, dict) else {}
    said = Said(number, role, fields.get("content"), name=fields.get("name"))
    if role == "tool":
        said.answers = fields.get("tool_call_id")
    if role != "assistant":
        return said
    if fields.get("invalid_tool_calls"):
        raise Refused(
            f"message {number} makes a call whose arguments could not be read when it was made (invalid_tool_calls); "
            "leave this trace out, or end it before that message."
        )
    for call in fields.get("tool_calls") or []:
        if not isinstance(call, dict):
            raise Refused(f"message {number} has {kind(call)} for a call, where an object was expected; log it whole.")
        said.calls.append(Asked(call.get("id"), call.get("name"), call.get("args")))
    if not said.calls:  # of versions before 0.2, as OpenAI sent them
        older = {key: more[key] for key in ("tool_calls", "function_call") if key in more}
        said.calls = chat_message({"role": "assistant", **older}, number).calls
    return said
