"""Traces: every format gives one canonical conversation, and what can't be replayed is refused in a sentence."""

import gzip
import json
import random
import re
import zipfile
from pathlib import Path

import pytest

from firstfault.errors import UserError
from firstfault.traces.read import Trace, read_traces
from firstfault.tree import Call, Task, Tree, save_trees

LOGS = Path(__file__).parent / "logs"  # written by make_logs.py


def call(id_, name, **arguments):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def agent(content, *calls):
    return {"role": "assistant", "content": content} | ({"tool_calls": list(calls)} if calls else {})


def tool(id_, content):
    return {"role": "tool", "tool_call_id": id_, "content": content}


SYSTEM = {"role": "system", "content": "You are a calculator. Use the tools."}
USER = {"role": "user", "content": "What is (2 + 3) * (4 + 5)?"}
RUN = [
    SYSTEM,
    USER,
    agent("", call("call_1", "add", a=2, b=3), call("call_2", "add", a=4, b=5)),
    tool("call_1", "5"),
    tool("call_2", "9"),
    agent("Now I multiply.", call("call_3", "mul", a=5, b=9)),
    tool("call_3", "46"),
    agent("The answer is 46."),
]


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def read_one(path) -> Trace:
    [trace], refusals = read_traces(path)
    assert refusals == []
    return trace


def repacked(path: Path, folder: Path, compression=zipfile.ZIP_DEFLATED) -> Path:
    """An Inspect log with its samples from JSON, compressed as older versions did."""
    log = json.loads(gzip.decompress((LOGS / "inspect.json.gz").read_bytes()))
    with zipfile.ZipFile(folder / path, "w", compression) as archive:
        for sample in log["samples"]:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        archive.writestr("summaries.json", "[]")
        archive.writestr("header.json", json.dumps({key: log[key] for key in ("version", "status", "eval", "plan")}))
    return folder / path


# What is read

FORMATS = [  # file, format, id, success, answer, whether it has the tools
    ("openai_chat.json", "OpenAI chat", "run-7", False, "45", True),
    ("openai_chat_pair.json", "OpenAI chat", "chatcmpl-2", None, None, True),
    ("openai_responses_pair.json", "OpenAI Responses", "resp_2", None, None, True),
    ("openai_agents.json", "OpenAI Responses", "1", None, None, False),
    ("inspect.json.gz", "Inspect", "sum, epoch 1", False, "45", True),
    ("inspect.eval", "Inspect", "sum, epoch 1", False, "45", True),
    ("langchain_dicts.json", "LangChain", "1", None, None, False),
    ("langgraph_state.json", "LangChain", "1", None, None, False),
    ("langgraph_constructors.json", "LangChain", "1", None, None, False),
    ("opentelemetry_spans.json", "OpenTelemetry", None, None, None, False),
    ("opentelemetry_printed.json", "OpenTelemetry", None, None, None, False),
    ("opentelemetry_events.jsonl", "OpenTelemetry", None, None, None, False),
    ("opentelemetry_older.jsonl", "OpenTelemetry", None, None, None, False),
]


@pytest.mark.parametrize(("file", "source", "id_", "success", "answer", "has_tools"), FORMATS)
def test_every_format_gives_the_same_conversation(file, source, id_, success, answer, has_tools):
    if file.endswith(".eval"):
        pytest.importorskip("zstandard", reason="Inspect compresses by Zstandard")
    trace = read_one(LOGS / file)
    assert trace.messages == RUN
    assert (trace.source, trace.success, trace.answer) == (source, success, answer)
    assert trace.id == id_ if id_ else len(trace.id) == 32
    assert [tool["function"]["name"] for tool in trace.tools or []] == (["add", "mul"] if has_tools else [])
    for schema in trace.tools or []:
        assert schema["type"] == "function" and set(schema["function"]["parameters"]["properties"]) == {"a", "b"}


def test_every_log_is_tested():
    others = {"openai_agents_items.json"}
    assert {path.name for path in LOGS.iterdir()} == {row[0] for row in FORMATS} | others


def test_the_agents_sdk_keeps_its_instructions_elsewhere():
    assert read_one(LOGS / "openai_agents_items.json").messages == RUN[1:]


def test_an_archive_of_inspect_is_read_and_a_crowded_one_keeps_its_good_samples(tmp_path):
    path = repacked(Path("log.eval"), tmp_path)
    assert read_one(path).messages == RUN
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("samples/bad_epoch_1.json", "{")
        archive.writestr("samples/large_epoch_1/sample.json", "{}")
    [trace], refusals = read_traces(path)
    assert trace.messages == RUN
    assert [sentence.partition(":")[0] for sentence in refusals] == [
        "log.eval, samples/bad_epoch_1.json",
        "log.eval, samples/large_epoch_1/sample.json",
    ]


