"""Reading an agent's turn: a line a rule. Whatever a model writes, it is a message and never an exception."""

import pytest

from firstfault.agent.chat import Chat

TAGGED = [
    # an action, the calls in it (name, arguments or the beginning of an error), what is left
    ("The answer is 42.", [], "The answer is 42."),
    ("", [], ""),
    ('<tool_call>\n{"name": "calc", "arguments": {"a": 1}}\n</tool_call>', [("calc", {"a": 1})], ""),
    ('Hm.\n<tool_call>{"name": "a"}</tool_call>\n<tool_call>{"name": "b"}</tool_call>', [("a", {}), ("b", {})], "Hm."),
    ('<tool_call>{"name": "now"}</tool_call>', [("now", {})], ""),
    ('<tool_call>{"name": "calc", "parameters": {"a": 1}}</tool_call>', [("calc", {"a": 1})], ""),
    ('<tool_call>{"type": "function", "function": {"name": "calc", "arguments": {}}}</tool_call>', [("calc", {})], ""),
    ('<tool_call>{"name": "calc", "arguments": "{\\"a\\": 1}"}</tool_call>', [("calc", {"a": 1})], ""),
    ('<tool_call>{"name": "py", "arguments": {"code": "\'</tool_call>\'"}}</tool_call> ok',
     [("py", {"code": "'</tool_call>'"})], "ok"),
    ('<tool_call>{"name": "a", "arguments": {"x": 1, "x": 2}}</tool_call>', [("a", {"x": 2})], ""),
    ('<tool_call>{"name": "a", "arguments": {"x": "\\ud83d\\ude00"}}</tool_call>', [("a", {"x": "😀"})], ""),
    ('<think>Or <tool_call>{"name": "a"}</tool_call>?</think>\n\nNo.', [], "No."),
    ("<think>Hm, and then", [], ""),
    ("<tool_call>{'name': 'calc'}</tool_call>", [("", "The tool call is not valid JSON: Expecting")], ""),
    ("<tool_call></tool_call> ok", [("", "The tool call is not valid JSON: Expecting value.")], "ok"),
    ("<tool_call>[1]</tool_call>", [("", "A tool call must be a JSON object, not a list.")], ""),
    ('<tool_call>"calc"</tool_call>', [("", "A tool call must be a JSON object, not a string.")], ""),
    ("<tool_call>null</tool_call>", [("", "A tool call must be a JSON object, not null.")], ""),
    ('<tool_call>{"arguments": {}}</tool_call>', [("", 'The tool call has no "name" that is a string.')], ""),
    ('<tool_call>{"name": 7, "arguments": {}}</tool_call>', [("", 'The tool call has no "name"')], ""),
    ('<tool_call>{"name": "", "arguments": {}}</tool_call>', [("", 'The tool call has no "name"')], ""),
    ('<tool_call>{"name": "a", "arguments": [1]}</tool_call>', [("a", "The arguments of a tool call must be")], ""),
    ('<tool_call>{"name": "a", "arguments": true}</tool_call>', [("a", "The arguments of a tool call must be")], ""),
    ('<tool_call>{"name": "a", "arguments": "6 * 7"}</tool_call>', [("a", "The tool call is not valid JSON")], ""),
    ('<tool_call>{"name": "a", "arguments": "7"}</tool_call>', [("a", "The arguments of a tool call must be")], ""),
    ('<tool_call>{"name": "a", "arguments": {}}', [("", "The tool call is not closed by </tool_call>.")], ""),
    ('<tool_call>{"name": "a", "argu', [("", "The tool call is not valid JSON")], ""),
    ('<tool_call>{"name": "a"} <tool_call>{"name": "b"}</tool_call>', [("", "The tool call is not cl"), ("b", {})], ""),
    ('<tool_call>{"name" <tool_call>{"name": "b"}</tool_call>', [("", "The tool call is not valid"), ("b", {})], ""),
    ('<tool_call>{"name": "a"} ok </tool_call> yes', [("", "The tool call has text after its JSON object.")], "yes"),
    ('<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', [("a", "The tool call holds NaN")], ""),
    ('<tool_call>{"name": "a", "arguments": {"x": [-Infinity]}}</tool_call>', [("a", "The tool call holds NaN")], ""),
    ('<tool_call>{"name": "a", "arguments": {"x": 1e999}}</tool_call>', [("a", "The tool call holds NaN")], ""),
    ('<tool_call>{"name": "a", "arguments": {"x": "\\ud800"}}</tool_call>', [("a", "The tool call holds half")], ""),
    ('<tool_call>{"name": "a", "arguments": {"\\udc00": 1}}</tool_call>', [("a", "The tool call holds half")], ""),
    ('<tool_call>{"name": "\\ud800"}</tool_call>', [("", 'The tool call has no "name"')], ""),
    ('<tool_call>{"name": "a", "arguments": {"x": %s}}</tool_call>' % ("[" * 99 + "]" * 99),
     [("a", "The tool call is nested more than 64 levels deep.")], ""),
    ("<tool_call>" + "[" * 100_000 + "</tool_call>", [("", "The tool call is not valid JSON: it nests too deep")], ""),
    ('<tool_call>{"name": "a", "arguments": {"x": %s}}</tool_call>' % ("9" * 5000),
     [("", "The tool call is not valid JSON: it nests too deeply or holds too large")], ""),
    ("</tool_call> 42", [], "</tool_call> 42"),
]  # fmt: skip
BARE = [
    ("The answer is 42.", [], "The answer is 42."),
    ('{"name": "calc", "parameters": {"a": 1}}', [("calc", {"a": 1})], ""),
    (' {"name": "calc", "arguments": {"a": 1}}\n', [("calc", {"a": 1})], ""),
    ('{"type": "function", "name": "calc", "parameters": {}}', [("calc", {})], ""),
    ('<|python_tag|>{"name": "calc", "parameters": {}}', [("calc", {})], ""),
    ('Hm. <|python_tag|>{"name": "now"}', [("now", {})], "Hm."),
    ('{"name": "calc", "parameters": "{}"}', [("calc", {})], ""),
    ('{"answer": 42}', [], '{"answer": 42}'),
    ('{"name": "Ada", "age": 36}', [], '{"name": "Ada", "age": 36}'),
    ("{6 * 7}", [], "{6 * 7}"),
    ('<tool_call>{"name": "calc"}</tool_call>', [], '<tool_call>{"name": "calc"}</tool_call>'),
    ('{"parameters": {"a": 1}}', [("", 'The tool call has no "name"')], ""),
    ('{"name": "calc", "parameters": [1]}', [("calc", "The arguments of a tool call must be")], ""),
    ('{"name": "calc", "parameters": {"a"', [("", "The tool call is not valid JSON")], ""),
    ('{"name": "a", "parameters": {}} ok?', [("", "The tool call is not valid JSON: Extra data.")], ""),
    ('<|python_tag|>calc.call(a="1")', [("", "The tool call is not valid JSON")], ""),
    ("<|python_tag|>[1]", [("", "A tool call must be a JSON object, not a list.")], ""),
    ('{"name": ' + "[" * 100_000, [("", "The tool call is not valid JSON: it nests too deeply")], ""),
]


