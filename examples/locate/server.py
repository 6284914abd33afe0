"""A small OpenAI-compatible server whose model is a script that errs now and then, to try `firstfault locate` with.

    python examples/locate/server.py --port 8010

The model reads a task such as "Start at 0. add 7; double; spend 4; notify; add 9." and calls a tool for each operation.
At "spend" it adds instead of subtracting in six of ten cases, and never notices. So runs are lost there, if anywhere.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Model = Callable[[list[dict[str, Any]]], dict[str, Any]]  # from messages to the next one

MISTAKEN = 0.6
DRAW = random.Random()
SERVED: list[dict[str, Any]] = []  # the requests so far


def answer(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The next message of the model."""
    task = next(message["content"] for message in messages if message["role"] == "user")
    if "by this rubric" in task:
        return {"role": "assistant", "content": "SUCCESS" if "is at 38" in task else "It is not at 38. FAILURE"}
    operations = re.findall(r"(add|double|spend|notify) ?(\d*)", task.partition("Start at 0.")[2])
    outputs = [message["content"] for message in messages if message["role"] == "tool"]
    if len(outputs) == len(operations):
        register = [output for output in outputs if output.strip('"').lstrip("-").isdigit()]
        return {"role": "assistant", "content": f"The register is at {register[-1]}."}
    word, number = operations[len(outputs)]
    if word == "spend":
        word = "add" if DRAW.random() < MISTAKEN else "subtract"
    arguments = {"text": "half way"} if word == "notify" else {"n": int(number)} if number else {}
    call = {"name": word, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call_{len(outputs)}", "type": "function", "function": call}],
    }


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        SERVED.append(request)
        message = (self.server.model or answer)(request["messages"])
        body = json.dumps({
            "id": f"chatcmpl-{len(SERVED)}",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": self.usage(request["messages"], message),
        }).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def usage(self, *texts: Any) -> dict[str, int] | None:
        """Tokens read and written, about."""
        read, written = (len(json.dumps(text)) // 4 for text in texts)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def log_message(self, *_: Any) -> None:
        return None


def serve(port: int = 0, model: Model | None = None, handler: type[Handler] = Handler) -> ThreadingHTTPServer:
    """A server in a thread of its own, of this model or another; `server_port` says where."""
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.model = model
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main(description: str, model: Model | None = None) -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8010)
    server = serve(parser.parse_args().port, model)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(__doc__)