def test_an_archive_that_python_can_t_unpack_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    if hasattr(zipfile, "ZIP_ZSTANDARD"):
        pytest.skip("this Python can")
    with pytest.raises(UserError, match=r"pip install zstandard.*inspect log convert"):
        read_traces(LOGS / "inspect.eval")


def test_every_failed_run_of_our_own_trees_is_a_trace(tmp_path):
    tree = Tree(Task("6 × 7 + 1?", "43", id="t"), prompt=[1, 2])
    said = '<think>Hm: <tool_call>.</think>I multiply.\n<tool_call>{"name": "mul", "arguments": {"a": 6}}</tool_call>'
    a = tree.add(tree.root, rollout=0, text=said, calls=[Call("mul", {"a": 6}, "41"), Call("é", {}, "Error: no such")])
    tree.add(a, rollout=0, text="<think>..</think>It is 42.", end="answer", answer="It is 42.", success=False)
    tree.add(a, rollout=1, text="It is 43.", end="answer", answer="It is 43.", success=True)
    tree.add(a, rollout=2, text="Let me", end="max_tokens", success=False)
    broken = tree.add(tree.root, rollout=3, text="x", calls=[Call("", {}, "Error: What?", failed="malformed")])
    tree.add(broken, rollout=3, text="y", end="answer", answer="y", success=False)
    bare = tree.add(tree.root, rollout=4, text='{"name": "mul", "parameters": {}}', calls=[Call("mul", {}, "0")])
    bare.end, bare.success = "context", False
    save_trees([tree, Tree(Task("q", "a"), prompt=[1])], tmp_path / "step-0001.jsonl.gz")
    traces, [refusal] = read_traces(tmp_path / "step-0001.jsonl.gz")
    user = {"role": "user", "content": "6 × 7 + 1?"}
    calls = call("call_1_1", "mul", a=6), call("call_1_2", "é")
    step = [agent("I multiply.", *calls), tool("call_1_1", "41"), tool("call_1_2", "Error: no such")]
    assert traces == [
        Trace("t/2", [user, *step, agent("It is 42.")], None, False, "43", "firstfault trees"),
        Trace("t/4", [user, *step, agent("Let me")], None, False, "43", "firstfault trees"),
        Trace("t/7", [user, agent("", call("call_1_1", "mul")), tool("call_1_1", "0")], None, False, "43",
              "firstfault trees"),
    ]  # fmt: skip
    assert refusal == (
        "step-0001.jsonl.gz, line 1, trace 3 (t/6): step 1 makes a call that could not be read when it was "
        "made, and so can't be made again; leave this run out."
    )


def test_trees_without_a_failed_run_hold_no_trace(tmp_path):
    save_trees([Tree(Task("q", "a"), prompt=[1])], tmp_path / "trees.jsonl.gz")
    with pytest.raises(UserError, match="holds no run that could be searched"):
        read_traces(tmp_path / "trees.jsonl.gz")


PLACES = {
    "a list of traces": lambda: json.dumps([RUN, {"messages": RUN}]),
    "an object with a list": lambda: json.dumps([{"messages": RUN}, {"values": {"messages": RUN}}]),
    "JSON lines": lambda: "\n\n".join([json.dumps(RUN), json.dumps({"messages": RUN})]) + "\n",
    "values over several lines": lambda: json.dumps(RUN, indent=2) + "\n" + json.dumps({"messages": RUN}, indent=1),
    "a byte order mark": lambda: "\ufeff" + json.dumps([RUN, RUN]),
}


@pytest.mark.parametrize("content", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("packed", [False, True])
def test_many_traces_stand_in_one_file(content, packed, tmp_path):
    path = tmp_path / "whatever.name"
    data = content().encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    traces, refusals = read_traces(path)
    assert [trace.messages for trace in traces] == [RUN, RUN] and not refusals
    assert [trace.id for trace in traces] == ["1", "2"]


def test_a_message_a_line_is_one_trace(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(message) + "\n" for message in RUN))
    assert read_one(path).messages == RUN


def test_a_message_a_line_must_be_whole(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(message) + "\n" for message in RUN) + '{"role": "us')
    with pytest.raises(UserError, match="line 9: it is not JSON"):
        read_traces(path)


def test_one_bad_trace_does_not_lose_the_others(tmp_path):
    path = tmp_path / "runs.jsonl"
    bad = {"id": "run-2", "messages": RUN[:3] + RUN[4:]}
    lines = [json.dumps({"id": "run-1", "messages": RUN}), "{", json.dumps(bad), json.dumps({"x": 1}), json.dumps(RUN)]
    path.write_text("\n".join(lines))
    traces, refusals = read_traces(path)
    assert [(trace.id, trace.messages) for trace in traces] == [("run-1", RUN), ("4", RUN)]
    assert [sentence[:40] for sentence in refusals] == [
        "runs.jsonl, line 2: it is not JSON (Expe",
        "runs.jsonl, line 3, trace 2 (run-2): mes",
        "runs.jsonl, line 4, trace 3: it is an ob",
    ]


