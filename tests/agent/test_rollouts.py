"""Rollouts with a scripted engine, and a real chat template, session and Python tool."""

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from scripted import Key, Scripted, call

from firstfault.agent.chat import Chat
from firstfault.agent.rollouts import Agent
from firstfault.engines.base import Sampling
from firstfault.errors import UserError
from firstfault.methods import ELPO
from firstfault.tools import FunctionTool, PythonTool, Session, Tool
from firstfault.training.loop import grow
from firstfault.tree import Node, Task, Tree

TASK = Task("What is 6 * 7?", "42", id="t")


@dataclass
class Log:
    """What happened to all forks of a tool together."""

    forks: int = 0
    closed: int = 0
    busy: int = 0


class Notes(Tool):
    """A tool with state: keeps what it is told, and answers with all of it."""

    schemas = ({
        "type": "function",
        "function": {
            "name": "note",
            "description": "Take a note.",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        },
    },)  # fmt: skip

    def __init__(self, log: Log, delay: Callable[[], float] = lambda: 0.0, notes: tuple[str, ...] = ()):
        self.log, self.delay, self.notes = log, delay, notes

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.log.busy += 1
        await asyncio.sleep(self.delay())
        self.notes += (arguments["text"],)
        self.log.busy -= 1
        return "+".join(self.notes)

    def fork(self) -> "Notes":
        self.log.forks += 1
        return Notes(self.log, self.delay, self.notes)

    async def close(self) -> None:
        self.log.closed += 1


async def judge(task: Task, answer: str, session: Session) -> tuple[bool, float]:
    return answer == task.answer, float(answer == task.answer)


@pytest.fixture
def make_agent(make_tokenizer):
    """`make_agent(script, tools)`: an agent that says `script(key)`, or what a table has for (rollout, step)."""
    tokenizer = make_tokenizer("qwen", "qwen2_5")

    def make(script: Callable[[Key], str] | dict[tuple[int, int], str], tools: list[Tool] = (), **options) -> Agent:
        engine_options = {name: options.pop(name) for name in ("deterministic", "overlap", "watch") if name in options}
        session_options = {name: options.pop(name) for name in ("timeout", "max_output") if name in options}
        says = script if callable(script) else lambda key: script[key[-2:]]
        session = Session(tools, **session_options)
        chat = Chat(tokenizer, session.schemas)
        limit = options.pop("max_new_tokens", 500)
        sampling = Sampling(max_new_tokens=limit, stop_tokens=chat.stop_tokens)
        engine = Scripted(tokenizer, says, **engine_options)
        return Agent(engine, chat, session, options.pop("judge", judge), sampling, **options)

    return make


