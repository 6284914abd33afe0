"""Where traces stand in a JSON value.

What a value is like decides, not a name: `{"messages": [...]}` is written by OpenAI's, LangChain's and Inspect's
libraries, and the messages tell whose they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from firstfault.text import kind
from firstfault.traces.canonical import Draft, Facts, Refused, Said, is_success, refused, schemas
from firstfault.traces.documents import Document
from firstfault.traces.logs import failed_runs, inspect_log, inspect_sample
from firstfault.traces.messages import anthropic, chat, is_anthropic, is_langchain, langchain, responses

CHAT, RESPONSES, ANTHROPIC, LANGCHAIN = "OpenAI chat", "OpenAI Responses", "Anthropic", "LangChain"
KNOWN = (
    "OpenAI chat messages, OpenAI Responses items, Anthropic messages, LangChain or LangGraph messages, Inspect logs "
    "(.eval, .json), OpenTelemetry GenAI spans (OTLP JSON), and trees files of firstfault"
)


def find(documents: list[Document], file: str, is_whole: bool) -> Iterator[Draft]:
    """The traces in the values of a file, in their order; what is none is a draft that can't be read.

    `is_whole` says that no other part of the file was unreadable.
    """
    if len(documents) > 1 and all(_is_message(document.value) for document in documents):  # a message a line
        values = [document.value for document in documents]
        broken = "a message of it could not be read, and no run goes on without one; give the whole file."
        yield _conversation(values, {}, file) if is_whole else refused("unknown", file, broken)
        return
    for document in documents:
        yield from _found(document.value, document.where)


def _found(value: Any, where: str) -> Iterator[Draft]:
    if _is_conversation(value):
        yield _conversation(value, {}, where)
    elif isinstance(value, list) and value:
        for item in value:
            # a list in a list is a trace of messages, and nothing else
            if isinstance(item, dict) or _is_conversation(item):
                yield from _found(item, where)
            else:
                yield _unknown(item, where)
    elif isinstance(value, dict):
        yield from _in_object(value, where)
    else:
        yield _unknown(value, where)


def _in_object(value: dict[str, Any], where: str) -> Iterator[Draft]:
    values = value.get("values")  # of a saved state of a LangGraph thread
    if "nodes" in value and "task" in value:
        yield from failed_runs(value, where)
    elif "eval" in value and ("plan" in value or "samples" in value):
        yield from inspect_log(value, where)
    elif isinstance(value.get("messages"), list) and "epoch" in value and "target" in value:
        yield inspect_sample(value, where)
    elif isinstance(value.get("request"), dict) and isinstance(value.get("response"), dict):
        beside = {key: value[key] for key in ("id", "success", "reward", "answer") if key in value}
        yield _exchange({**value["request"], **beside}, value["response"], where)
    elif isinstance(value.get("messages"), list):
        yield (_exchange(value, value, where) if "choices" in value else _conversation(value["messages"], value, where))
    elif isinstance(value.get("input"), list) or ("input" in value and "output" in value):
        yield _exchange(value, value, where)
    elif isinstance(values, dict) and isinstance(values.get("messages"), list):
        yield _conversation(values["messages"], values, where)
    else:
        yield _unknown(value, where)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and any(_is_message(item) for item in value)


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or isinstance(value.get("messages"), list) or isinstance(value.get("input"), list):
        return False
    return "role" in value or value.get("lc") == 1 or isinstance(value.get("type"), str)


def _conversation(messages: list[Any], fields: dict[str, Any], where: str) -> Draft:
    """A list of messages, whose format they tell; `fields` is what stands beside them."""
    objects = [message for message in messages if isinstance(message, dict)]
    if any(message.get("lc") == 1 or is_langchain(message) for message in objects):
        source, read = LANGCHAIN, langchain
    elif any(map(is_anthropic, objects)):
        source, read = ANTHROPIC, anthropic
    elif any(isinstance(message.get("type"), str) for message in objects):
        source, read = RESPONSES, responses
    else:
        source, read = CHAT, chat
    return Draft(source, where, _id(fields), lambda: (read(_with_instructions(messages, fields)), _facts(fields)))


def _with_instructions(messages: list[Any], fields: dict[str, Any]) -> list[Any]:
    """The messages behind the instructions that some APIs take, and log, apart from them."""
    if fields.get("previous_response_id") or fields.get("conversation"):
        raise Refused(
            "it starts in the middle: what came before is stored at OpenAI (previous_response_id or conversation); "
            "log the whole list of items."
        )
    apart = fields.get("instructions") or fields.get("system")  # of OpenAI Responses; of Anthropic
    return [{"role": "system", "content": apart}, *messages] if isinstance(apart, str | list) and apart else messages


def _id(fields: dict[str, Any]) -> str | None:
    id_ = fields.get("id")
    return str(id_) if isinstance(id_, str | int) and id_ != "" else None


def _facts(fields: dict[str, Any]) -> Facts:
    answer = fields.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    success = fields.get("success")
    if not isinstance(success, bool):
        success = is_success(fields.get("reward"))
    tools = fields.get("tools", fields.get("functions"))
    return Facts(schemas(tools), success, answer if isinstance(answer, str) else None)


def _exchange(request: dict[str, Any], response: dict[str, Any], where: str) -> Draft:
    """A saved request with its response, of chat completions or of the Responses API."""
    id_ = _id(request) or _id(response)
    if not isinstance(request.get("messages", []), list):
        given = kind(request["messages"])
        return refused("unknown", where, f"its messages are {given}, not a list; save the request as it was sent.")
    if "messages" in request and isinstance(response.get("content"), list):  # of Anthropic
        answered = {"role": "assistant", "content": response["content"]}
        return _conversation([*request["messages"], answered], {**request, "id": id_}, where)
    if "messages" in request:
        return Draft(CHAT, where, id_, lambda: (chat([*request["messages"], _choice(response)]), _facts(request)))

    def items() -> list[Said]:
        given = request.get("input")
        given = [{"role": "user", "content": given}] if isinstance(given, str) else given
        answered = response.get("output") or []
        if not isinstance(given, list) or not isinstance(answered, list):
            raise Refused("its input and output are no lists of items; save request and response as they were sent.")
        instructed = {**request, "instructions": request.get("instructions") or response.get("instructions")}
        return responses(_with_instructions([*given, *answered], instructed))

    return Draft(RESPONSES, where, id_, lambda: (items(), _facts(request)))


def _choice(response: dict[str, Any]) -> Any:
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict) or "message" not in choices[0]:
        raise Refused("its response has no message among its choices; save the whole response, not parts of a stream.")
    if len(choices) > 1:
        raise Refused(
            f"its response branches into {len(choices)} choices (n > 1); a run is one path: save the one that the "
            "agent went on with."
        )
    return choices[0]["message"]


def _unknown(value: Any, where: str) -> Draft:
    """What is of no known format."""
    given = kind(value)
    if isinstance(value, dict):
        given = f"an object with {', '.join(map(repr, list(value)[:6]))}" if value else "an empty object"
    elif value == []:
        given = "an empty list"
    reason = f"it is {given}, which is no format that is known; known are {KNOWN}: convert it to one of these."
    return refused("unknown", where, reason)