def change(i, **fields):
    return [{**message, **fields} if i == j else message for j, message in enumerate(RUN)]


def without(i, *keys):
    return [{k: v for k, v in m.items() if i != j or k not in keys} for j, m in enumerate(RUN)]


def legacy():
    """The interface before tool calls: one function a message, without an id."""
    return [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 2}'}},
        {"role": "function", "name": "add", "content": "5"},
        {"role": "assistant", "content": "5"},
    ]


VARIANTS = {  # what a log may have, and what it means
    "parts of text": (change(1, content=[{"type": "text", "text": "What "}, "is", {"type": "text", "text": "?"}]),
                      change(1, content="What is?")),
    "a developer": (change(0, role="developer"), RUN),
    "no content": (change(2, content=None), RUN),
    "a refusal": (change(7, content=None, refusal="I won't."), change(7, content="I won't.")),
    "thoughts": (change(7, reasoning_content="Hm.", content=[{"type": "thinking", "thinking": "Hm."},
                                                             {"type": "text", "text": "The answer is 46."}]), RUN),
    "arguments as an object": (change(5, tool_calls=[{"id": "call_3", "function": {"name": "mul", "arguments": {
        "a": 5, "b": 9}}}]), RUN),
    "no arguments": (change(5, tool_calls=[{"id": "call_3", "function": {"name": "mul", "arguments": ""}}]),
                     change(5, tool_calls=[call("call_3", "mul")])),
    "functions": (legacy(), [USER, agent("", call("call_0", "add", a=2)), tool("call_0", "5"), agent("5")]),
    "an open last call": (RUN[:6], RUN[:6]),
    "a last call half open": ([*RUN[:5], *RUN[2:4]], [*RUN[:5], *RUN[2:4]]),
    "results in another order": ([*RUN[:3], RUN[4], RUN[3], *RUN[5:]], [*RUN[:3], RUN[4], RUN[3], *RUN[5:]]),
    "two users": ([*RUN, USER, agent("46.")], [*RUN, USER, agent("46.")]),
    "half a surrogate pair": (change(6, content="\ud83d"), change(6, content="\ufffd")),
    "no ids": ([USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}]},
                {"role": "tool", "name": "g", "content": "G"}, {"role": "tool", "content": "F"}],
               [USER, agent("", call("call_0", "f"), call("call_1", "g")), tool("call_1", "G"), tool("call_0", "F")]),
}  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), VARIANTS.values(), ids=VARIANTS.keys())
def test_variants_of_chat_messages_mean_the_same(given, expected, tmp_path):
    assert read_one(write(tmp_path / "run.json", given)).messages == expected


ANTHROPIC = {
    "id": "run-7", "system": "Be terse.", "success": False,
    "tools": [{"name": "add", "input_schema": {"type": "object", "properties": {}}}],
    "messages": [
        {"role": "user", "content": "1 + 1, 2 + 2?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Both."},
            {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}},
            {"type": "tool_use", "id": "b", "name": "add", "input": {"x": 2}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "4"}]},
            {"type": "tool_result", "tool_use_id": "a", "content": "2"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "2 and 4."}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("is_exchange", [False, True])
def test_anthropic_messages(is_exchange, tmp_path):
    value = ANTHROPIC
    if is_exchange:
        *messages, last = ANTHROPIC["messages"]
        value = {"request": {**ANTHROPIC, "messages": messages}, "response": {"content": last["content"]}}
    trace = read_one(write(tmp_path / "run.json", value))
    assert (trace.source, trace.id, trace.success) == ("Anthropic", "run-7", False)
    assert trace.tools[0]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert [(m["role"], m["content"]) for m in trace.messages] == [
        ("system", "Be terse."), ("user", "1 + 1, 2 + 2?"), ("assistant", "Both."), ("tool", "4"), ("tool", "2"),
        ("assistant", "2 and 4."),
    ]  # fmt: skip
    assert trace.messages[2]["tool_calls"][1]["function"] == {"name": "add", "arguments": '{"x": 2}'}


def test_of_a_log_of_every_call_the_last_is_the_run(tmp_path):
    calls = [RUN[:5], RUN[:6], RUN]
    other = [{**RUN[0], "content": "Another."}, *RUN[1:]]
    traces, refusals = read_traces(write(tmp_path / "log.json", [{"messages": m} for m in (*calls, other)]))
    assert [trace.messages for trace in traces] == [RUN, other]
    assert refusals == ["log.json: 2 traces are only the beginnings of others"]


