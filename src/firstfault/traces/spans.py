"""Conversations from OpenTelemetry's spans of generative AI, in OTLP's JSON or as the SDK prints them.

Every call of a model is a span that holds the whole conversation so far, so the last one of a trace is read that has
results of tools: others, such as a judge's, are not the agent's. Messages stand in attributes of the span, in those of
an event about it, or, by the older conventions, in an event each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from firstfault.text import kind
from firstfault.traces.canonical import TEXTS, Asked, Draft, Facts, Refused, Said, merged, refused, schemas
from firstfault.traces.documents import Document
from firstfault.traces.messages import chat_message, role_of

SOURCE = "OpenTelemetry"
INPUT, OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"
SYSTEM, TOOLS = "gen_ai.system_instructions", "gen_ai.tool.definitions"
EXPORTS = {"resourceSpans", "resource_spans", "resourceLogs", "resource_logs"}
CHAT_OPERATIONS = {"chat", "generate_content", "text_completion"}
CAPTURE = "set OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT when the agent runs, so that messages are logged"


@dataclass
class Span:
    """What is known of a span: its own attributes, and the events about it as (time, name, attributes, body)."""

    start: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[str, str, dict[str, Any], Any]] = field(default_factory=list)

    @property
    def is_genai(self) -> bool:
        named = [*self.attributes, *(name for _, name, _, _ in self.events)]
        return any(str(name).startswith("gen_ai.") for name in named)

    @property
    def holds_messages(self) -> bool:
        return INPUT in self.attributes or OUTPUT in self.attributes or bool(self.messages)

    @property
    def has_results(self) -> bool:
        """Whether a tool has answered by then."""
        named = any(name == "gen_ai.tool.message" for name, _ in self.messages)
        return named or "tool_call_response" in str(self.attributes.get(INPUT))

    @property
    def messages(self) -> list[tuple[str, Any]]:
        """The messages of the older conventions as (name of the event, its body), in the order they were logged."""
        events = sorted(self.events, key=lambda event: event[0])
        kept = [(name, body) for _, name, _, body in events if name.endswith(".message") or name == "gen_ai.choice"]
        return [(name, body) for name, body in kept if name.startswith("gen_ai.")]


def find_spans(documents: list[Document], file: str) -> tuple[list[Draft], list[Document]]:
    """A draft for each trace that has spans of generative AI, and the values of the file that hold no spans."""
    traces: dict[str, dict[str, Span]] = {}
    drafts, rest = [], []
    for document in documents:
        if not _is_log(document.value):
            rest.append(document)
            continue
        try:
            _gather(document.value, traces)
        except (ValueError, ArithmeticError, TypeError, AttributeError, RecursionError) as error:
            what = f"its spans can't be read ({type(error).__name__}: {error})"
            drafts.append(refused(SOURCE, document.where, f"{what}; export them again as OTLP's JSON."))
    for id_, spans in traces.items():
        genai = [span for span in spans.values() if span.is_genai]
        if genai:
            drafts.append(Draft(SOURCE, file, id_, partial(_read, genai)))
    return drafts, rest


def _is_log(value: Any) -> bool:
    """Whether a value is an export of spans or of events, one of these, or a list of them."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) and _is_log(item) for item in value)
    if not isinstance(value, dict):
        return False
    return bool(EXPORTS & value.keys()) or (
        "attributes" in value and bool({"trace_id", "traceId"} & _ids(value).keys())
    )


def _ids(value: dict[str, Any]) -> dict[str, Any]:
    """Where the ids of a span stand: in the span itself, or as the SDK prints it, in its context."""
    context = value.get("context")
    return context if isinstance(context, dict) else value


def _gather(value: Any, traces: dict[str, dict[str, Span]]) -> None:
    """Put the spans and events in a value to their traces."""
    if isinstance(value, list):
        for item in value:
            _gather(item, traces)
    elif not EXPORTS & value.keys():
        _put({**value, **_ids(value)}, traces)
    for resource in _listed(value, *EXPORTS):
        for scope in _listed(resource, "scopeSpans", "scope_spans", "scopeLogs", "scope_logs"):
            for item in _listed(scope, "spans", "logRecords", "log_records"):
                _put(item, traces)


