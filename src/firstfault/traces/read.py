"""Runs of any agent, read from its logs: a file in, conversations in one canonical form out.

The form is that of OpenAI's chat messages with tool calls. What can't be replayed faithfully is refused, each trace by
itself and in one sentence. See docs/traces.md for the formats.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.text import encodable, one_line
from firstfault.traces.canonical import Refused, canonical
from firstfault.traces.documents import documents
from firstfault.traces.find import find
from firstfault.traces.spans import find_spans

# what reading a log raises that has not the types its format says
BROKEN = (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Trace:
    """One run of an agent. `messages` are OpenAI chat messages in text; every call but the last one's has its result.

    `tools` are the functions' schemas, `success` the log's own verdict, `answer` what was expected: each None where the
    log doesn't say. `source` names the format.

    >>> call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    >>> trace = Trace("1", [
    ...     {"role": "user", "content": "1 + 1?"},
    ...     {"role": "assistant", "content": "", "tool_calls": [call]},
    ...     {"role": "tool", "tool_call_id": "a", "content": "2"},
    ...     {"role": "assistant", "content": "It is 2."},
    ... ])
    >>> trace.question, trace.steps, trace.tool_steps, len(trace.prefix(1))
    ('1 + 1?', [(1, 3), (3, 4)], 1, 3)
    """

    id: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    success: bool | None = None
    answer: str | None = None
    source: str = "OpenAI chat"

    @property
    def question(self) -> str:
        """The first user text; empty where no user spoke."""
        return next((message["content"] for message in self.messages if message["role"] == "user"), "")

    @property
    def steps(self) -> list[tuple[int, int]]:
        """The range of messages of each step: one of the agent with calls and their results, or its last words."""
        ranges = []
        spoken = [i for i, message in enumerate(self.messages) if message["role"] == "assistant"]
        for start in spoken:
            end = start + 1
            while end < len(self.messages) and self.messages[end]["role"] == "tool":
                end += 1
            if "tool_calls" in self.messages[start] or start == spoken[-1]:
                ranges.append((start, end))
        return ranges

    @property
    def tool_steps(self) -> int:
        """How many steps there are whose calls all have their results: those that a run can be continued after."""
        return sum(self._is_answered(start, end) for start, end in self.steps)

    def prefix(self, m: int) -> list[dict[str, Any]]:
        """The messages after `m` tool-call steps; for 0, those before the agent first spoke.

        Raises:
            ValueError: if the trace has fewer tool-call steps whose calls all have their results.
        """
        if not 0 <= m <= self.tool_steps:
            raise ValueError(f"asked for a prefix of {m} steps of {self.tool_steps}")
        spoken = next((i for i, message in enumerate(self.messages) if message["role"] == "assistant"), None)
        return self.messages[: self.steps[m - 1][1] if m else spoken]

    def _is_answered(self, start: int, end: int) -> bool:
        return end - start - 1 == len(self.messages[start].get("tool_calls", ())) > 0


def read_traces(path: Path | str) -> tuple[list[Trace], list[str]]:
    """Read the runs in a log, whatever its format, and say in a sentence each which ones were refused.

    Raises:
        UserError: if the file can't be read, is of no known format, or if no run is left.
    """
    path = Path(path)
    found, refusals = documents(path)
    spans, rest = find_spans(found, path.name)
    drafts = [*find(rest, path.name, is_whole=not refusals), *spans]
    traces: list[Trace] = []
    for number, draft in enumerate(drafts, 1):
        name = f"{draft.where}, trace {number}" + (f" ({one_line(draft.id)})" if draft.id is not None else "")
        try:
            said, facts = draft.read()
            traces.append(
                Trace(
                    id=str(number) if draft.id is None else encodable(draft.id),
                    messages=canonical(said),
                    tools=facts.tools,
                    success=facts.success,
                    answer=None if facts.answer is None else encodable(facts.answer),
                    source=draft.source,
                )
            )
        except Refused as reason:
            refusals.append(f"{name}: {one_line(str(reason), 600)}")
        except BROKEN as error:
            refusals.append(
                f"{name}: it is not what {draft.source} writes ({type(error).__name__}: {one_line(str(error))}); write "
                "the log again with that library, unedited."
            )
    if not traces:
        raise UserError(_nothing(path, refusals))
    whole = _whole(traces)
    if len(whole) < len(traces):
        refusals.append(f"{path.name}: {len(traces) - len(whole)} traces are only the beginnings of others")
    return whole, refusals


def _whole(traces: list[Trace]) -> list[Trace]:
    """Those that no other one goes on from: a log with a line for each call of a model has every run many times."""
    texts = [tuple(json.dumps(message, sort_keys=True) for message in trace.messages) for trace in traces]
    begun = {text[:n] for text in texts for n in range(1, len(text))}
    return [trace for trace, text in zip(traces, texts, strict=True) if text not in begun]


def _nothing(path: Path, refusals: list[str]) -> str:
    if not refusals:
        return (
            f"{path} holds no run that could be searched (of trees, only failed runs are read, and of spans, only "
            "those of GenAI); give a file with failed runs."
        )
    more = f" ({len(refusals) - 1} more were refused.)" if len(refusals) > 1 else ""
    return f"{path} holds no trace that can be replayed: {refusals[0]}{more}"