VERDICTS = [
    ({}, None), ({"success": True}, True), ({"success": False, "reward": 1}, False), ({"reward": 0}, False),
    ({"reward": 0.5}, False), ({"reward": 1.0}, True), ({"reward": None}, None), ({"success": "yes"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "success"), VERDICTS)
def test_a_log_says_whether_the_run_succeeded(fields, success, tmp_path):
    assert read_one(write(tmp_path / "run.json", {"messages": RUN, **fields})).success is success


SCORES = [
    (None, None), ({}, None), ({"a": {"value": "C"}}, True), ({"a": {"value": "I"}}, False),
    ({"a": {"value": "P"}}, False), ({"a": {"value": "N"}}, False), ({"a": {"value": True}}, True),
    ({"a": {"value": 0.9}}, False), ({"a": {"value": "1.0"}}, True), ({"a": {"value": {"x": 1}}}, None),
    ({"a": {"value": "C"}, "b": {"value": 0}}, False), ({"a": {"value": "words"}, "b": {"value": 1}}, True),
]  # fmt: skip


@pytest.mark.parametrize(("scores", "success"), SCORES)
def test_a_sample_of_inspect_succeeds_if_all_its_scores_say_so(scores, success, tmp_path):
    sample = {"id": 3, "epoch": 2, "target": ["45", "46"], "messages": RUN, "scores": scores}
    trace = read_one(write(tmp_path / "sample.json", sample))
    assert (trace.success, trace.answer, trace.id) == (success, None, "3, epoch 2")  # either would do
    assert read_one(write(tmp_path / "sample.json", {**sample, "target": ["45"]})).answer == "45"


def test_what_inspect_keeps_apart_is_put_back(tmp_path):
    error = {"type": "timeout", "message": "too slow"}
    messages = [*change(3, content="attachment://abc")[:4], {**RUN[4], "content": "", "error": error}, *RUN[5:]]
    sample = {"id": 1, "epoch": 1, "target": "", "messages": messages, "attachments": {"abc": "long"}}
    trace = read_one(write(tmp_path / "sample.json", sample))
    assert [message["content"] for message in trace.messages[3:5]] == ["long", "Error: too slow"]


def test_older_langchain_messages_have_openai_s_calls(tmp_path):
    messages = [
        {"type": "human", "data": {"content": "q"}},
        {"type": "ai", "data": {"content": "", "additional_kwargs": {"tool_calls": [call("a", "f", x=1)]}}},
        {"type": "ToolMessageChunk", "data": {"content": [{"type": "text", "text": "1"}], "tool_call_id": "a"}},
        {"type": "chat", "data": {"role": "assistant", "content": "1"}},
    ]
    expected = [{"role": "user", "content": "q"}, agent("", call("a", "f", x=1)), tool("a", "1"), agent("1")]
    assert read_one(write(tmp_path / "run.json", messages)).messages == expected


def test_spans_have_instructions_and_tools_apart_and_the_last_chat_counts(tmp_path):
    parameters = {"type": "object", "properties": {}}
    tools = [{"type": "function", "name": "f", "description": "F.", "parameters": parameters}, {"type": "web_search"}]
    given = [
        {"role": "user", "parts": [{"type": "text", "content": "q"}]},
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm."}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "a", "name": "f", "arguments": {"x": 1}}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "b", "name": "f"}]},
        {"role": "user", "parts": [{"type": "tool_call_response", "id": i, "response": {"y": i}} for i in "ab"]},
    ]
    last = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system_instructions": [{"type": "text", "content": "s"}],
        "gen_ai.tool.definitions": json.dumps(tools),
        "gen_ai.input.messages": json.dumps(given),
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "2"}]}],
    }
    first = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": given[:1]}
    judge = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": given[:1]}
    whole = {"gen_ai.operation.name": "invoke_agent", "gen_ai.input.messages": given[:1]}
    spans = [
        {"traceId": "ab", "spanId": str(i), "startTimeUnixNano": time, "attributes": attributes}
        for i, (time, attributes) in enumerate(
            [("20", last), ("3", first), ("30", judge), ("40", whole), ("50", {"http.route": "x"})]
        )
    ]
    spans.append({"traceId": "cd", "spanId": "9", "attributes": {"http.route": "x"}})
    trace = read_one(write(tmp_path / "spans.json", spans))
    assert trace.messages == [
        {"role": "system", "content": "s"}, {"role": "user", "content": "q"},
        agent("", call("a", "f", x=1), call("b", "f")), tool("a", '{"y": "a"}'), tool("b", '{"y": "b"}'), agent("2"),
    ]  # fmt: skip
    function = {"name": "f", "description": "F.", "parameters": parameters}
    assert trace.tools == [{"type": "function", "function": function}]