def _listed(value: Any, *keys: str) -> list[Any]:
    found = [value[key] for key in keys if isinstance(value, dict) and isinstance(value.get(key), list)]
    return [item for items in found for item in items]


def _put(item: Any, traces: dict[str, dict[str, Span]]) -> None:
    """Add a span, or an event about one, to its trace."""
    if not isinstance(item, dict):
        return
    trace, id_ = (str(_either(item, *keys) or "") for keys in (("traceId", "trace_id"), ("spanId", "span_id")))
    span = traces.setdefault(trace.removeprefix("0x"), {}).setdefault(id_.removeprefix("0x"), Span())
    attributes = _attributes(item.get("attributes"))
    if "body" in item:
        time = _time(_either(item, "timeUnixNano", "timestamp", "observedTimeUnixNano", "observed_timestamp"))
        name = _either(item, "eventName", "event_name") or attributes.get("event.name")
        _note(span, time, name, attributes, _value(item["body"]))
        span.start = span.start or time
        return
    span.start = _time(_either(item, "startTimeUnixNano", "start_time_unix_nano", "start_time"))
    span.attributes |= attributes
    for event in item.get("events") if isinstance(item.get("events"), list) else []:
        if isinstance(event, dict):
            time, said = _time(_either(event, "timeUnixNano", "timestamp")), _attributes(event.get("attributes"))
            _note(span, time, event.get("name"), said, said.get("gen_ai.event.content", said))


def _note(span: Span, time: str, name: Any, attributes: dict[str, Any], body: Any) -> None:
    if name == "gen_ai.client.inference.operation.details":
        span.attributes |= {key: value for key, value in attributes.items() if key.startswith("gen_ai.")}
    elif isinstance(name, str):
        span.events.append((time, name, attributes, body))


def _either(item: dict[str, Any], *keys: str) -> Any:
    return next((item[key] for key in keys if item.get(key) not in (None, "")), None)


def _time(value: Any) -> str:
    """Times as texts that sort: nanoseconds, of one length for the next centuries, or ISO's."""
    return str(value if value is not None else "").zfill(20)