def run(main: Any) -> Any:
    """Run a coroutine; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(main, 60))


def sampled(agent: Agent, n: int = 1) -> Tree:
    """A tree of n whole rollouts."""
    tree = agent.tree(TASK)

    async def main() -> None:
        try:
            async with agent.rollouts(tree, n) as rollouts:
                await rollouts.sample(n)
        finally:
            await agent.session.close()

    run(main())
    return tree


def timeless(tree: Tree) -> str:
    """A tree without its wall-clock times."""
    tree = Tree.from_json(tree.to_json())
    for node in tree.nodes:
        node.calls = [replace(call, seconds=0.0) for call in node.calls]
    return tree.to_json()


# One run


def test_a_run_is_what_the_model_saw_and_wrote(make_agent, make_tokenizer):
    script = {(0, 0): f"I calculate.\n{call('python', code='6 * 7')}", (0, 1): "42"}
    agent = make_agent(script, [PythonTool(timeout=20.0)])
    tree = sampled(agent)
    step, leaf = tree.steps
    assert [(c.name, c.arguments, c.output, c.failed) for c in step.calls] == [
        ("python", {"code": "6 * 7"}, "42", None)
    ]
    assert step.calls[0].seconds > 0
    assert (step.text, step.end, step.success, step.reward) == (script[0, 0], None, None, None)
    assert (leaf.text, leaf.end, leaf.answer, leaf.success, leaf.reward) == ("42", "answer", "42", True, 1.0)
    tokenizer = make_tokenizer("qwen", "qwen2_5")
    written = tokenizer.decode(leaf.tokens)
    assert written.endswith(
        "<|im_start|>user\nWhat is 6 * 7?<|im_end|>\n<|im_start|>assistant\n"
        f"{script[0, 0]}<|im_end|>\n<|im_start|>user\n<tool_response>\n42\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n42<|im_end|>"
    )
    # and what was asked of the engine is what the nodes add up to
    assert agent.engine.asked == {(0, 0): tree.root.tokens, (0, 1): step.tokens}
    for node in tree.steps:
        assert len(node.action_tokens) == len(node.logprobs) == len(node.entropies)


def test_the_calls_of_a_turn_are_made_in_order_and_all_answered(make_agent, make_tokenizer):
    script = {(0, 0): call("note", text="a") + call("note", text="b") + call("python", code="3"), (0, 1): "42"}
    tree = sampled(make_agent(script, [Notes(Log()), PythonTool(timeout=20.0)]))
    step = tree.nodes[1]
    assert [c.output for c in step.calls] == ["a", "a+b", "3"]
    observation = make_tokenizer("qwen", "qwen2_5").decode(step.observation_tokens)
    responses = "".join(f"\n<tool_response>\n{output}\n</tool_response>" for output in ("a", "a+b", "3"))
    assert observation == f"\n<|im_start|>user{responses}<|im_end|>\n<|im_start|>assistant\n"


def test_the_key_of_a_step_is_that_of_its_tree_its_rollout_and_its_depth(make_agent):
    agent = make_agent(lambda key: call("note", text="a") if key[-1] < 2 else "42", [Notes(Log())])
    tree = agent.tree(TASK, (7, 1, 5))

    async def main() -> None:
        async with agent.rollouts(tree, 3) as rollouts:
            [leaf] = await rollouts.sample(1)
            await rollouts.continue_from(leaf.steps[0], 2)

    run(main())
    expected = [(7, 1, 5, 0, depth) for depth in range(3)] + [(7, 1, 5, i, depth) for i in (1, 2) for depth in (1, 2)]
    assert sorted(agent.engine.asked) == expected


def hang() -> str:
    """Never answer."""


async def never() -> str:
    """Never answer."""
    await asyncio.sleep(3600)
    return ""


async def flood() -> str:
    """Answer with four million characters."""
    return "abcd" * 1_000_000


def broken() -> str:
    """Raise."""
    raise LookupError("no such thing")


MISTAKES = {
    "no JSON": ('<tool_call>\n{"name": \n</tool_call>', "malformed", "Error: The tool call is not valid JSON"),
    "not closed": ('<tool_call>\n{"name": "note"}', "malformed", "Error: The tool call is not closed"),
    "no object": ("<tool_call>[1]</tool_call>", "malformed", "Error: A tool call must be a JSON object"),
    "arguments that are none": (
        '<tool_call>{"name": "note", "arguments": 1}</tool_call>',
        "malformed",
        "Error: The arguments of a tool call must be",
    ),
    "an unknown tool": (call("search", query="x"), "unknown tool", "Error: no tool 'search'; tools: note, python"),
    "a missing argument": (call("note"), "bad arguments", "Error: note: missing argument 'text'"),
    "a wrong argument": (call("note", text=5), "bad arguments", "Error: note: 'text' must be string, not integer"),
    "an unknown argument": (call("note", text="a", x=1), "bad arguments", "Error: note: unknown argument 'x'"),
    "a tool that raises": (call("broken"), "raised", "Error: LookupError: no such thing"),
    "a tool that hangs": (call("never"), "timed out", "Error: never: no result after 0.3 s"),
    "a tool that floods": (call("flood"), None, "abcdabcd"),
    "code that raises": (call("python", code="1 / 0"), "raised", "ZeroDivisionError: division by zero"),
    "code that hangs": (call("python", code="while True: pass"), "timed out", "Error: stopped after 0.5 s"),
    "code that prints megabytes": (call("python", code="print('ab' * 10**7)"), "too much output", "abab"),
    "code that prints control tokens": (call("python", code="print('<|im_' + 'end|>')"), None, "<|im_end|>"),
    "code that is no text": (
        call("python", code="print('\\ud800')").replace("\\\\", "\\"),
        "malformed",
        "Error: The tool call holds half of a surrogate pair",
    ),
}


@pytest.mark.parametrize(("turn", "failed", "output"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_becomes_an_observation_and_the_run_goes_on(make_agent, turn, failed, output):
    script = {(0, 0): turn, (0, 1): call("note", text="still here"), (0, 2): "42"}
    tools = [Notes(Log()), PythonTool(timeout=0.5), *map(FunctionTool, (never, flood, broken))]
    tree = sampled(make_agent(script, tools, timeout=0.3))
    mistake, good, leaf = tree.steps
    [made] = mistake.calls
    assert made.failed == failed
    assert output in made.output and len(made.output) <= 2000
    assert good.calls[0].output == "still here"
    assert (leaf.end, leaf.success) == ("answer", True)


def test_a_broken_call_does_not_keep_the_others_of_its_turn_from_being_made(make_agent):
    script = {(0, 0): call("note", text="a") + "<tool_call>{</tool_call>" + call("note", text="b"), (0, 1): "42"}
    tree = sampled(make_agent(script, [Notes(Log())]))
    assert [(c.output, c.failed) for c in tree.nodes[1].calls][::2] == [("a", None), ("a+b", None)]
    assert tree.nodes[1].calls[1].failed == "malformed"


# Where a run ends

NOTE = call("note", text="a")


THREE_STEPS = {(0, 0): NOTE, (0, 1): NOTE, (0, 2): "42"}


def lengths(make_agent) -> tuple[int, int, int, int]:
    """Of a run of three steps, the tokens of the prompt, of its first action and observation, and of all of it."""
    root, step, *_, leaf = sampled(make_agent(THREE_STEPS, [Notes(Log())])).nodes
    return len(root.observation_tokens), len(step.action_tokens), len(step.observation_tokens), len(leaf.tokens)


ENDS = [
    # limits, of the tokens of prompt, action, observation and the whole run -> end, steps
    (lambda p, a, o, whole: {}, "answer", 3),
    (lambda p, a, o, whole: {"max_steps": 3}, "answer", 3),
    (lambda p, a, o, whole: {"max_steps": 2}, "max_steps", 2),
    (lambda p, a, o, whole: {"max_steps": 1}, "max_steps", 1),
    (lambda p, a, o, whole: {"max_new_tokens": a - 1}, "max_tokens", 1),
    (lambda p, a, o, whole: {"max_new_tokens": 1}, "max_tokens", 1),
    (lambda p, a, o, whole: {"max_new_tokens": a}, "answer", 3),
    (lambda p, a, o, whole: {"max_context": p + 1}, "context", 1),
    (lambda p, a, o, whole: {"max_context": p + a - 1}, "context", 1),
    (lambda p, a, o, whole: {"max_context": p + a - 1, "max_new_tokens": a - 1}, "context", 1),
    (lambda p, a, o, whole: {"max_context": p + a}, "context", 1),
    (lambda p, a, o, whole: {"max_context": p + a + o}, "context", 1),  # no room for a token of the next step
    (lambda p, a, o, whole: {"max_context": p + a + o + 1}, "context", 2),
    (lambda p, a, o, whole: {"max_context": whole}, "answer", 3),
    (lambda p, a, o, whole: {"max_context": whole - 1}, "context", 3),
]


@pytest.mark.parametrize(("limits", "end", "steps"), ENDS)
def test_the_end_of_a_run_says_which_limit_it_met(make_agent, limits, end, steps):
    options = limits(*lengths(make_agent))
    tree = sampled(make_agent(THREE_STEPS, [Notes(Log())], **options))
    [leaf] = tree.leaves
    assert (leaf.end, leaf.depth) == (end, steps)
    assert (leaf.success, leaf.reward, leaf.answer) == ((True, 1.0, "42") if end == "answer" else (False, 0.0, None))
    assert all(step.end is None and step.observation_tokens for step in leaf.steps[:-1])
    assert not leaf.observation_tokens
    assert all(len(step.action_tokens) <= options.get("max_new_tokens", 500) for step in leaf.steps)
    assert len(leaf.tokens) <= options.get("max_context", 4096)


def test_a_call_on_the_last_step_is_not_made(make_agent):
    log = Log()
    tree = sampled(make_agent({(0, 0): NOTE}, [Notes(log)], max_steps=1))
    assert tree.leaves[0].calls == []


def test_calls_beyond_the_limit_are_not_made_and_the_agent_reads_so(make_agent):
    log = Log()
    agent = make_agent({(0, 0): f"{NOTE}\n{NOTE}", (0, 1): f"{NOTE}\n{NOTE}", (0, 2): NOTE, (0, 3): "42"}, [Notes(log)])
    tree = agent.tree(TASK)

    async def main() -> None:
        async with agent.rollouts(tree, 1) as rollouts:
            rollouts.limit_calls(3)
            await rollouts.sample(1)

    run(main())
    calls = [call for step in tree.steps for call in step.calls]
    assert [call.failed for call in calls] == [None, None, None, "no calls left", "no calls left"]
    assert "no tool calls are left" in calls[-1].output and tree.leaves[0].success
    assert (agent.counts["tool_calls"], agent.counts["tool_failures"]) == (3, 0)
    assert agent.max_calls is None


def test_an_answer_may_be_empty(make_agent):
    tree = sampled(make_agent({(0, 0): ""}))
    assert (tree.leaves[0].end, tree.leaves[0].answer, tree.leaves[0].success) == ("answer", "", False)


def test_a_prompt_that_leaves_no_room_is_refused_in_one_sentence(make_agent):
    prompt, *_ = lengths(make_agent)
    agent = make_agent({(0, 0): "42"}, [Notes(Log())], max_context=prompt)
    with pytest.raises(UserError, match=f"task t has {prompt} tokens.*max_context = {prompt}"):
        sampled(agent)


# The budget


def test_the_budget_is_never_overspent_and_no_run_goes_on_after_its_end(make_agent):
    agent = make_agent(lambda key: "42" if key[-1] else NOTE, [Notes(Log())])
    tree = agent.tree(TASK)

    async def main() -> None:
        async with agent.rollouts(tree, 4) as rollouts:
            [leaf] = await rollouts.sample(1)
            assert rollouts.remaining == 3
            for node, n in [(tree.root, 4), (leaf.steps[0], 4), (leaf, 1), (leaf, 0), (tree.root, -1)]:
                with pytest.raises(ValueError, match="asked for"):
                    await rollouts.continue_from(node, n)
            assert rollouts.remaining == 3  # a refusal costs nothing
            assert await rollouts.sample(0) == []
            assert len(await rollouts.continue_from(leaf.steps[0], 2)) == 2
            assert len(await rollouts.sample(1)) == 1
            assert rollouts.remaining == 0
            with pytest.raises(ValueError, match="asked for 1 of 0 rollouts"):
                await rollouts.sample(1)

    run(main())
    assert sorted(leaf.rollout for leaf in tree.leaves) == [0, 1, 2, 3]


def test_leaves_come_back_in_the_order_of_their_rollouts(make_agent):
    agent = make_agent(lambda key: NOTE if key[-1] < 3 - key[-2] else str(key[-2]), [Notes(Log())])
    tree = agent.tree(TASK)

    async def main() -> list[Node]:
        async with agent.rollouts(tree, 4) as rollouts:
            return await rollouts.sample(4)

    leaves = run(main())
    assert [leaf.answer for leaf in leaves] == ["0", "1", "2", "3"]
    assert [leaf.rollout for leaf in leaves] == [0, 1, 2, 3]


# Branches


def test_a_branch_goes_on_from_the_state_of_the_tools_at_its_anchor(make_agent):
    log = Log()
    agent = make_agent(
        lambda key: call("note", text=f"{key[-2]}{'abc'[key[-1]]}") if key[-1] < 3 else "x", [Notes(log)]
    )
    tree = agent.tree(TASK)

    async def main() -> list[Node]:
        async with agent.rollouts(tree, 6) as rollouts:
            [first] = await rollouts.sample(1)
            after_one = await rollouts.continue_from(first.steps[0], 2)
            after_two = await rollouts.continue_from(first.steps[1], 1)
            after_branch = await rollouts.continue_from(after_one[0].steps[1], 1)
            whole = await rollouts.sample(1)
            return [first, *after_one, *after_two, *after_branch, *whole]

    leaves = run(main())
    assert [leaf.steps[2].calls[0].output for leaf in leaves] == [
        "0a+0b+0c", "0a+1b+1c", "0a+2b+2c", "0a+0b+3c", "0a+1b+4c", "5a+5b+5c",
    ]  # fmt: skip
    assert agent.session.functions["note"][0].notes == ()
    assert log.closed == log.forks  # the first session is its owner's to close


def test_a_session_is_forked_once_per_rollout_and_once_per_step_that_can_be_an_anchor(make_agent):
    log = Log()
    sampled(make_agent(lambda key: NOTE if key[-1] < 3 else "42", [Notes(log)]), n=2)
    assert log.forks == 1 + 2 * (1 + 3)  # the root; per rollout its own, and its three tool-call steps
    assert log.closed == log.forks + 1


# The turnstile


def test_the_engine_takes_no_step_while_a_tool_is_at_work(make_agent):
    log, draw = Log(), random.Random(0)
    seen = []
    agent = make_agent(
        lambda key: NOTE if key[-1] < 1 + key[-2] % 3 else "42",
        [Notes(log, delay=lambda: draw.choice([0, 0.002, 0.005]))],
        watch=lambda: seen.append(log.busy),
    )
    sampled(agent, n=8)
    assert set(seen) == {0}
    # all that go on ask together
    assert [len(batch) for batch in agent.engine.joined] == [8, 8, 5, 2]


def test_who_has_ended_a_turn_asks_again_before_the_engines_next_step(make_agent):
    script = {(0, 0): NOTE, (0, 1): "42", (1, 0): f"{NOTE} {'and so on ' * 20}"}
    agent = make_agent(lambda key: script.get(key, "42"), [Notes(Log(), delay=lambda: 0.002)])
    sampled(agent, n=2)
    alone = [keys for keys in agent.engine.passes if keys == [(1, 0)]]
    together = [keys for keys in agent.engine.passes if keys == [(1, 0), (0, 1)]]
    short, long = (len(agent.chat.action(script[key])) for key in ((0, 1), (1, 0)))
    assert len(together) == short
    assert len(alone) == long - short - len(agent.chat.action(NOTE))


def test_with_overlap_the_engine_goes_on_so_many_steps_and_then_waits(make_agent):
    """Rollout 0's tool ends when the engine has taken its steps; rollout 1 writes all the while."""
    overlap = 4
    agent = make_agent(
        lambda key: NOTE if key == (0, 0) else f"{NOTE} {'and so on ' * 20}" if key == (1, 0) else "42",
        [Notes(Log(), delay=lambda: 0.02)], overlap=overlap,
    )  # fmt: skip
    sampled(agent, n=2)
    short, answer = (len(agent.chat.action(text)) for text in (NOTE, "42"))
    of_first = [number for number, keys in enumerate(agent.engine.passes) if (0, 1) in keys or (0, 0) in keys]
    assert of_first == [*range(short), *range(short + overlap, short + overlap + answer)]


