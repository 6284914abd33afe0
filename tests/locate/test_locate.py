"""`locate`, end to end: a real server on the loopback interface, live tools, traces of several frameworks."""

import asyncio
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from firstfault.cli import main
from firstfault.errors import UserError
from firstfault.locate import Endpoint, locate
from firstfault.locate.check import by_judge
from firstfault.locate.resume import Recorded
from firstfault.tools import FunctionTool, ObjectTool, Tool
from firstfault.traces import Trace, read_traces
from firstfault.tree import load_trees

EXAMPLE = Path(__file__).parents[2] / "examples" / "locate"


def loaded(name: str):
    """A module of the example, once for each test that asks."""
    spec = importlib.util.spec_from_file_location(f"locate_example_{name}", EXAMPLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server():
    """The example's server; `server.url`, and `server.served`, the requests so far."""
    module = loaded("server")
    module.DRAW.seed(0)
    started = module.serve()
    started.url, started.served, started.module = f"http://127.0.0.1:{started.server_port}/v1", module.SERVED, module
    yield started
    started.shutdown()
    started.server_close()


@pytest.fixture
def trace() -> Trace:
    [trace], _ = read_traces(EXAMPLE / "trace.json")
    return trace


@pytest.fixture
def flags(server, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return [
        *("--model", "scripted", "--endpoint", server.url, "--cache", str(tmp_path / "cache")),
        *("--tools", f"{EXAMPLE / 'tools.py'}:Register", "--side-effects", "notify", "--yes"),
    ]


def register() -> list[Tool]:
    return [ObjectTool(loaded("tools").Register())]


def endpoint(server, tmp_path) -> Endpoint:
    return Endpoint("scripted", server.url, cache=tmp_path / "cache")


@pytest.mark.parametrize("file", ["trace.json", "agents_sdk.json", "langgraph.json"])
def test_the_planted_fault_is_found_in_traces_of_three_frameworks(file, flags, tmp_path, capsys):
    answer = [] if "answer" in json.loads((EXAMPLE / file).read_text()) else ["--answer", "38"]
    assert main(["locate", str(EXAMPLE / file), *flags, *answer, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 4 and found["steps"] == 6 and found["finished"]
    assert {point["step"] for point in found["curve"] if point["successes"]} <= {1, 2, 3}
    assert found["lost_by_step"][2] < 0.2 and found["lost_by_step"][3] > 0.6
    [instead] = found["instead"]
    assert instead["tool_calls"][0]["function"]["name"] == "subtract"
    assert not (tmp_path / "notified.txt").exists()


def test_from_a_failed_trace_to_training_data_in_one_command(flags, tmp_path, trace):
    written = ["--dpo", "out/pairs.jsonl", "--trees", "out/trees", "--html", "out/found.html"]
    assert main(["locate", str(EXAMPLE / "trace.json"), *flags, "--answer", "38", *written]) == 0
    [pair] = [json.loads(line) for line in Path("out/pairs.jsonl").read_text().splitlines()]
    assert [m["content"] for m in pair["prompt"]] == [m["content"] for m in trace.prefix(3)]
    calls = [call["function"] for m in (*pair["prompt"], *pair["rejected"]) for call in m.get("tool_calls", ())]
    assert [m["name"] for m in pair["prompt"] if m["role"] == "tool"] == [call["name"] for call in calls[:-1]]
    assert all(isinstance(call["arguments"], dict) for call in calls)  # as templates want them
    assert [m["tool_calls"][0]["function"]["name"] for m in (*pair["chosen"], *pair["rejected"])] == ["subtract", "add"]
    [tree] = load_trees(Path("out/trees/located.jsonl.gz"))
    assert len(tree.leaves) < 20 and [node.depth for node in tree.nodes if node.critical] == [4]
    page = Path("out/found.html").read_text()
    assert "Step 4 of 6 lost this run" in page and "subtract" in page and "<script" not in page


def test_an_interrupted_search_goes_on_and_pays_for_nothing_twice(server, flags, tmp_path, capsys):
    command = ["locate", str(EXAMPLE / "trace.json"), *flags, "--answer", "38", "--json"]
    served, handle = server.served, server.module.Handler.do_POST

    def dies(self):
        if len(served) >= 20:
            self.close_connection = True
            self.connection.close()
        else:
            handle(self)

    server.module.Handler.do_POST = dies
    assert main(command) == 2
    assert "does not answer for model 'scripted'" in capsys.readouterr().err
    died = len(served)
    assert died in (20, 21)  # two ask at a time
    server.module.Handler.do_POST = handle
    assert main(command) == 0
    first = capsys.readouterr()
    paid = len(served)
    assert f"paid for {paid - died} calls" in " ".join(first.err.split())
    assert paid == len(list((tmp_path / "cache").iterdir()))
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out == first.out and len(served) == paid
    assert f"paid for 0 calls: 0 tokens read, 0 written; {paid} were known" in " ".join(again.err.split())


def test_tools_are_called_live_in_the_state_that_the_run_had(server, tmp_path, trace):
    states = []

    class Watched(loaded("tools").Register):
        def double(self) -> int:
            """Double the register."""
            states.append(self.value)
            return super().double()

    found = locate(trace, endpoint(server, tmp_path), [ObjectTool(Watched())], answer="38", side_effects=["notify"])
    assert found.step == 4
    assert states[:2] == [7, 27]  # the record
    assert set(states[2:]) <= {7, 19, 27}  # before the last double: with 14 - 4 + 9, or with the mistake


def test_what_a_success_is_can_be_said_in_four_ways(server, tmp_path, trace):
    writer = endpoint(server, tmp_path)

    def run(**success):
        return locate(trace, writer, register(), side_effects=["notify"], **success)

    async def later(messages):
        return 1.0 if "38" in messages[-1]["content"] else 0.2

    by_function = run(check=lambda messages: "38" in messages[-1]["content"])
    assert by_function.step == 4
    assert run(check=later).to_json() == run(answer="38").to_json() == by_function.to_json()
    judged = run(check=by_judge(writer, "The register must be at 38."), judge_error=0.01)
    assert judged.step == 4 and judged.verdict.probability < by_function.verdict.probability


def test_functions_with_side_effects_answer_from_the_record(server, tmp_path, trace, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tools = loaded("tools")
    given = [ObjectTool(tools.Register()), FunctionTool(tools.notify)]
    found = locate(trace, endpoint(server, tmp_path), given, answer="38", side_effects=["notify"])
    outputs = {c.output for node in found.tree.nodes for c in node.calls if c.name == "notify"}
    assert outputs == {"sent"} and not (tmp_path / "notified.txt").exists()
    locate(trace, endpoint(server, tmp_path), given, answer="38")
    assert (tmp_path / "notified.txt").exists()


def test_a_function_with_side_effects_knows_nothing_of_what_comes_later():
    call = lambda id_, arguments: {"id": id_, "type": "function", "function": {"name": "stock", "arguments": arguments}}  # noqa: E731
    messages = [{"role": "user", "content": "?"}]
    for number, left in ((1, "10 left"), (2, "0 left")):
        messages += [{"role": "assistant", "content": "", "tool_calls": [call(str(number), f'{{"n": {number}}}')]},
                     {"role": "tool", "tool_call_id": str(number), "content": left}]  # fmt: skip

    async def answers():
        first = Recorded(Trace("1", messages), [])
        said = [await first.call("stock", {"n": 99}), await first.call("stock", {"n": 1})]
        other = first.fork()
        return [*said, await first.call("stock", {"n": 2}), await other.call("stock", {"n": 99})]

    assert asyncio.run(answers()) == ["done", "10 left", "0 left", "10 left"]


@pytest.mark.parametrize(("temperature", "words"), [(1.0, ""), (0.5, "does not take the temperature 0.5 .*mostly 1")])
def test_models_with_another_limit_and_one_temperature(server, tmp_path, trace, temperature, words):
    handle = server.module.Handler.do_POST

    def refuses(self):
        length = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.peek(length)[:length])
        wrong = {"max_tokens": "use 'max_completion_tokens' instead"} if "max_tokens" in request else {}
        wrong |= {"temperature": "only 1 is supported"} if request.get("temperature", 1) != 1 else {}
        if not wrong:
            return handle(self)
        self.rfile.read(length)
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        [(param, message), *_] = wrong.items()
        self.wfile.write(json.dumps({"error": {"message": message, "param": param}}).encode())

    server.module.Handler.do_POST = refuses
    options = {"temperature": temperature, "cache": tmp_path / "cache"}
    agent, judge = (Endpoint("scripted", server.url, any_temperature=any_, **options) for any_ in (False, True))

    async def ask(writer):
        try:
            return await writer.complete(trace.prefix(0), trace.tools or [], [0])
        finally:
            await writer.close()

    assert asyncio.run(ask(judge))["role"] == "assistant"
    agent.cache = tmp_path / "other"
    agent.cache.mkdir()
    if words:
        with pytest.raises(UserError, match=words):
            asyncio.run(ask(agent))
    else:
        assert asyncio.run(ask(agent))["role"] == "assistant"


REFUSED = {
    "no such tool": (["--tools", "", "--answer", "38"], "trace 1 calls 'add', which is none of the tools (none); give"),
    "no such function": (["--answer", "38", "--side-effects", "notfy"], "side effects 'notfy': neither the tools nor"),
    "a folder": (["--answer", "38", "--html", "."], ". is a folder; give the path of a file."),
    "no judge": (["--answer", "38", "--judge-model", "x"], "judge_model without a rubric in judge; give one."),
    "system": (["--answer", "38", "--system", "x"], "trace 1 has a system message; leave out --system."),
    "a check that fails": (["--check", "fails.py"], "the check fails with ValueError: boom; mend it there."),
    "a success": (["--answer", "54"], "the check says that the run of trace 1 is a success; give one that failed."),
    "no success": (
        [],
        "trace 1 has no expected answer, so nothing says what a success is; give a check, an answer, or",
    ),
    "two": (["--answer", "1", "--judge", "x"], "answer and judge all say what a success is; give one."),
    "no budget": (["--answer", "38", "--budget", "0"], "budget = '0': input should be greater than or equal to 1."),
    "no server": (
        ["--answer", "38", "--endpoint", "http://127.0.0.1:9/v1"],
        "the endpoint http://127.0.0.1:9/v1/ does",
    ),
    "no cache": (
        ["--answer", "38", "--cache", "/proc"],
        "the cache /proc can't be written (",
    ),
    "no check": (["--check", "nowhere.py"], "nowhere.py: there is no Python file 'nowhere.py'; write path/to/file.py."),
}


@pytest.mark.parametrize(("options", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_can_t_be_done_is_said_in_a_sentence(options, sentence, flags, capsys):
    if options[:1] == ["--tools"]:
        at = flags.index("--tools")
        flags, options = flags[:at] + flags[at + 2 :], options[2:]
    Path("fails.py").write_text("def check(messages):\n    raise ValueError('boom')\n")
    assert main(["locate", str(EXAMPLE / "trace.json"), *flags, *options]) == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("option", ["--html", "--dpo", "--trees"])
@pytest.mark.parametrize("folder", ["/proc", "file", "file/folder"])
def test_nothing_is_spent_on_what_can_t_be_written(server, flags, capsys, option, folder):
    Path("file").touch()
    assert main(["locate", str(EXAMPLE / "trace.json"), *flags, "--answer", "38", option, f"{folder}/out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"firstfault: {folder}/out") and "can't be written (" in said and said.count("\n") == 1
    assert not server.served


def test_nothing_is_spent_unasked(server, flags, capsys):
    flags.remove("--yes")
    assert main(["locate", str(EXAMPLE / "trace.json"), *flags, "--answer", "38", "--price-read", "3"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "at most 24 completions each: about 96 calls" in said and "in money" in said and "say --yes" in said
    assert not server.served


def test_a_record_that_the_tools_no_longer_give_is_refused(server, tmp_path, trace):
    messages = [dict(m, content="8") if m.get("tool_call_id") == "call_0" else m for m in trace.messages]
    changed = replace(trace, messages=messages)
    with pytest.raises(
        UserError, match=r"trace 1, step 1: add gives '7' now, and gave '8' in the record.*side-effects"
    ):
        locate(changed, endpoint(server, tmp_path), register(), answer="38",
               side_effects=["notify"])  # fmt: skip
    assert not server.served


def test_a_trace_without_a_fault_is_told_so(server, tmp_path, trace):
    """Its last words alone are wrong: from its last step all completions succeed."""
    fixed = {"call_3": ("subtract", "10"), "call_4": ("add", "19"), "call_5": ("double", "38")}
    messages = []
    for message in trace.messages:
        message = json.loads(json.dumps(message))
        for call in message.get("tool_calls", ()):
            call["function"]["name"] = fixed.get(call["id"], (call["function"]["name"],))[0]
        if message.get("tool_call_id") in fixed:
            message["content"] = fixed[message["tool_call_id"]][1]
        messages.append(message)
    run = replace(trace, messages=messages)
    found = locate(run, endpoint(server, tmp_path), register(), answer="38",
                   side_effects=["notify"])  # fmt: skip
    assert found.step is None and found.in_words().startswith("None of the 6 steps lost this run")
    assert found.pairs() == []


def test_a_missing_system_message_can_be_given(server, tmp_path):
    [trace], _ = read_traces(EXAMPLE / "langgraph.json")
    locate(trace, endpoint(server, tmp_path), register(), side_effects=["notify"],
           system="Be brief.", budget=2)  # fmt: skip
    assert all(request["messages"][0] == {"role": "system", "content": "Be brief."} for request in server.served)


def test_hostile_texts_do_nothing_in_the_page(server, tmp_path, trace):
    from firstfault.locate.show import write_page

    found = locate(trace, endpoint(server, tmp_path), register(), answer="38",
                   side_effects=["notify"])  # fmt: skip
    evil = "</pre><script>alert(1)</script>"
    found.instead.append({"role": "assistant", "content": evil})
    found.trace.messages[1]["content"] = evil
    write_page([found], tmp_path / "page.html")
    assert "<script" not in (tmp_path / "page.html").read_text()


# Several traces, and servers as they are


def several(tmp_path, *changes) -> Path:
    """A file of the example's trace, once as it is and once after each change of its text."""
    text = (EXAMPLE / "trace.json").read_text()
    path = tmp_path / "several.jsonl"
    path.write_text("".join(json.dumps(json.loads(change(text))) + "\n" for change in (str, *changes)))
    return path


def test_a_trace_that_is_refused_loses_no_other(server, flags, tmp_path, capsys):
    other_output = lambda text: text.replace('"content": "14"', '"content": "15"')  # noqa: E731
    solved = lambda text: text.replace("at 54", "at 38")  # noqa: E731
    path = several(tmp_path, other_output, solved, str)
    assert main(["locate", str(path), *flags, "--answer", "38", "--json", "--dpo", "pairs.jsonl"]) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["step"] for line in said.out.splitlines()] == [4, 4]
    err = " ".join(said.err.split())
    assert "left out: trace 2, step 2: double gives '14' now" in err and "the run of trace 3 is a success" in err
    assert len(Path("pairs.jsonl").read_text().splitlines()) == 2


def test_a_search_that_finds_nothing_keeps_what_was_written_before(server, flags, capsys):
    Path("pairs.jsonl").write_text("precious\n")
    command = ["locate", str(EXAMPLE / "trace.json"), *flags, "--answer", "38", "--dpo", "pairs.jsonl"]
    at = command.index("--endpoint")
    assert main([*command[: at + 1], "http://127.0.0.1:9/v1", *command[at + 2 :]]) == 2
    assert Path("pairs.jsonl").read_text() == "precious\n"


def test_a_cache_that_takes_no_more_ends_the_command_and_not_a_trace_alone(server, flags, tmp_path, capsys):
    handle = server.module.Handler.do_POST

    def fills_the_disk(self):
        if (tmp_path / "cache").is_dir():
            (tmp_path / "cache").rmdir()
            (tmp_path / "cache").touch()
        handle(self)

    server.module.Handler.do_POST = fills_the_disk
    assert main(["locate", str(several(tmp_path, str, str)), *flags, "--answer", "38", "--together", "1"]) == 2
    assert f"firstfault: {tmp_path / 'cache'} can't be written (" in capsys.readouterr().err
    assert len(server.served) == 1


def test_a_judge_reads_several_traces(server, flags, tmp_path, capsys):
    path = several(tmp_path, str)
    assert (
        main(["locate", str(path), *flags, "--judge", "The register must be at 38.", "--json", "--together", "8"]) == 0
    )
    assert [json.loads(line)["step"] for line in capsys.readouterr().out.splitlines()] == [4, 4]


def test_pairs_do_not_repeat_whatever_ids_calls_have(server, tmp_path, trace, monkeypatch):
    answer, ids = server.module.answer, iter(range(10_000))

    def with_random_ids(messages):
        message = answer(messages)
        for call in message.get("tool_calls", ()):
            call["id"] = f"call_{next(ids)}_of_many"
        return message

    monkeypatch.setattr(server.module, "answer", with_random_ids)
    monkeypatch.setattr(server.module, "MISTAKEN", 0.2)
    found = locate(trace, endpoint(server, tmp_path), register(), answer="38", side_effects=["notify"])
    assert found.step == 4 and len(found.pairs()) == 1
    assert sum(leaf.success and leaf.anchor.depth == 3 for leaf in found.tree.leaves) > 1


def test_what_the_server_refuses_of_a_completion_is_a_failure_and_of_the_record_an_error(server, tmp_path, trace):
    handle = server.module.Handler.do_POST

    def refuses(self):
        self.rfile.peek()
        length = int(self.headers["Content-Length"])
        body = self.rfile.peek(length)[:length]
        if body.count(b'"add"') > server.limit:
            self.rfile.read(length)
            self.send_response(400)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "too much of add"}}')
        else:
            handle(self)

    server.module.Handler.do_POST = refuses
    server.limit = 6  # the schema, the record's own at most three, and no mistake more
    found = locate(trace, endpoint(server, tmp_path), register(), answer="38", side_effects=["notify"], budget=4)
    assert len(found.tree.leaves) == 5
    server.limit = 0
    with pytest.raises(UserError, match=r"refuses the messages .*too much of add.*; give the endpoint of the agent's"):
        locate(trace, Endpoint("scripted", server.url, cache=tmp_path / "other"), register(), answer="38",
               side_effects=["notify"])  # fmt: skip


@pytest.mark.parametrize("budget", [2, 24])
def test_a_server_that_refuses_the_very_first_request_is_an_error(server, tmp_path, trace, budget):
    def refuses(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b'{"error": {"message": "no tools here"}}')

    server.module.Handler.do_POST = refuses
    one_step = replace(trace, messages=[*trace.messages[:4], trace.messages[-1]])
    with pytest.raises(UserError, match=r"no tools here.*\); give the endpoint of the agent's own model\."):
        locate(one_step, endpoint(server, tmp_path), register(), answer="38", budget=budget)


def test_a_user_who_speaks_between_steps_is_refused(server, tmp_path, trace):
    messages = [*trace.messages[:4], {"role": "user", "content": "And quickly."}, *trace.messages[4:]]
    with pytest.raises(UserError, match="has messages of the user between its steps 1 and 2"):
        locate(replace(trace, messages=messages), endpoint(server, tmp_path), register(), answer="38")


def test_side_effects_answer_in_the_order_of_the_record(tmp_path, trace):
    calls = [m for m in trace.messages if "tool_calls" in m]
    polled = []
    for number, message in enumerate(calls[:3]):
        function = {"name": "poll", "arguments": "{}"}
        call = {"id": "same", "type": "function", "function": function}  # ids need not differ between messages
        polled += [
            dict(message, tool_calls=[call]),
            {"role": "tool", "tool_call_id": "same", "content": f"at {number}"},
        ]
    record = replace(trace, messages=[*trace.messages[:2], *polled, trace.messages[-1]])

    class Writer:
        async def complete(self, messages, tools, sample):
            assert [tool["function"]["name"] for tool in tools] == ["poll"]
            return {"role": "assistant", "content": "at 38" if len(messages) < 6 else "at 54"}

        async def close(self):
            return None

    found = locate(record, Writer(), answer="38", side_effects=["poll"])
    assert found.step == 2 and [c.output for n in found.tree.nodes for c in n.calls] == ["at 0", "at 1", "at 2"]


def test_no_state_is_left_behind_when_a_replay_is_refused(server, tmp_path, trace):
    class Counted(ObjectTool):
        alive = 0

        def fork(self):
            Counted.alive += 1
            return super().fork()

        async def close(self):
            Counted.alive -= 1

    messages = [dict(m, content="8") if m.get("tool_call_id") == "call_4" else m for m in trace.messages]
    with pytest.raises(UserError, match="step 5"):
        locate(replace(trace, messages=messages), endpoint(server, tmp_path), [Counted(loaded("tools").Register())],
               answer="38", side_effects=["notify"])  # fmt: skip
    assert Counted.alive == 0


def test_a_running_loop_is_told_what_to_await(trace):
    import asyncio

    async def notebook():
        locate(trace, None)

    with pytest.raises(UserError, match=r"await locate_async"):
        asyncio.run(notebook())


def test_terminals_get_no_control_characters():
    from firstfault.text import one_line, printable

    assert "\x1b" not in printable("\x1b]0;owned\x07 [bold]") and len(printable("x" * 10_000)) < 2000
    assert "\n" not in one_line("a\nb")