def test_events_of_the_older_conventions_may_be_json(tmp_path):
    def event(name, **content):
        return name, {"gen_ai.event.content": json.dumps(content)}

    calls = [call("a", "f", x=1)]
    value = older_span(
        event("gen_ai.user.message", content="q"),
        event("gen_ai.assistant.message", tool_calls=calls),
        event("gen_ai.tool.message", id="a", content="1"),
        event("gen_ai.choice", index=0, finish_reason="stop", message={"content": "It is 1."}),
    )
    expected = [{"role": "user", "content": "q"}, agent("", *calls), tool("a", "1"), agent("It is 1.")]
    assert read_one(write(tmp_path / "spans.json", value)).messages == expected


# What is refused

IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}
CUSTOM = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}


def with_arguments(arguments):
    return change(5, tool_calls=[{"id": "call_3", "function": {"name": "mul", "arguments": arguments}}])


def older_span(*events):
    span = {"traceId": "ab", "spanId": "1", "attributes": [], "events": [
        {"name": name, "timeUnixNano": i, "attributes": [{"key": k, "value": {"stringValue": v}} for k, v in a.items()]}
        for i, (name, a) in enumerate(events)
    ]}  # fmt: skip
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def span(**attributes):
    values = {"gen_ai." + name.replace("__", "."): value for name, value in attributes.items()}
    return {"traceId": "ab", "spanId": "1", "attributes": values}