def test_without_determinism_the_engine_does_not_wait_for_tools(make_agent):
    """Rollout 0's tool answers only after rollout 1 has ended: with the turnstile closed, that would be never."""
    log, over = Log(), asyncio.Event()

    async def wait() -> str:
        """Wait for the other rollout."""
        log.busy += 1
        await over.wait()
        log.busy -= 1
        return "done"

    def script(key: Key) -> str:
        if key == (1, 3):
            over.set()
        return "42" if key[-1] == 3 else call("wait") if key == (0, 0) else NOTE

    seen = []
    tools = [FunctionTool(wait), Notes(Log())]
    agent = make_agent(script, tools, deterministic=False, timeout=50.0, watch=lambda: seen.append(log.busy))
    tree = sampled(agent, n=2)
    assert [leaf.success for leaf in tree.leaves] == [True, True]
    assert 1 in seen


def explored(make_agent, seed: int, overlap: int, tasks: int = 3) -> tuple[list[str], list[list[Key]]]:
    """The trees of ELPO on tasks side by side, and who joined the engine with whom; tools take their random time."""
    draw = random.Random(seed)

    def script(key: Key) -> str:
        fate = random.Random(str(key))
        return NOTE if fate.random() < 0.7 else fate.choice(["42", "41"])

    log = Log()
    tools = [Notes(log, delay=lambda: draw.choice([0, 0, 0.001, 0.003]))]
    agent = make_agent(script, tools, max_steps=6, overlap=overlap, watch=lambda: overlap or assert_idle(log))
    trees = run(grow(ELPO(rollouts=10), agent, [TASK] * tasks, key=(0, 1)))
    assert all(len(tree.leaves) == 10 for tree in trees)
    return [timeless(tree) for tree in trees], agent.engine.joined