@pytest.fixture(scope="module")
def chats(make_tokenizer):
    """A chat of each format, with its tokenizer and the end of a turn."""
    qwen, llama = make_tokenizer("qwen", "qwen3"), make_tokenizer("llama3", "llama3_1")
    return {"tagged": (Chat(qwen), qwen, "<|im_end|>"), "bare": (Chat(llama), llama, "<|eot_id|>")}


def check_message(message, calls, content):
    found = [(call.name, call.error or call.arguments) for call in message.calls]
    assert len(found) == len(calls)
    for (name, outcome), (expected_name, expected) in zip(found, calls, strict=True):
        assert name == expected_name
        assert outcome.startswith(expected) if isinstance(expected, str) else outcome == expected
    assert content is None or message.content == content


@pytest.mark.parametrize(
    ("format", "action", "calls", "content"),
    [("tagged", *case) for case in TAGGED] + [("bare", *case) for case in BARE],
)
def test_reading_calls(chats, format, action, calls, content):
    chat, tokenizer, end = chats[format]
    for turn in (action, action + end):
        message = chat.parse(tokenizer.encode(turn))
        check_message(message, calls, content)
        assert message.text == action.replace("<|python_tag|>", "")


def test_a_prompt_that_opens_the_reasoning_begins_turns_inside_it(make_tokenizer):
    source = make_tokenizer("qwen", "qwen2_5").chat_template
    tokenizer = make_tokenizer("qwen", source.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}"))
    chat = Chat(tokenizer)
    call = '<tool_call>{"name": "a"}</tool_call>'
    check_message(chat.parse(tokenizer.encode(f"Or {call}? No.</think>\n42")), [], "42")
    check_message(chat.parse(tokenizer.encode(f"Yes.</think>{call}<|im_end|>")), [("a", {})], "")
