"""`firstfault eval` of a model behind an OpenAI-compatible server on the loopback interface, with live tools."""

import asyncio
import json
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from firstfault.agent.calls import tagged_calls
from firstfault.cli import main
from firstfault.config import RunConfig
from firstfault.errors import UserError
from firstfault.evaluation.agents import RemoteAgent
from firstfault.tasks import Arithmetic, Programs
from firstfault.tasks.base import same_answer
from firstfault.writers.base import Refused

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE = ["--tasks", "arithmetic", "--tasks.operations-max", "5", "--evaluation.problems", "4", "--samples", "3"]


class Provider:
    """The example's server. `before(request)` may return a status to answer with instead, or "hang up"."""

    def __init__(self, arithmetic, server):
        self.model, self._server = arithmetic, server
        self.served: list[dict] = []
        self.statuses: Counter[int] = Counter()
        self.before = lambda request: None
        self.tells_usage = True
        self.busy = self.busiest = 0
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        provider = self

        class Handler(self._server.Handler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                request = json.loads(self.rfile.peek(length)[:length])
                with provider._lock:
                    provider.busy += 1
                    provider.busiest = max(provider.busiest, provider.busy)
                    status = provider.before(request)
                    if status is None:
                        provider.served.append(request)
                try:
                    if status is None:
                        super().do_POST()
                    elif status == "hang up":
                        self.close_connection = True
                        self.connection.close()
                    else:
                        provider.statuses[status] += 1
                        self.rfile.read(length)
                        body = b'{"error": {"message": "that one breaks it"}}'
                        self.send_response(status)
                        self.send_header("Content-Length", str(len(body)))
                        self.end_headers()
                        self.wfile.write(body)
                finally:
                    with provider._lock:
                        provider.busy -= 1

            def usage(self, *texts):
                return super().usage(*texts) if provider.tells_usage else None

        self._http = self._server.serve(0, self.model.answer, Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def provider(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import arithmetic_server
    from locate import server

    arithmetic_server.DRAW.seed(0)
    started = Provider(arithmetic_server, server)
    yield started
    started.stop()
    for name in ("arithmetic_server", "locate", "locate.server"):
        sys.modules.pop(name, None)


@pytest.fixture
def evaluate(provider, tmp_path, monkeypatch, capsys):
    """`evaluate(*flags)`: exit code, the figures as JSON if there are any, and what was said besides."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: str, records: str = "r.jsonl", cache: str = "cache"):
        command = ["eval", "--json", "--model", "scripted", "--endpoint", provider.url, "--cache", cache, *SIZE]
        code = main([*command, "--records", records, *flags])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if code == 0 else None, " ".join(printed.err.split())

    return run


def kept(path: str = "r.jsonl") -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()[1:]]


def test_runs_of_an_endpoint_are_judged_and_counted(evaluate, provider):
    code, found, said = evaluate("--k", "1,3", "--parallel", "5")
    assert code == 0
    tasks = Arithmetic(operations_max=5).held_out(4)
    records = kept()
    assert Counter(r["number"] for r in records) == dict.fromkeys(range(4), 4)
    for r in records:
        assert r["success"] == same_answer(r["answer"], tasks[r["number"]].answer) and r["end"] == "answer"
        assert r["calls"] == int(r["difficulty"]) == r["steps"] - 1 and r["failed_calls"] == 0 and r["tokens"] > 0
    outcomes = {r["success"] for r in records}
    assert outcomes == {True, False}  # the script errs
    assert sum(r["steps"] for r in records) == len(provider.served)
    assert f"paid for {len(provider.served)} calls" in said
    assert found["overall"]["figures"]["tokens"]["value"] > 0
    assert 1 < provider.busiest <= 5
    assert Counter(request["temperature"] for request in provider.served).keys() == {0.0, 1.0}
    assert {request["max_tokens"] for request in provider.served} == {512}
    assert {tool["function"]["name"] for request in provider.served for tool in request["tools"]} == {"python"}


def test_the_same_command_pays_for_nothing_twice(evaluate, provider):
    _, first, _ = evaluate()
    paid = len(provider.served)
    _, again, _ = evaluate()
    assert again == first
    _, from_completions, said = evaluate(records="other.jsonl")
    assert (
        from_completions == first | {"records": "other.jsonl"}
        and len(provider.served) == paid
        and "paid for 0 calls" in said
    )
    assert sorted(map(str, kept())) == sorted(map(str, kept("other.jsonl")))
    evaluate("--seed", "1", records="seed.jsonl")
    assert len(provider.served) == 2 * paid  # another seed draws anew


def test_a_killed_server_loses_nothing(evaluate, provider):
    served = provider.served
    provider.before = lambda request: "hang up" if len(served) >= 25 else None
    code, _, said = evaluate("--parallel", "1")
    assert code == 2 and "does not answer for model 'scripted'" in said and len(served) == 25
    before = Path("r.jsonl").read_text()
    assert {r["number"] for r in kept()} == {0}
    provider.stop()
    code, _, said = evaluate()  # it is gone
    assert code == 2 and "does not answer" in said and Path("r.jsonl").read_text() == before
    provider.before = lambda request: None
    provider.start()  # at another port
    code, found, _ = evaluate()
    assert code == 0 and Path("r.jsonl").read_text().startswith(before)
    assert sum(r["steps"] for r in kept()) == len(served)  # no message was asked for twice
    assert found["overall"]["tasks"] == 4


def test_one_failing_run_does_not_stop_the_others(evaluate, provider):
    bad = Arithmetic(operations_max=5).held_out(4)[1].question

    def breaks(request):
        messages = request["messages"]
        return 500 if messages[0]["content"] == bad and len(messages) == 5 and request["temperature"] == 0 else None

    provider.before = breaks
    code, _, said = evaluate()
    assert code == 2
    assert "1 of 4 tasks could not be finished (task held-out-1: the endpoint fails with InternalServerError: " in said
    assert "that one breaks it" in said and "the records of the others are in r.jsonl" in said
    assert {r["number"] for r in kept()} == {0, 2, 3} and provider.statuses[500] == 3  # it was tried again
    provider.before = lambda request: None
    code, _, _ = evaluate()
    assert code == 0 and {r["number"] for r in kept()} == {0, 1, 2, 3}


def test_what_a_model_takes_no_more_is_its_failure_and_what_it_never_takes_an_error(evaluate, provider):
    provider.before = lambda request: 400 if len(request["messages"]) > 5 else None
    code, found, _ = evaluate()
    assert code == 0 and found["overall"]["figures"]["success"]["value"] == 0
    assert {(r["end"], r["steps"], r["answer"]) for r in kept()} == {("context", 3, None)}
    provider.before = lambda request: 400
    code, _, said = evaluate(records="other.jsonl", cache="other")
    assert code == 2 and "that one breaks it" in said and "give a model that takes such tasks and tools" in said


def test_tokens_are_unknown_where_the_endpoint_does_not_tell(evaluate, provider):
    provider.tells_usage = False
    _, found, _ = evaluate()
    assert {r["tokens"] for r in kept()} == {None}
    assert found["overall"]["figures"]["tokens"]["value"] is None
    assert found["overall"]["figures"]["calls"]["value"] > 0


def test_tables_of_an_endpoint(provider, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["eval", "--model", "scripted", "--endpoint", provider.url, "--cache", str(tmp_path), *SIZE]
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "scripted on arithmetic" in shown and "Major@3" in shown and "4 tasks, 3 sampled runs of each" in shown


# the loop, with messages that are written beforehand


class Script:
    """Says its messages one after the other, in every run."""

    def __init__(self, *messages: dict | Exception):
        self.messages = messages

    async def complete(self, messages, tools, sample):
        said = self.messages[sum(message["role"] == "assistant" for message in messages)]
        if isinstance(said, Exception):
            raise said
        return {"role": "assistant", "content": "", **said}

    async def close(self):
        return None


def run(source, task, script: Script, samples: int = 1, **limits):
    """The runs of a scripted model, sampled and greedy."""
    config = RunConfig(agent=limits)

    async def all_runs():
        agent = RemoteAgent(config, source, source.tools(), script, script, parallel=4)
        try:
            return await agent.runs(0, task, samples, lambda: None)
        finally:
            await agent.close()
            await source.close()

    return asyncio.run(all_runs())


def calls(*codes: str) -> list[dict]:
    made = [{"name": "python", "arguments": json.dumps({"code": code})} for code in codes]
    return [{"id": f"c{i}", "type": "function", "function": function} for i, function in enumerate(made)]


ADD = {"tool_calls": calls("1+1", "2+2"), "tokens": 5}
ENDS = {
    "an answer": ([ADD, {"content": "\\boxed{268}", "tokens": 3}], "answer", True, 2, 8),
    "a wrong answer": ([ADD, {"content": "\\boxed{26}", "tokens": 3}], "answer", False, 2, 8),
    "at its length": ([ADD, {"content": "\\boxed{268", "cut": True, "tokens": 3}], "max_tokens", False, 2, 8),
    "at its length, in a call": ([{"tool_calls": calls("1+1"), "cut": True, "tokens": 3}], "max_tokens", False, 0, 3),
    "at its last step": ([ADD, ADD, ADD], "max_steps", False, 4, 15),
    "refused": ([ADD, Refused("too long")], "context", False, 2, 5),
    "with a number of tokens that is unknown once": ([ADD, {"content": "\\boxed{268}"}], "answer", True, 2, None),
}


@pytest.mark.parametrize(("messages", "end", "success", "made", "tokens"), ENDS.values(), ids=ENDS)
def test_how_runs_end(messages, end, success, made, tokens):
    task = Arithmetic(operations_max=4).train(seed=0, first=0, n=1)[0]
    for leaf, written in run(Arithmetic(), task, Script(*messages), max_steps=3):
        assert (leaf.end, leaf.success, leaf.reward, written) == (end, success, float(success), tokens)
        outputs = [call.output for step in leaf.steps for call in step.calls]
        assert outputs == ["2", "4"] * (made // 2)


def test_calls_that_can_t_be_read_are_told_and_counted():
    broken = {"id": "c", "type": "function", "function": {"name": "python", "arguments": "{1"}}
    task = Arithmetic().train(seed=0, first=0, n=1)[0]
    [(leaf, _), _] = run(Arithmetic(), task, Script({"tool_calls": [broken, *calls("1/0")]}, {"content": "no idea"}))
    assert [call.failed for step in leaf.steps for call in step.calls] == ["malformed", "raised"]


@pytest.mark.parametrize("wrong", [False, True])
def test_the_judge_sees_what_the_run_left_in_its_tools(wrong):
    """The answer is the name of a function, which is judged as the run's own session defines it."""
    source = Programs(silent=0, recoverable=0)
    task = source.held_out(1)[0]
    *steps, last = source.demonstrate(task)
    said = [calls(*(call.arguments["code"] for call in tagged_calls(turn.text)[1])) for turn in steps]
    if wrong:
        said.append(calls(f"{task.answer}=lambda n:0"))
    script = Script(*({"tool_calls": made} for made in said), {"content": last.text})
    assert [leaf.success for leaf, _ in run(source, task, script, samples=2)] == [not wrong] * 3


def test_a_model_that_is_refused_from_the_start_is_a_sentence():
    task = Arithmetic().train(seed=0, first=0, n=1)[0]
    with pytest.raises(UserError, match="no such tools; give a model that takes such tasks and tools"):
        run(Arithmetic(), task, Script(Refused("no such tools")))


def test_the_system_prompt_comes_first():
    seen = []

    class Told(Arithmetic):
        system = "Be brief."

    class Listening(Script):
        async def complete(self, messages, tools, sample):
            seen.append([message["role"] for message in messages])
            return await super().complete(messages, tools, sample)

    task = Told().train(seed=0, first=0, n=1)[0]
    run(Told(), task, Listening(ADD, {"content": "\\boxed{1}"}))
    assert sorted(map(len, seen)) == [2, 2, 5, 5]
    assert seen[-1] == ["system", "user", "assistant", "tool", "tool"]