def assert_idle(log: Log) -> None:
    assert log.busy == 0


@pytest.mark.parametrize("overlap", [0, 1, 5])
def test_trees_do_not_depend_on_how_long_tools_take(make_agent, overlap):
    trees, joined = explored(make_agent, 0, overlap)
    for seed in (1, 2):
        assert explored(make_agent, seed, overlap) == (trees, joined)


def test_an_agent_can_serve_one_event_loop_after_another(make_agent):
    delays = itertools.cycle([0, 0.01])  # so that the engine has to wait
    agent = make_agent(lambda key: "42" if key[-1] else NOTE, [Notes(Log(), delay=lambda: next(delays))])

    async def main(number: int) -> Tree:
        tree = agent.tree(TASK, (number,))
        async with agent.rollouts(tree, 2) as rollouts:
            await rollouts.sample(2)
        return tree

    first, second = run(main(0)), run(main(1))
    assert [leaf.success for leaf in first.leaves + second.leaves] == [True] * 4


# When something breaks


class Trap(Notes):
    """Fails in the way that is asked for, in one fork's life only."""

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if arguments["text"] == "user":
            raise UserError("the index is missing")
        if arguments["text"] == "fork":
            self.fork = self.broken
        return await super().call(name, arguments)

    def fork(self) -> "Trap":
        self.log.forks += 1
        return Trap(self.log, self.delay, self.notes)

    def broken(self) -> "Trap":
        raise OSError("no more processes")