REFUSALS = {
    "no messages": ({"messages": []}, "trace 1: it holds no messages; give the whole"),
    "no call": ([USER, agent("46")], "trace 1: it has no step whose tool calls all have results, so there is none"),
    "only an open call": ([USER, RUN[5]], "it has no step whose tool calls all have results"),
    "some results of one step": (RUN[:4], "it has no step whose tool calls all have results"),
    "a call without its result": (RUN[:4] + RUN[5:], r"message 3 calls add \(call_2\), and message 5 follows"),
    "a result without its call": (RUN[:2] + RUN[3:], r"message 3 is the result of a call that was not made .*\(call_1"),
    "two results": ([*RUN[:4], RUN[3], *RUN[4:]], r"message 5 is the result of a call"),
    "equal ids": (change(2, tool_calls=[call("x", "f"), call("x", "g")]), "message 3 gives two calls the same id"),
    "starts with the agent": (RUN[2:], "it starts in the middle: message 1 is of the role assistant"),
    "starts with a tool": (RUN[3:], "it starts in the middle: message 1 is of the role tool"),
    "a list of arguments": (with_arguments("[5, 9]"), "message 6 makes a call .* must be a JSON object, not a list"),
    "broken arguments": (with_arguments('{"a": 5'), r"message 6 makes a call that .* \(.* not valid JSON"),
    "arguments that are no JSON": (with_arguments('{"a": NaN}'), "message 6 makes a call .* NaN"),
    "a call without a name": (change(5, tool_calls=[{"id": "x", "function": {}}]), 'message 6 .* has no "name"'),
    "a custom tool": (change(5, tool_calls=[CUSTOM]), "message 6 calls a custom tool, whose input is free text"),
    "an image": (change(1, content=[IMAGE]), "message 2 holds a part of the type 'image_url', where only text"),
    "audio": (change(7, content=None, audio={"id": "x"}), "message 8 holds a part of the type 'audio'"),
    "an object for content": (change(6, content={"sum": 46}), "message 7 has an object for content, where a text"),
    "an unknown role": (change(1, role="critic"), "message 2 has the role 'critic', where system, user"),
    "no role": ([*RUN, {}], "message 9 has the role None"),
    "not a message": ([*RUN, 5], "message 9 is a number, where an object with a role was expected"),
    "choices": ({"messages": RUN[:7], "choices": [{"message": RUN[7]}] * 2}, "branches into 2 choices"),
    "a request without a list": ({"request": {"messages": None}, "response": {"content": []}},
                                 "its messages are null, not a list; save the request as it was sent"),
    "parts of a stream": ({"messages": RUN[:7], "choices": [{"delta": {}}]}, "not parts of a stream"),
    "stored beginnings": ({"input": [{"type": "message", "role": "user", "content": "q"}], "output": [],
                           "previous_response_id": "resp_1"}, "it starts in the middle: .* stored at OpenAI"),
    "a hosted tool": ([USER, {"type": "web_search_call", "id": "x"}], "message 2 is an item of the type 'web_search"),
    "input that is no list": ({"input": 5, "output": []}, "its input and output are no lists of items"),
    "langchain: unreadable calls": ([{"type": "human", "content": "q"},
        {"type": "ai", "content": "", "invalid_tool_calls": [{"name": "f"}]}], r"message 2 .* \(invalid_tool_calls\)"),
    "langchain: not written": ([{"type": "human", "content": "q"}, {"lc": 1, "type": "not_implemented", "id": ["X"]}],
                               "message 2 is an object that LangChain could not write down"),
    "langchain: an image": ([{"type": "human", "content": [{"type": "image_url"}]}], "message 1 holds a part of the"),
    "inspect: no samples": ({"eval": {}, "plan": {}, "status": "started"}, "the log has no samples: it was read head"),
    "inspect: unreadable calls": ({"id": 1, "epoch": 1, "target": "", "messages": change(5, tool_calls=[
        {"id": "a", "function": "mul", "arguments": {}, "parse_error": "bad"}])}, "message 6 makes a call whose arg"),
    "spans: no messages": ([span(operation__name="chat")], r"trace 1 \(ab\): its spans hold no messages; set OTEL_"),
    "spans: an endless number": ({"traceId": "ab", "attributes": [{"key": "gen_ai.x", "value": {"intValue": 1e999}}]},
                                 r"its spans can't be read \(OverflowError"),
    "spans: cut off": ([span(input__messages='[{"role": "us')], "the attribute gen_ai.input.messages is not JSON"),
    "spans: not a list": ([span(input__messages="{}")], "the attribute gen_ai.input.messages is an object, where a"),
    "spans: choices": ([span(output__messages=[{"role": "assistant", "parts": []}] * 2)], "branches into 2 choices"),
    "spans: no parts": ([span(input__messages=[USER])], "message 1 has no list of parts; log it by the conventions"),
    "spans: an image": ([span(input__messages=[{"role": "user", "parts": [{"type": "blob", "content": "x"}]}])],
                        "message 1 holds a part of the type 'blob'"),
    "spans: a user's call": ([span(input__messages=[{"role": "user", "parts": [{"type": "tool_call", "name": "f"}]}])],
                             "message 1 makes a call, but is of the role user"),
    "inspect: a lost text": ({"id": 1, "epoch": 1, "target": "", "messages": change(6, content="attachment://abc")},
                             r"it refers to a text that the log does not hold \(attachment://abc\)"),
    "a hostile role": (change(1, role="\x1b[31m\n" + "x" * 1000), "message 2 has the role"),
    "spans: a tool without a result": ([span(input__messages=[{"role": "tool", "parts": [{"type": "text",
        "content": "5"}]}])], "message 1 of a tool holds no tool_call_response"),
    "events: choices": (older_span(*[("gen_ai.choice", {"content": "x"})] * 2), "branches into several choices"),
    "events: no messages": (older_span(("gen_ai.user.message", {"gen_ai.system": "x"})), "message 1 has neither text"),
    "a tree that is none": ({"task": {}, "nodes": []}, "it is no tree that firstfault wrote"),
    "an unknown object": ({"foo": 1}, "it is an object with 'foo', which is no format that is known; known are OpenAI"),
    "an empty list": ([], "it is an empty list, which is no format"),
    "a number": (5, "it is a number, which is no format"),
    "a list of numbers": ([5], "it is a number, which is no format"),
    "types that are wrong": ({"messages": change(5, tool_calls=5)}, r"it is not what OpenAI chat writes \(TypeError"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "sentence"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_can_t_be_replayed_is_refused_in_a_sentence_that_names_it(value, sentence, tmp_path):
    path = write(tmp_path / "run.json", value)
    with pytest.raises(UserError, match=sentence) as error:
        read_traces(path)
    assert str(error.value).startswith(f"{path} holds no trace that can be replayed: run.json, trace 1")
    assert str(error.value).endswith((".", "…")) and str(error.value).isprintable()
    assert len(str(error.value)) < 1000
    # and the same beside a good one
    lines = tmp_path / "runs.jsonl"
    lines.write_text(json.dumps({"messages": RUN}) + "\n" + json.dumps(value) + "\n")
    [trace], [refusal] = read_traces(lines)
    assert trace.messages == RUN
    assert refusal.partition(": ")[2] in str(error.value)
    assert re.match(r"runs.jsonl(, line 2)?, trace 2", refusal)


FILES = {
    "nothing": (b"", "is empty; give a log of at least one run"),
    "blanks": (b" \n\n", "is empty"),
    "prose": (b"This is no log.", "is neither JSON nor JSON lines"),
    "cut off": (json.dumps(RUN).encode()[:-9], "may be cut off: give the whole file"),
    "not UTF-8": (b"\xff\xfe{\x00", "is not text in UTF-8"),
    "half an archive": (gzip.compress(json.dumps(RUN).encode())[:-20], "can't be read"),
    "half a zip": (b"PK\x03\x04abc", "is a broken archive"),
    "too deep": (b"[" * 100_000, "is neither JSON nor JSON lines"),
}


@pytest.mark.parametrize(("data", "sentence"), FILES.values(), ids=FILES.keys())
def test_a_file_that_holds_no_values_is_refused(data, sentence, tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=sentence):
        read_traces(path)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "no.json"):
        with pytest.raises(UserError, match="can't be read"):
            read_traces(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(UserError, match="is an archive, but no log of Inspect"):
        read_traces(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    with pytest.raises(UserError, match="holds no samples; run the evaluation to the end"):
        read_traces(path)


# Steps


def test_a_step_is_a_message_of_the_agent_with_the_results_of_its_calls():
    trace = Trace("1", RUN)
    assert trace.question == USER["content"]
    assert trace.steps == [(2, 5), (5, 7), (7, 8)]
    assert trace.tool_steps == 2
    assert [len(trace.prefix(m)) for m in range(3)] == [2, 5, 7]
    for m in (-1, 3):
        with pytest.raises(ValueError, match="steps of 2"):
            trace.prefix(m)


def test_an_open_last_call_is_a_step_that_has_no_prefix():
    for messages in (RUN[:6], RUN[:3], RUN[:4]):
        trace = Trace("1", messages)
        assert trace.steps[-1][1] == len(messages)
        assert trace.tool_steps == len(trace.steps) - 1


def test_words_to_a_user_in_between_are_no_step():
    messages = [USER, agent("Which?"), USER, *RUN[2:5], agent("5 and 9. Go on?"), USER, *RUN[5:], USER]
    trace = Trace("1", messages)
    assert trace.steps == [(3, 6), (8, 10), (10, 11)]
    assert trace.prefix(0) == [USER]
    assert trace.prefix(2)[-1] == RUN[6]


# Round trips: random conversations, written in every format


def conversation(draw):
    """A random run, in canonical form."""

    def text(least=0):
        return "".join(draw.choice(['"', "\\", "\n", "é", "日", "😀", "\u2028", " ", "a", "{"])
                       for _ in range(draw.randrange(least, 6)))  # fmt: skip

    def value(depth=0):
        kind = draw.randrange(6 if depth < 2 else 4)
        if kind == 4:
            return [value(depth + 1) for _ in range(draw.randrange(3))]
        if kind == 5:
            return {text(): value(depth + 1) for _ in range(draw.randrange(3))}
        return [draw.randrange(-9, 9), draw.random(), None, text()][kind]

    messages = [{"role": "system", "content": text(1)}] if draw.random() < 0.5 else []
    messages.append({"role": "user", "content": text(1)})
    for step in range(draw.randrange(1, 5)):
        calls = []
        for i in range(draw.randrange(1, 4)):
            arguments = json.dumps({text(): value() for _ in range(draw.randrange(3))}, ensure_ascii=False)
            function = {"name": draw.choice(["f", "g-1"]), "arguments": arguments}
            calls.append({"id": f"c{step}_{i}", "type": "function", "function": function})
        messages.append(agent(text(), *calls))
        messages += [tool(one["id"], text()) for one in draw.sample(calls, len(calls))]
        if draw.random() < 0.2:
            messages += [agent(text(1)), {"role": "user", "content": text(1)}]
    return [*messages, agent(text(1))] if draw.random() < 0.7 else messages


def as_responses(messages):
    items = []
    for message in messages:
        if message["role"] == "tool":
            output = message["content"]
            items.append({"type": "function_call_output", "call_id": message["tool_call_id"], "output": output})
            continue
        kind = "output_text" if message["role"] == "assistant" else "input_text"
        if message["content"] or not message.get("tool_calls"):
            content = [{"type": kind, "text": message["content"]}]
            items.append({"type": "message", "role": message["role"], "content": content})
        for one in message.get("tool_calls", []):
            items.append({"type": "function_call", "call_id": one["id"], **one["function"]})
    return items


def as_langchain(messages):
    types = {"user": "human", "assistant": "ai"}
    given = []
    for message in messages:
        fields = {"type": types.get(message["role"], message["role"]), "content": message["content"]}
        fields["tool_calls"] = [
            {"name": one["function"]["name"], "args": json.loads(one["function"]["arguments"]), "id": one["id"]}
            for one in message.get("tool_calls", [])
        ]
        given.append(fields | {"tool_call_id": message.get("tool_call_id")})
    return {"messages": given}


def as_spans(messages):
    said = []
    for message in messages:
        parts = [{"type": "text", "content": message["content"]}] if message["content"] else []
        if message["role"] == "tool":
            parts = [{"type": "tool_call_response", "id": message["tool_call_id"], "response": message["content"]}]
        for one in message.get("tool_calls", []):
            parts.append({"type": "tool_call", "id": one["id"], **one["function"]})
        said.append({"role": message["role"], "parts": parts})
    key, text = "gen_ai.input.messages", json.dumps(said)
    spans = [{"traceId": "ab", "spanId": "1", "attributes": [{"key": key, "value": {"stringValue": text}}]}]
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


def as_inspect(messages):
    given = json.loads(json.dumps(messages))
    for message in given:
        for one in message.get("tool_calls", []):
            one |= {"function": one["function"]["name"], "arguments": json.loads(one["function"]["arguments"])}
    return {"eval": {}, "plan": {}, "samples": [{"id": 1, "epoch": 1, "target": "x", "messages": given}]}


WRITERS = {
    "chat": lambda messages: messages, "responses": as_responses, "langchain": as_langchain, "spans": as_spans,
    "inspect": as_inspect,
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())
def test_any_conversation_comes_back_from_a_file(writer, tmp_path):
    draw = random.Random(0)
    for _ in range(100):
        messages = conversation(draw)
        trace = read_one(write(tmp_path / "run.json", writer(messages)))
        assert trace.messages == messages
        assert read_one(write(tmp_path / "again.json", trace.messages)).messages == messages
        assert sum(end - start for start, end in trace.steps) <= len(messages)
        for m in range(trace.tool_steps + 1):
            assert trace.prefix(m) == messages[: len(trace.prefix(m))]


# Broken logs


def damaged(value, draw):
    """The value with something in it of another type, or gone."""
    junk = [None, 5, "x", [], {}, True, [[]], {"type": "text"}, -1e308, [None], {"role": 5}, "\ud800", {"id": []}]
    if draw.random() < 0.1 or not isinstance(value, dict | list) or not value:
        return draw.choice(junk)
    if isinstance(value, dict):
        key = draw.choice(sorted(value))
        if draw.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: damaged(value[key], draw)}
    i = draw.randrange(len(value))
    if draw.random() < 0.1:
        return [*value[:i], *value[i + 1 :]]
    return [*value[:i], damaged(value[i], draw), *value[i + 1 :]]


def survives(path):
    try:
        traces, refusals = read_traces(path)
    except UserError as error:
        assert str(error).isprintable()
        return
    assert traces and all(sentence.isprintable() for sentence in refusals)
    for trace in traces:
        json.dumps(trace.messages, ensure_ascii=False).encode()
        assert isinstance(trace.id, str) and isinstance(trace.question, str)
        assert all(isinstance(message["content"], str) for message in trace.messages)
        assert trace.prefix(trace.tool_steps)


def logs():
    """The logs as values, with one of our own trees."""
    for path in sorted(LOGS.iterdir()):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        if path.suffix != ".eval" and "printed" not in path.name:
            yield [json.loads(line) for line in data.splitlines()] if path.suffix == ".jsonl" else [json.loads(data)]
    tree = Tree(Task("q", "a", id="t"), prompt=[1])
    step = tree.add(tree.root, rollout=0, text="I add.", calls=[Call("add", {"a": 1}, "2")])
    tree.add(step, rollout=0, text="2", end="answer", answer="2", success=False)
    yield [json.loads(tree.to_json())]


def test_logs_of_the_wrong_types_are_refused_and_nothing_else(tmp_path):
    draw = random.Random(0)
    path = tmp_path / "run.jsonl"
    for values in logs():
        for _ in range(60):
            broken = values
            for _ in range(draw.randrange(1, 4)):
                broken = damaged(broken, draw)
            broken = broken if isinstance(broken, list) else [broken]
            path.write_text("\n".join(map(json.dumps, broken)))
            survives(path)


def test_logs_that_are_cut_off_or_garbled_are_refused_and_nothing_else(tmp_path):
    draw = random.Random(0)
    path = tmp_path / "run"
    packed = repacked(Path("log.eval"), tmp_path)
    for log in [*sorted(LOGS.iterdir()), packed]:
        data = log.read_bytes()
        for _ in range(25):
            cut = data[: draw.randrange(len(data))]
            path.write_bytes(cut)
            survives(path)
            at = draw.randrange(len(data))
            path.write_bytes(data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :])
            survives(path)


# The page


def test_the_examples_of_the_docs_are_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()
    blocks = re.findall(r"```json\n(.+?)```", page, re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        path = tmp_path / "example.json"
        path.write_text(block)
        trace = read_one(path)
        assert (trace.question, trace.tool_steps) == ("1 + 1?", 1)
        assert trace.messages[1:3] == [agent("", call("a", "add", x=1, y=1)), tool("a", "3")]
