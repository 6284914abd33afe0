"""Sets that ask for a program."""

from __future__ import annotations

import json
from typing import Any

from firstfault.tasks.catalog.published import Published
from firstfault.tasks.judges.code import Asserts, Examples
from firstfault.tasks.judges.encoded import decoded_tests
from firstfault.tree import Task


class HumanEval(Published):
    """Functions to be written from their descriptions (Chen et al. 2021)."""

    # harness: humaneval; columns task_id, prompt, canonical_solution, test, entry_point
    hub, judged_by = "openai/openai_humaneval", "code"

    def task(self, row: dict[str, Any]) -> Task:
        question = f"Complete this function.\n```python\n{row['prompt']}```"
        return Task(question, row["canonical_solution"], info={"source": row["task_id"]})

    def row_tests(self, row: dict[str, Any]) -> Asserts:
        # the prompt is a whole function, if one without effect: with it, its imports and helpers are there
        return Asserts(row["prompt"], f"{row['test']}\ncheck({row['entry_point']})\n")


class LiveCodeBench(Published):
    """Problems of programming contests, version 6: those published since January 2025 (Jain et al. 2024)."""

    # card, and lcb_runner/benchmarks/code_generation.py of LiveCodeBench; the repository has a loading script
    hub, files, judged_by = "livecodebench/code_generation_lite", {"test": "test6.jsonl"}, "code"

    def task(self, row: dict[str, Any]) -> Task:
        how = "The program reads from stdin and writes to stdout."
        if row["starter_code"].strip():
            how = f"Complete this code.\n```python\n{row['starter_code']}\n```"
        info = {name: row[name] for name in ("question_id", "platform", "difficulty")}
        return Task(f"{row['question_content']}\n\n{how}", "", info=info)

    def row_tests(self, row: dict[str, Any]) -> Examples:
        tests = decoded_tests(row["public_test_cases"]) + decoded_tests(row["private_test_cases"])
        function = json.loads(row["metadata"] or "{}").get("func_name")
        functional = tests[0]["testtype"] == "functional"
        inputs, outputs = (tuple(test[name] for test in tests) for name in ("input", "output"))
        return Examples(inputs, outputs, function if functional else None)