def _attributes(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    pairs = value if isinstance(value, list) else []
    return {str(pair.get("key")): _value(pair.get("value")) for pair in pairs if isinstance(pair, dict)}


def _value(value: Any) -> Any:
    """A value out of the wrapping that OTLP gives it; any other as it is."""
    if not isinstance(value, dict) or len(value) != 1:
        return None if value == {} else value
    [(wrapping, inner)] = value.items()
    if wrapping in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        return inner
    if wrapping == "intValue":
        return int(inner)
    if wrapping == "arrayValue":
        return [_value(item) for item in _listed(inner, "values")]
    if wrapping == "kvlistValue":
        return _attributes(inner.get("values") if isinstance(inner, dict) else None)
    return value


def _decoded(name: str, value: Any) -> Any:
    """An attribute that is JSON in a text, as spans have it, or a value, as events have it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Refused(
            f"the attribute {name} is not JSON ({error}), so it was cut off; raise the limit of attributes' lengths "
            "(OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT) and run the agent again."
        ) from error


def _read(spans: list[Span]) -> tuple[list[Said], Facts]:
    holding = [span for span in spans if span.holds_messages]
    if not holding:
        if any(name.startswith("gen_ai.prompt.") for span in spans for name in span.attributes):
            raise Refused(
                "its messages are in attributes gen_ai.prompt.N of OpenLLMetry, which are not read; log them by the "
                "conventions of version 1.37 or later, or as OpenAI's messages."
            )
        raise Refused(f"its spans hold no messages; {CAPTURE}.")
    chats = [span for span in holding if span.attributes.get("gen_ai.operation.name") in CHAT_OPERATIONS]
    *_, last = sorted(chats or holding, key=lambda span: (span.has_results, span.start))
    tools = schemas(_decoded(TOOLS, last.attributes.get(TOOLS)))
    if INPUT not in last.attributes and OUTPUT not in last.attributes:
        return merged(_older(last, _spoken_with_calls(holding))), Facts(tools)
    said: list[Said] = []
    instructions = _list(SYSTEM, last.attributes.get(SYSTEM))
    if instructions:
        said += _message({"role": "system", "parts": instructions}, 1)
    outputs = _list(OUTPUT, last.attributes.get(OUTPUT))
    if len(outputs) > 1:
        raise Refused(
            f"its last span branches into {len(outputs)} choices (n > 1); a run is one path: log the one that the "
            "agent went on with."
        )
    for number, message in enumerate([*_list(INPUT, last.attributes.get(INPUT)), *outputs], len(said) + 1):
        said += _message(message, number)
    return merged(said), Facts(tools)


def _list(name: str, value: Any) -> list[Any]:
    value = _decoded(name, value)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refused(f"the attribute {name} is {kind(value)}, where a list was expected; log it whole.")
    return value


def _message(message: Any, number: int) -> Iterator[Said]:
    """A message by its parts: results of tools first, as each of them is a message of ours."""
    if not isinstance(message, dict) or not isinstance(message.get("parts"), list):
        raise Refused(f"message {number} has no list of parts; log it by the conventions of version 1.37 or later.")
    said = Said(number, role_of(message.get("role"), number), [])
    results = 0
    for part in message["parts"]:
        type_ = part.get("type") if isinstance(part, dict) else None
        if type_ == "tool_call":
            said.calls.append(Asked(part.get("id"), part.get("name"), part.get("arguments")))
        elif type_ == "tool_call_response":
            results += 1
            response = part.get("response", part.get("result"))
            is_text = isinstance(response, list) and all(
                isinstance(p, dict) and p.get("type") in TEXTS for p in response
            )
            if not isinstance(response, str | None) and not is_text:
                response = json.dumps(response, ensure_ascii=False)
            yield Said(number, "tool", response, answers=part.get("id"))
        else:
            said.content.append(part)
    if said.role == "tool" and not said.content and results:
        return
    if said.role == "tool":
        raise Refused(f"message {number} of a tool holds no tool_call_response; log what the tool returned as one.")
    if said.content or not results:
        yield said


def _spoken_with_calls(spans: list[Span]) -> dict[str, Any]:
    """What the agent said when it made a call, by the id of the call.

    Some libraries log it with the choice only, and leave it out when they log the same message as input.
    """
    said = {}
    for span in spans:
        for name, body in span.messages:
            message = body.get("message") if name == "gen_ai.choice" and isinstance(body, dict) else None
            if isinstance(message, dict):
                said |= {call: message.get("content") for call in _call_ids(message)}
    return said


def _call_ids(message: dict[str, Any]) -> list[str]:
    calls = _decoded("tool_calls", message.get("tool_calls"))
    return [str(call["id"]) for call in calls or [] if isinstance(call, dict) and call.get("id")]


def _older(span: Span, said_with: dict[str, Any]) -> list[Said]:
    said, choices = [], 0
    for number, (name, body) in enumerate(span.messages, 1):
        body = _decoded("gen_ai.event.content", body)
        body = body if isinstance(body, dict) else {}
        if name == "gen_ai.choice":
            choices += 1
            if choices > 1:
                raise Refused("its last span branches into several choices (n > 1); log the one that was gone on with.")
            inner = body.get("message")
            body = inner if isinstance(inner, dict) else {**body, "content": inner or body.get("content")}
        if not {"content", "tool_calls"} & body.keys():
            raise Refused(f"message {number} has neither text nor calls; {CAPTURE}.")
        role = "assistant" if name == "gen_ai.choice" else name.removeprefix("gen_ai.").removesuffix(".message")
        message = {**body, "role": role, "tool_calls": _decoded("tool_calls", body.get("tool_calls"))}
        message.setdefault("tool_call_id", body.get("id"))
        if not message.get("content"):
            message["content"] = next((said_with[id_] for id_ in _call_ids(message) if id_ in said_with), None)
        said.append(chat_message(message, number))
    return said
