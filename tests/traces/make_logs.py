r"""Writes the logs in traces/: the same three-step run of a scripted agent, logged by each format's own library.

Not a test and not needed by any: run it to renew the logs. With Python 3.11, in an environment of its own:

    pip install inspect_ai==0.3.285 langchain-core==1.7.2 langgraph==1.2.22 openai==3.54.0 openai-agents==0.24.0 \
        opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-common==1.45.2 \
        opentelemetry-instrumentation-openai-v2==2.4b0 opentelemetry-util-genai==1.1b0
    python tests/traces/make_logs.py

and the events of the older conventions, which newer versions don't write, in another one:

    pip install openai==3.54.0 opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-common==1.45.2 \
        opentelemetry-instrumentation-openai-v2==2.2b0 "wrapt<2"
    python tests/traces/make_logs.py opentelemetry_older

The model is a script behind each library's own client, or its own fake model; the tools really run. The run is lost:
mul is wrong by one.
"""

import asyncio
import base64
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "logs"
SYSTEM, QUESTION = "You are a calculator. Use the tools.", "What is (2 + 3) * (4 + 5)?"
TURNS = [
    ("", [("call_1", "add", {"a": 2, "b": 3}), ("call_2", "add", {"a": 4, "b": 5})]),
    ("Now I multiply.", [("call_3", "mul", {"a": 5, "b": 9})]),
    ("The answer is 46.", []),
]
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": what, "parameters": PARAMETERS}}
    for name, what in (("add", "Add two numbers."), ("mul", "Multiply two numbers."))
]


def run(name, a, b):
    return a + b if name == "add" else a * b + 1


def write(name, value):
    (FOLDER / name).write_text(json.dumps(value, indent=1) + "\n")


# OpenAI's client, with a script in the place of its server


def completion(turn):
    text, calls = TURNS[turn]
    message = {"role": "assistant", "content": text or None, "refusal": None}
    if calls:
        message["tool_calls"] = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for id_, name, arguments in calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    return {
        "id": f"chatcmpl-{turn}", "object": "chat.completion", "created": 0, "model": "scripted",
        "choices": [choice], "usage": usage,
    }  # fmt: skip