async def strict(task: Task, answer: str, session: Session) -> tuple[bool, float]:
    if answer == "unheard of":
        raise KeyError(answer)
    return await judge(task, answer, session)


BREAKS = {
    "the engine": (None, RuntimeError, "out of memory"),
    "a message to the user": (call("note", text="user"), UserError, "the index is missing"),
    "a fork": (call("note", text="fork"), OSError, "no more processes"),
    "the judge": ("unheard of", KeyError, "unheard of"),
}


@pytest.mark.parametrize(("turn", "error", "message"), BREAKS.values(), ids=BREAKS.keys())
def test_what_breaks_one_tree_is_raised_and_the_others_go_on(make_agent, turn, error, message):
    """Rollout 1 of tree 0 breaks at its second step, while its siblings and another tree are under way."""

    def script(key: Key) -> str:
        if key != (0, 1, 1):
            return NOTE if key[-1] < 4 else "42"
        if turn is None:
            raise RuntimeError("out of memory")
        return turn

    log = Log()
    agent = make_agent(script, [Trap(log, delay=lambda: 0.001)], judge=strict)
    trees = [agent.tree(TASK, (number,)) for number in range(3)]

    async def one(tree: Tree) -> None:
        async with agent.rollouts(tree, 4) as rollouts:
            await rollouts.sample(3)
            await rollouts.continue_from(tree.leaves[0].steps[1], 1)

    async def main() -> list[Any]:
        together = await asyncio.gather(*(one(tree) for tree in trees[:2]), return_exceptions=True)
        await one(trees[2])  # the engine serves whoever comes next
        return together

    broke, other = run(main())
    assert isinstance(broke, error) and message in str(broke)
    assert other is None
    assert [len(tree.leaves) for tree in trees[1:]] == [4, 4]
    assert not [leaf for leaf in trees[0].leaves if leaf.success]  # its siblings were stopped
    assert log.closed == log.forks


