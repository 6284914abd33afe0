"""What a server answers that is a little off OpenAI's form, or far off it."""

import asyncio
import gc
import json
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from firstfault.writers.endpoint import Endpoint, EndpointError

HI = [{"role": "user", "content": "1 + 1?"}]
TWO = {"role": "assistant", "content": "It is 2."}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(self.server.answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        return None


@pytest.fixture
def ask(tmp_path):
    """`ask(answer)`: what an endpoint makes of this answer of its server, and what it says was spent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(answer):
        server.answer = answer
        writer = Endpoint("m", f"http://127.0.0.1:{server.server_port}/v1", cache=tmp_path)
        with warnings.catch_warnings(action="error"):
            return asyncio.run(complete(writer)), writer.spent

    yield run
    server.shutdown()
    server.server_close()


async def complete(writer):
    try:
        return await writer.complete(HI, [], [0])
    finally:
        await writer.close()


def completion(message, **fields):
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": usage} | fields


def calling(**function):
    return {"content": None, "tool_calls": [{"id": "a", "type": "function", "function": function}]}


def called(name, arguments):
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
        "tokens": 3,
    }


OFF = {
    "parts of text": (completion({"content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "2."}]}),
                      TWO | {"tokens": 3}),
    "no usage": (completion(TWO, usage={}), TWO),
    "usage of nothing": (completion(TWO, usage={"prompt_tokens": None, "completion_tokens": None}), TWO),
    "an object for arguments": (completion(calling(name="add", arguments={"x": 1})), called("add", '{"x": 1}')),
    "no arguments": (completion(calling(name="add", arguments=None)), called("add", "{}")),
    "no name": (completion(calling()), called("", "{}")),
    "half a surrogate pair": (completion(calling(name="add", arguments='"\ud83d"')), called("add", '"\ufffd"')),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "message"), OFF.values(), ids=OFF)
def test_answers_a_little_off_are_read_and_paid_for(ask, answer, message):
    written, spent = ask(answer)
    assert written == message
    assert (spent.calls, spent.completion_tokens) == (1, message.get("tokens", 0))


@pytest.mark.parametrize("answer", [
    {"choices": "x"}, {"choices": []}, {"choices": [5]}, {"error": "no"}, [1], "hello", completion(None),
    completion("It is 2."), completion({"content": 2}), completion({"tool_calls": ["add"]}),
], ids=str)  # fmt: skip
def test_what_is_no_completion_is_a_sentence(ask, answer):
    with pytest.raises(EndpointError, match=r"something else than a completion; give the URL of its API\."):
        ask(answer)


def test_a_failure_that_nobody_waits_for_is_not_printed(tmp_path):
    printed = []

    async def leave():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: printed.append(context))
        writer = Endpoint("m", "http://127.0.0.1:9/v1", cache=tmp_path, retries=0)
        asking = asyncio.create_task(writer.complete(HI, [], [0]))
        await asyncio.sleep(0)
        asking.cancel()
        while writer._asked:
            await asyncio.sleep(0.01)
        await writer.close()
        gc.collect()

    asyncio.run(leave())
    assert not printed
