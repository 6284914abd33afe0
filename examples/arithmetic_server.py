"""A small OpenAI-compatible server whose model is a script that solves `arithmetic`, to try `firstfault eval` with.

    python examples/arithmetic_server.py --port 8011

It calls the Python tool for each operation. At "gain" and "spend" it takes the opposite operation in a third of the
cases, and never notices.
"""

from __future__ import annotations

import json
import random
from typing import Any

from locate.server import main

from firstfault.tasks.arithmetic import OPPOSITE, WORDS

MISTAKEN = 1 / 3
DRAW = random.Random()


def answer(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The next message of the model."""
    task = next(message["content"] for message in messages if message["role"] == "user")
    start, *operations = task.rstrip(".").replace(".\n", "\n").splitlines()
    outputs = [message["content"] for message in messages if message["role"] == "tool"]
    value = outputs[-1] if outputs else start.split()[-1]
    if len(outputs) == len(operations):
        return {"role": "assistant", "content": f"\\boxed{{{value}}}"}
    ordinal, operation = operations[len(outputs)].split(" ", 1)
    word, operand = operation.rsplit(" ", 1)
    sign = WORDS[word].sign
    if word in ("gain", "spend") and DRAW.random() < MISTAKEN:
        sign = OPPOSITE[sign]
    call = {"name": "python", "arguments": json.dumps({"code": f"{value}{sign}{operand}"})}
    return {
        "role": "assistant",
        "content": f"{ordinal} {operation}",
        "tool_calls": [{"id": f"call_{len(outputs)}", "type": "function", "function": call}],
    }


if __name__ == "__main__":
    main(__doc__, answer)
