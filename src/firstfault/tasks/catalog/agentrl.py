"""What DemyAgent was trained on (Yu et al. 2025)."""

from __future__ import annotations

import ast
import json
from typing import Any

from firstfault.tasks.base import Turn, last_boxed
from firstfault.tasks.catalog.published import Published
from firstfault.tasks.datasets import short_answer
from firstfault.tasks.judges.code import Asserts, Examples
from firstfault.tree import Task


class OpenAgentRL(Published):
    """30,000 problems of mathematics, science and programming, for GRPO-TCR (Yu et al. 2025)."""

    # recipe/demystify/reward.py and verl/utils/reward_score/livecodebench/code_math.py of Gen-Verse/Open-AgentRL;
    # columns data_source, prompt (messages), ability, reward_model (ground_truth), extra_info
    hub, train_split, test_split = "Gen-Verse/Open-AgentRL-30K", "train", None

    def task(self, row: dict[str, Any]) -> Task:
        question = row["prompt"][0]["content"]
        if "code" in row["data_source"].lower():
            return Task(question, "", info={"source": row["data_source"], "judging": "code"})
        return short_answer(question, [row["reward_model"]["ground_truth"]], source=row["data_source"])

    def row_tests(self, row: dict[str, Any]) -> Examples | Asserts:
        truth = _value(row["reward_model"]["ground_truth"])
        if "import_prefix" in truth:  # from LeetCode
            return Asserts(truth["import_prefix"], f"{truth['test_code']}\ncheck({truth['entry_point']})\n")
        inputs, outputs = (_value(truth[name]) for name in ("inputs", "outputs"))
        return Examples(tuple(map(_text, inputs)), tuple(map(_text, outputs)), truth.get("fn_name"))


class OpenAgentSFT(Published):
    """3,000 runs of an agent with a Python tool, for a cold start (Yu et al. 2025): the tasks' demonstrations."""

    # recipe/demystify/qwen3_4b_sft.sh of Gen-Verse/Open-AgentRL; columns messages, tools
    hub, train_split, test_split = "Gen-Verse/Open-AgentRL-SFT-3K", "train", None

    def task(self, row: dict[str, Any]) -> Task:
        question = next(message["content"] for message in row["messages"] if message["role"] == "user")
        answer = last_boxed(row["messages"][-1]["content"])
        return Task(question, answer or "", info={"judging": "math" if answer else "code"})

    def row_tests(self, row: dict[str, Any]) -> Examples:
        return Examples((), ())  # it comes without tests: no program is a success

    def demonstrate(self, task: Task) -> list[Turn]:
        turns: list[Turn] = []
        for message in self.rows(training=True)[task.info["row"]]["messages"]:
            if message["role"] == "assistant":
                calls = "".join(map(_call, message.get("tool_calls") or []))
                turns.append(Turn((message["content"] or "") + calls))
            elif message["role"] == "tool":
                turns[-1] = Turn(turns[-1].text, (*turns[-1].outputs, message["content"]))
        return turns


def _value(written: Any) -> Any:
    """What a text says in JSON, or as Python writes it: the set has both."""
    if not isinstance(written, str):
        return written
    try:
        return json.loads(written)
    except ValueError:
        return ast.literal_eval(written)  # which reads literals and evaluates nothing


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _call(call: dict[str, Any]) -> str:
    """A call of theirs as one of our tool, which is called otherwise."""
    arguments = _value(call["function"]["arguments"])
    written = json.dumps({"name": "python", "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>{written}</tool_call>"
