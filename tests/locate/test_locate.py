"""`locate`, end to end: a real server on the loopback interface, live tools, traces of several frameworks."""

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
    assert pair["prompt"] == trace.prefix(3)
    assert [m["tool_calls"][0]["function"]["name"] for m in (*pair["chosen"], *pair["rejected"])] == ["subtract", "add"]
    [tree] = load_trees(Path("out/trees/located.jsonl.gz"))
    assert len(tree.leaves) == 25 and [node.depth for node in tree.nodes if node.critical] == [4]
    page = Path("out/found.html").read_text()
    assert "Step 4 of 6 lost this run" in page and "subtract" in page and "<script" not in page


def test_an_interrupted_search_goes_on_and_pays_for_nothing_twice(server, flags, tmp_path, capsys):
    command = ["locate", str(EXAMPLE / "trace.json"), *flags, "--answer", "38", "--json"]
    served, handle = server.served, server.module.Handler.do_POST

    def dies(self):
        if len(served) == 20:
            self.close_connection = True
            self.connection.close()
        else:
            handle(self)

    server.module.Handler.do_POST = dies
    assert main(command) == 2
    assert "does not answer for model 'scripted'" in capsys.readouterr().err and len(served) == 20
    server.module.Handler.do_POST = handle
    assert main(command) == 0
    first = capsys.readouterr()
    paid = len(served)
    assert f"paid for {paid - 20} calls" in " ".join(first.err.split())
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


REFUSED = {
    "no such tool": (["--tools", "", "--answer", "38"], "trace 1 calls 'add', which is none of the tools"),
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
    "no check": (["--check", "nowhere.py"], "nowhere.py: there is no Python file 'nowhere.py'; write path/to/file.py."),
}


@pytest.mark.parametrize(("options", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_can_t_be_done_is_said_in_a_sentence(options, sentence, flags, capsys):
    if options[:1] == ["--tools"]:
        at = flags.index("--tools")
        flags, options = flags[:at] + flags[at + 2 :], options[2:]
    assert main(["locate", str(EXAMPLE / "trace.json"), *flags, *options]) == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")


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
