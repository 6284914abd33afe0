"""What a model's chat template writes: text with slots, found by asking the template itself.

A conversation is rendered in which the agent's turn is a sentinel; what follows the sentinel is what the environment
adds after any turn. Rendering takes longer than tokenizing, so it is done once with marks in place of the outputs (a
`Frame`), and the outputs are filled in afterwards where that was found to be exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from firstfault.errors import UserError
from firstfault.text import shared_length

ACTION = "qzactionzq"  # the sentinel; letters and digits only, which no template escapes
SLOT = re.compile(r"qz(\d+)slotzq")
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "qzprobezq",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"value": {"type": "string", "description": "A value."}}},
    },
}
# Texts on which a template shows what it does to an output: whether it trims, escapes, quotes, or looks into it.
AWKWARD = (
    *("", "22", " \n <b title=\"x\">&'y'\\n</b>\t\r\n ", "e\u0301\u00a0😀\u2028", '{"a": [1]}', "[1]", "x\n\n"),
    *("</think>", "<think>\n\n</think>\n\nx", "<tool_response>\nx\n</tool_response>", "{{ x }}{% y %}"),
)


def json_inside(text: str) -> str:
    """`text` as a JSON string, without the quotes: those are the template's."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


# How templates write an output: as it is, trimmed (Qwen3.5), or as a JSON string (Llama-3.1, gpt-oss).
WRITERS: tuple[Callable[[str], str], ...] = (str, str.strip, json_inside)


class Frame:
    """What a template writes around slots.

    `render` takes the values of the slots: first `names`, which are written as they are, then `texts`. `literals` are
    the pieces of text around the slots, `slots` the numbers of the values between them. `write` is how the template
    writes a text; it is None where only the template itself can tell. `end` is how the first literal begins if an
    agent's turn comes before: up to and with the token that ends the turn.
    """

    def __init__(self, render: Callable[[Sequence[str]], str], names: int, texts: int, end: str = ""):
        self.render, self.names, self.end = render, names, end
        pieces = SLOT.split(render([f"qz{i}slotzq" for i in range(names + texts)]))
        self.literals, self.slots = pieces[::2], [int(i) for i in pieces[1::2]]
        # A template that drops outputs or changes their order hides from the agent what its tools said.
        self.is_complete = [i for i in self.slots if i >= names] == list(range(names, names + texts))
        self.write = next((write for write in WRITERS if self.is_complete and self._is_exact(write, texts)), None)

    def _is_exact(self, write: Callable[[str], str], texts: int) -> bool:
        for shift in range(len(AWKWARD)):
            values = ["a name"] * self.names + [AWKWARD[(shift + i) % len(AWKWARD)] for i in range(texts)]
            try:
                if self.render(values) != "".join(self.fill(values, write)):
                    return False
            except UserError:  # the template refuses some texts: let it say so when it meets one
                return False
        return True

    def fill(self, values: Sequence[str], write: Callable[[str], str]) -> list[str]:
        """The template's text as literal, value, literal, ..., value, literal."""
        pieces = [self.literals[0]]
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            pieces += [values[slot] if slot < self.names else write(values[slot]), literal]
        return pieces