def test_when_a_rollout_breaks_its_siblings_have_ended_before_the_error_is_raised(make_agent):
    log = Log()
    script = lambda key: call("note", text="user") if key == (1, 1) else NOTE if key[-1] < 4 else "42"  # noqa: E731
    agent = make_agent(script, [Trap(log)])
    tree = agent.tree(TASK)

    async def main() -> None:
        async with agent.rollouts(tree, 5) as rollouts:
            with pytest.raises(UserError):
                await rollouts.sample(4)
            steps, still_open = len(tree.steps), log.forks - log.closed
            await asyncio.sleep(0.01)
            assert (len(tree.steps), log.forks - log.closed) == (steps, still_open)
            [leaf] = await rollouts.sample(1)  # and the budget goes on
            assert leaf.success and rollouts.remaining == 0

    run(main())
    assert log.closed == log.forks


def test_a_cancelled_exploration_leaves_the_engine_to_others(make_agent):
    log = Log()
    agent = make_agent(lambda key: NOTE if key[-1] < 2 else "42", [Notes(log, delay=lambda: delay)], timeout=100.0)
    trees = [agent.tree(TASK, (0,)), agent.tree(TASK, (1,))]

    async def one(tree: Tree) -> None:
        async with agent.rollouts(tree, 2) as rollouts:
            await rollouts.sample(2)

    async def main() -> None:
        nonlocal delay
        task = asyncio.create_task(one(trees[0]))
        while log.busy < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        delay = 0.0
        await one(trees[1])

    delay = 50.0
    run(main())
    assert not trees[0].leaves and len(trees[1].leaves) == 2
    assert log.closed == log.forks
