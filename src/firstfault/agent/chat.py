"""The chat template <-> tokens codec. It never tokenizes an earlier turn again.

A run is prompt + action + observation + action + ...: `Chat.prompt` and `Chat.observe` give the tokens that the
environment adds, the agent's own tokens stay as they were sampled, and joining them is exactly what the model saw.

What a tool prints or a question says never becomes a control token: `<|im_end|>` in an output is plain text to the
model, made of other tokens than the one that ends a turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from firstfault.agent.calls import ParsedCall, as_object, bare_call, check_call, tagged_calls
from firstfault.agent.template import Frame, Template, any_of, assistant, user
from firstfault.errors import UserError
from firstfault.text import encodable


@dataclass
class Message:
    """What the agent said in one turn. Without calls, it is the final answer.

    `text` is the whole turn without special tokens; `content` is what is left of it without reasoning and calls.
    """

    text: str
    calls: list[ParsedCall] = field(default_factory=list)
    content: str = ""


class Chat:
    """Reads and writes one model's chat format.

    `tools` are function schemas in OpenAI's form, `system` is the system message. `stop_tokens` are the ids that end
    an agent's turn. A tokenizer that can't carry a conversation with tools is refused here, not in the middle of a run.
    """

    def __init__(self, tokenizer: Any, tools: Iterable[dict[str, Any]] = (), system: str | None = None):
        self._tokenizer = tokenizer
        self._template = template = Template(tokenizer, list(tools), system)
        added = {token.content: (i, token.special) for i, token in tokenizer.added_tokens_decoder.items()}
        # `<tool_call>` and its like are not special to most tokenizers, yet they are marks of the template's own.
        control = [t for t, (_, special) in added.items() if special or (t in template.source and not t.isspace())]
        self._control, self._control_ids = any_of(control, "(?={})"), frozenset(added[t][0] for t in control)
        self._prompt = template.prompt, self._controls_around(template.prompt)
        self._observations: dict[int, tuple[Frame, list[int], int]] = {}  # by the number of outputs

        self._is_tagged = "<tool_call>" in template.source
        self._opening = template.prompt.literals[-1]  # ends with the opening of the agent's turn
        self._opens_reasoning = self._opening.rstrip().endswith("<think>")

        ends = [template.answer_end(), "<|eom_id|>"]  # the latter is Llama's, for a turn that calls built-in tools
        if template.tools:
            ends += template.special.findall(self._observation(1)[0].end)[-1:]
        ids = {added[end][0] for end in ends if end in added} | {tokenizer.eos_token_id}
        self.stop_tokens: frozenset[int] = frozenset(ids - {None})
        if not self.stop_tokens:
            raise UserError(
                "The tokenizer has no token that ends a turn, so the agent would never stop: set tokenizer.eos_token."
            )
        self._end = added[ends[0]][0] if ends[0] in added else self._tokenizer.eos_token_id
        if template.tools:
            self._check_calls()

    def prompt(self, question: str) -> list[int]:
        """The tokens of a run's beginning: system, tools, the question, and the opening of the agent's turn."""
        return self._tokens(*self._prompt, [encodable(question)])

    def conversation(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation of somebody else, in OpenAI's form, and the opening of the agent's next turn.

        Raises:
            UserError: if the template can't write it.
        """
        mark = _unused_mark(json.dumps(messages))
        names: dict[str, str] = {}  # of the functions, by the ids of calls
        told = []
        for message in messages:
            said = {"role": message["role"], "content": self._marked(message.get("content") or "", mark)}
            if message["role"] == "tool":
                said |= {"tool_call_id": message["tool_call_id"], "name": names.get(message["tool_call_id"], "tool")}
            if message.get("tool_calls"):
                said["tool_calls"] = [
                    {**call, "function": {"name": call["function"]["name"],
                                          "arguments": self._marked(as_object(call["function"]["arguments"]), mark)}}
                    for call in message["tool_calls"]
                ]  # fmt: skip
                names |= {call["id"]: call["function"]["name"] for call in message["tool_calls"]}
            told.append(said)
        return self._between(self._template.render(told), mark)

    def action(self, text: str) -> list[int]:
        """The tokens of a turn that somebody else wrote for the agent, such as a demonstration."""
        return [*self._encode(text), self._end]

    def observe(self, action_tokens: Sequence[int], outputs: Sequence[str | tuple[str, str]]) -> list[int]:
        """The tokens that the environment adds after an action: what its calls gave, and the opening of the next turn.

        An output is a text or (name of the tool, text). The end of the turn comes first, unless the action has it:
        an action that was cut off at its token limit has none.
        """
        frame, controls, end = self._observation(len(outputs))
        pairs = [("tool", output) if isinstance(output, str) else output for output in outputs]
        values = [encodable(name) for name, _ in pairs] + [encodable(output) for _, output in pairs]
        tokens = self._tokens(frame, controls, values)
        has_ended = len(action_tokens) > 0 and action_tokens[-1] in self.stop_tokens
        return tokens[end:] if has_ended else tokens

    def parse(self, action_tokens: Sequence[int]) -> Message:
        """Read one turn. Nothing that a model writes makes this fail: what can't be read is a call with an error."""
        action = list(action_tokens)
        body = action[:-1] if action and action[-1] in self.stop_tokens else action
        text, raw = self._decode(body, skip_special_tokens=True), self._decode(body)
        if getattr(self._tokenizer, "response_template", None) is None:
            calls, content = self._read(raw)
            return Message(text, calls, content)
        try:
            parsed = self._tokenizer.parse_response(
                self._decode(action), prefix=self._opening, tools=self._template.tools or None
            )
            calls = [check_call(call) for call in parsed.get("tool_calls") or []]
            return Message(text, calls, self._template.special.sub("", parsed.get("content") or ""))
        except Exception:  # foreign code on a model's text; it does not say which call is broken and how
            calls, content = self._read(raw)
            unreadable = ParsedCall("", error="The turn does not follow the model's format for tool calls.")
            return Message(text, calls or [unreadable], content)

    def _read(self, raw: str) -> tuple[list[ParsedCall], str]:
        """The calls and the text around them, for a tokenizer that doesn't bring a way to read its model's turns."""
        if self._opens_reasoning or raw.lstrip().startswith("<think>"):
            raw = raw.partition("</think>")[2]  # a call that is only thought of is not made
        content, calls = tagged_calls(raw) if self._is_tagged else bare_call(raw)
        return calls, self._template.special.sub("", content).strip()

    def _observation(self, count: int) -> tuple[Frame, list[int], int]:
        """The frame around `count` outputs, its control tokens, and how many tokens of it are the end of the turn."""
        if count not in self._observations:
            frame = self._template.observation(count)
            self._observations[count] = frame, self._controls_around(frame), len(self._encode(frame.end))
        return self._observations[count]

    def _tokens(self, frame: Frame, controls: list[int], values: list[str]) -> list[int]:
        """The tokens of a frame with its slots filled, where no value adds to the control tokens of the frame."""
        if frame.write is None:
            # The template has to be rendered. A mark at each cut survives whatever it does with the values.
            mark = _unused_mark(" ".join(values))
            return self._between(frame.render([self._marked(value, mark) for value in values]), mark)
        pieces = frame.fill(values, frame.write)
        tokens = self._encode("".join(pieces))
        if [token for token in tokens if token in self._control_ids] == controls:
            return tokens
        # Some value speaks in control tokens. Tokenized apart from the frame and in parts, it is plain text; a control
        # token of one character can't be parted and is left out. Only here, borders may keep text from merging.
        tokens = []
        for i, piece in enumerate(pieces):
            for part in self._cut(piece) if i % 2 else [piece]:
                tokens += [token for token in self._encode(part) if not (i % 2 and token in self._control_ids)]
        return tokens

    def _between(self, text: str, mark: str) -> list[int]:
        return [token for part in text.split(mark) for token in self._encode(part)]

    def _marked(self, value: Any, mark: str) -> Any:
        """A value whose texts have a mark at each cut."""
        if isinstance(value, str):
            return mark.join(self._cut(encodable(value)))
        if isinstance(value, dict):
            return {self._marked(key, mark): self._marked(inner, mark) for key, inner in value.items()}
        return [self._marked(inner, mark) for inner in value] if isinstance(value, list) else value

    def _cut(self, text: str) -> list[str]:
        """`text` in parts, cut after the first character of each control string in it."""
        cuts = [0, *(match.start() + 1 for match in self._control.finditer(text)), len(text)]
        return [text[a:b] for a, b in pairwise(cuts)]

    def _controls_around(self, frame: Frame) -> list[int]:
        return [t for literal in frame.literals for t in self._encode(literal) if t in self._control_ids]

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def _decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:
        return self._tokenizer.decode(
            tokens, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )

    def _check_calls(self) -> None:
        """Refuse a template whose calls can't be read back: no run would ever use a tool."""
        name = self._template.tools[0]["function"]["name"]
        prompt = self._template.render([user("Hi")]).rstrip()
        try:
            written = self._template.render([user("Hi"), assistant([name])], generate=False)
        except UserError:
            return  # nothing to compare with: the template leaves calls to the agent
        turn = written.removeprefix(prompt)
        if turn == written or name not in turn:  # it writes past turns unlike the one to come, or no calls
            return
        tokens = self._encode(turn)
        end = next((i for i, token in enumerate(tokens) if token in self.stop_tokens), len(tokens))
        if [(call.name, call.error) for call in self.parse(tokens[: end + 1]).calls] != [(name, None)]:
            raise UserError(
                f"The tokenizer's chat template writes tool calls as {turn!r}, which is neither "
                "<tool_call>{...}</tool_call> nor bare JSON: set tokenizer.response_template to say how to read it."
            )


def _unused_mark(text: str) -> str:
    mark = "qzcutzq"
    while mark in text:
        mark += "q"
    return mark