def response(turn):
    text, calls = TURNS[turn]
    output = [{"type": "reasoning", "id": f"rs_{turn}", "summary": []}]
    if text:
        part = {"type": "output_text", "text": text, "annotations": []}
        item = {"type": "message", "id": f"msg_{turn}", "role": "assistant", "status": "completed", "content": [part]}
        output.append(item)
    output += [
        {"type": "function_call", "id": f"fc_{id_}", "call_id": id_, "name": name, "arguments": json.dumps(arguments),
         "status": "completed"}
        for id_, name, arguments in calls
    ]  # fmt: skip
    return {
        "id": f"resp_{turn}", "object": "response", "created_at": 0, "model": "scripted", "status": "completed",
        "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def handler():
    import httpx

    turns = {"chat/completions": iter(map(completion, range(3))), "responses": iter(map(response, range(3)))}

    def answer(request):
        return httpx.Response(200, json=next(turns[request.url.path.removeprefix("/v1/")]))

    return answer


def openai_client():
    import httpx
    from openai import OpenAI

    return OpenAI(api_key="none", http_client=httpx.Client(transport=httpx.MockTransport(handler())))


def chat_loop(client):
    """The usual loop on chat completions; gives the last request and the last response."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    while True:
        request = {"model": "scripted", "messages": list(messages), "tools": TOOLS}
        answer = client.chat.completions.create(**request)
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return request, answer, messages
        for call in message.tool_calls:
            output = str(run(call.function.name, **json.loads(call.function.arguments)))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})


def openai_chat():
    request, answer, messages = chat_loop(openai_client())
    write("openai_chat.json", {"id": "run-7", "messages": messages, "tools": TOOLS, "reward": 0.0, "answer": "45"})
    write("openai_chat_pair.json", {"request": request, "response": answer.model_dump(mode="json")})


def openai_responses():
    client, items = openai_client(), [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "strict": False, **tool["function"]} for tool in TOOLS]
    while True:
        request = {"model": "scripted", "instructions": SYSTEM, "input": list(items), "tools": tools}
        answer = client.responses.create(**request)
        items += [item.model_dump(mode="json", exclude_none=True) for item in answer.output]
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            break
        for call in calls:
            output = str(run(call.name, **json.loads(call.arguments)))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
    write("openai_responses_pair.json", {"request": request, "response": answer.model_dump(mode="json")})


def openai_agents():
    import httpx
    from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)

    @function_tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return run("add", a, b)

    @function_tool
    def mul(a: int, b: int) -> int:
        """Multiply two numbers."""
        return run("mul", a, b)

    http = httpx.AsyncClient(transport=httpx.MockTransport(handler()))
    model = OpenAIResponsesModel("scripted", AsyncOpenAI(api_key="none", http_client=http))
    agent = Agent(name="calculator", instructions=SYSTEM, model=model, tools=[add, mul])
    result = asyncio.run(Runner.run(agent, QUESTION))
    write("openai_agents.json", {"instructions": SYSTEM, "input": result.to_input_list()})
    write("openai_agents_items.json", result.to_input_list())


# LangGraph, with a scripted model of LangChain's


def langgraph():
    from langchain_core.language_models import BaseChatModel
    from langchain_core.load import dumps
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, messages_to_dict
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_core.tools import tool
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    class Scripted(BaseChatModel):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            text, calls = TURNS[sum(message.type == "ai" for message in messages)]
            calls = [{"id": id_, "name": name, "args": arguments} for id_, name, arguments in calls]
            return ChatResult(generations=[ChatGeneration(message=AIMessage(text, tool_calls=calls))])

        @property
        def _llm_type(self):
            return "scripted"

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return run("add", a, b)

    @tool
    def mul(a: int, b: int) -> int:
        """Multiply two numbers."""
        return run("mul", a, b)

    model = Scripted()
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([add, mul]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    state = graph.compile().invoke({"messages": [SystemMessage(SYSTEM), HumanMessage(QUESTION)]})
    write("langchain_dicts.json", messages_to_dict(state["messages"]))
    write("langgraph_state.json", {"messages": [message.model_dump(mode="json") for message in state["messages"]]})
    write("langgraph_constructors.json", json.loads(dumps(state)))


# Inspect, with its own fake model


def inspect():
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageAssistant, ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate, system_message, use_tools
    from inspect_ai.tool import ToolCall, tool

    @tool
    def add():
        async def execute(a: int, b: int):
            """Add two numbers.

            Args:
                a: one
                b: the other
            """
            return run("add", a, b)

        return execute

    @tool
    def mul():
        async def execute(a: int, b: int):
            """Multiply two numbers.

            Args:
                a: one
                b: the other
            """
            return run("mul", a, b)

        return execute

    outputs = []
    for text, calls in TURNS:
        made = [ToolCall(id=id_, function=name, arguments=arguments) for id_, name, arguments in calls]
        message = ChatMessageAssistant(content=text, tool_calls=made or None)
        output = ModelOutput.from_message(message, stop_reason="tool_calls" if calls else "stop")
        output.usage = ModelUsage(input_tokens=10, output_tokens=10, total_tokens=20)  # or it is counted, by a download
        outputs.append(output)
    task = Task(
        dataset=[Sample(input=QUESTION, target="45", id="sum")],
        solver=[system_message(SYSTEM), use_tools([add(), mul()]), generate()],
        scorer=includes(),
        name="calculator",
    )
    for form in ("json", "eval"):
        with tempfile.TemporaryDirectory() as folder:
            model = get_model("mockllm/model", custom_outputs=list(outputs), memoize=False)
            [log] = eval(task, model=model, log_dir=folder, log_format=form, display="none")
            assert log.status == "success", log.error.message
            [path] = Path(folder).glob(f"*.{form}")
            data = path.read_bytes()
            if form == "json":
                (FOLDER / "inspect.json.gz").write_bytes(gzip.compress(data, mtime=0))
            else:
                (FOLDER / "inspect.eval").write_bytes(data)


# OpenTelemetry, from its instrumentation of OpenAI's client; how messages are logged is set by the environment


def opentelemetry(name):
    stability, capture = TELEMETRY[name]
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = stability
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = capture
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    def otlp(message):
        """OTLP's JSON differs from protobuf's in its ids, which are hexadecimal."""

        def hexadecimal(value):
            if isinstance(value, dict):
                ids = ("traceId", "spanId", "parentSpanId")
                return {
                    key: base64.b64decode(item).hex() if key in ids else hexadecimal(item)
                    for key, item in value.items()
                }
            return [hexadecimal(item) for item in value] if isinstance(value, list) else value

        return hexadecimal(MessageToDict(message))

    resource = Resource({"service.name": "calculator"})
    spans, logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
    tracers, loggers = TracerProvider(resource=resource), LoggerProvider(resource=resource)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    OpenAIInstrumentor().instrument(tracer_provider=tracers, logger_provider=loggers)
    with tracers.get_tracer("agent").start_as_current_span("invoke_agent calculator"):
        chat_loop(openai_client())
    values = [otlp(encode_spans(spans.get_finished_spans()))]
    if logs.get_finished_logs():
        values.append(otlp(encode_logs(logs.get_finished_logs())))
    lines = [json.dumps(value) for value in values]
    (FOLDER / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    if name == "opentelemetry_spans":
        write("opentelemetry_spans.json", values[0])
        (FOLDER / f"{name}.jsonl").unlink()
        printed = "".join(span.to_json() + "\n" for span in spans.get_finished_spans())
        (FOLDER / "opentelemetry_printed.json").write_text(printed)


TELEMETRY = {
    "opentelemetry_spans": ("gen_ai_latest_experimental", "span_only"),
    "opentelemetry_events": ("gen_ai_latest_experimental", "event_only"),
    "opentelemetry_older": ("", "true"),
}


def main():
    FOLDER.mkdir(exist_ok=True)
    for make in (openai_chat, openai_responses, openai_agents, langgraph, inspect):
        make()
    for name in ("opentelemetry_spans", "opentelemetry_events"):  # apart: a process is instrumented once
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    opentelemetry(sys.argv[1]) if sys.argv[1:] else main()