class Template:
    """The chat template of `tokenizer`, with a run's tools and system message. It is refused where it can't carry them.

    `prompt` is the frame of a run's beginning, with one slot for the question. `source` is the template's own text.
    """

    def __init__(self, tokenizer: Any, tools: list[dict[str, Any]], system: str | None):
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "The tokenizer has no chat template, and an agent's turns can't be written without one: "
                "use an instruction-tuned model, or set tokenizer.chat_template."
            )
        self.tokenizer, self.tools, self.system = tokenizer, tools, system
        self.source = tokenizer.get_chat_template(tools=tools or None)
        self.special = any_of(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)
        if tools and PROBE_TOOL["function"]["name"] not in self.render([user("Hi")], tools=[PROBE_TOOL]):
            raise UserError(
                "The tokenizer's chat template ignores tools, so the model would never hear of them: "
                "use a model whose template writes tools, or set tokenizer.chat_template."
            )
        self.prompt = Frame(lambda values: self.render([user(values[0])]), names=0, texts=1)
        if not self.prompt.is_complete:
            raise UserError("The tokenizer's chat template leaves out the question: set tokenizer.chat_template.")

    def render(self, messages: list[dict], tools: list[dict] | None = None, generate: bool = True) -> str:
        """The text of a conversation; `generate` opens the agent's next turn."""
        if self.system is not None:
            messages = [{"role": "system", "content": self.system}, *messages]
        try:
            return self.tokenizer.apply_chat_template(
                messages, tools=tools or self.tools or None, add_generation_prompt=generate, tokenize=False
            )
        except Exception as error:  # a template is foreign code
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(
                f"The tokenizer's chat template can't write a conversation of {roles} ({error}): "
                "use a model whose template can, or set tokenizer.chat_template."
            ) from error

    def after_action(self, messages: list[dict], generate: bool) -> str:
        """What the template writes after the sentinel of the agent's turn, the second of `messages`."""
        sentinels = len(messages[1].get("tool_calls", ())) or 1
        pieces = self.render(messages, generate=generate).split(ACTION, sentinels)  # an output may hold one more
        if len(pieces) <= sentinels:
            raise UserError("The tokenizer's chat template leaves out the agent's turn: set tokenizer.chat_template.")
        return pieces[-1]

    def answer_end(self) -> str | None:
        """The special token that the template writes after an answer."""
        answer = [user("Hi"), assistant()]
        for messages in (answer, [*answer, user("Hi")]):  # GLM ends a turn with the token that begins the next
            try:
                if match := self.special.search(self.after_action(messages, generate=False)):
                    return match.group()
            except UserError:
                continue
        return None

    def observation(self, count: int) -> Frame:
        """What the template writes between two turns of the agent, with slots for `count` names and `count` outputs."""
        refusal: UserError | None = None
        # Most templates write outputs after any turn; gpt-oss and Gemma 4 only beside the calls that they answer.
        for calls in (0, count, 1):
            try:
                frame = self._observation(count, calls)
            except UserError as error:
                refusal = error
                continue
            if frame.is_complete:
                return frame
        raise UserError(
            "The tokenizer's chat template leaves out the outputs of tools, so the agent would never see them: "
            "use a model whose template writes them, or set tokenizer.chat_template."
        ) from refusal

    def _observation(self, count: int, calls: int) -> Frame:
        def follow(values: Sequence[str]) -> str:
            names, outputs = values[:count], values[count:]
            replies = [
                {"role": "tool", "name": name, "tool_call_id": _call_id(i), "content": output}
                for i, (name, output) in enumerate(zip(names, outputs, strict=True))
            ]
            return self.after_action([user("Hi"), assistant(names[:calls]), *replies], generate=True)

        # The agent's turn ends with the last special token that it has whether or not something follows; where it
        # has none (GLM), with the first of what follows.
        alone = self.after_action([user("Hi"), assistant(["tool"] * calls)], generate=False)
        followed = follow(["tool"] * count + ["output"] * count)
        shared = shared_length(alone, followed)
        ends = [*self.special.finditer(followed, 0, shared)][-1:] or [*self.special.finditer(followed)][:1]
        start, stop = ends[0].span() if ends else (shared, shared)
        begin = start if calls else 0  # what is left of a call after the sentinel, `"}`, is the agent's to write
        end = followed[begin:stop] if ends else ""
        return Frame(lambda values: follow(values)[begin:], names=count, texts=count, end=end)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(names: Sequence[str] = ()) -> dict[str, Any]:
    """An agent's turn that holds the sentinel: its text, or the last thing in its calls of the tools named."""
    if not names:
        return {"role": "assistant", "content": ACTION}
    functions = [{"name": name, "arguments": {"value": ACTION}} for name in names]
    calls = [{"id": _call_id(i), "type": "function", "function": f} for i, f in enumerate(functions)]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _call_id(index: int) -> str:
    return f"call{index:05}"  # Mistral's templates want nine letters and digits


def any_of(strings: Iterable[str], pattern: str = "{}") -> re.Pattern[str]:
    """A regular expression for any of `strings`, the longest first; for none of them, one that never matches."""
    alternatives = "|".join(re.escape(string) for string in sorted(strings, key=len, reverse=True))
    return re.compile(pattern.format(alternatives or "(?!)"))
