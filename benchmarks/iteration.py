"""A whole iteration of GRPO with a tool on `arithmetic`: ours beside TRL's, same model, tasks, tool and settings.

python benchmarks/iteration.py            # writes docs/results/iteration.md
python benchmarks/iteration.py --quick    # 4 tasks, once each; only prints

TRL's side needs `pip install trl`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import side_by_side as bench
import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from firstfault.config import RunConfig, read_recipe
from firstfault.methods import GRPO
from firstfault.policy import load_policy
from firstfault.tasks import TASKS
from firstfault.tasks.arithmetic import Arithmetic
from firstfault.tools.functions import FunctionTool
from firstfault.training.cold_start import start_model
from firstfault.training.loop import Trainer

try:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
except ImportError:
    sys.exit("benchmarks/iteration.py compares with TRL: pip install trl")

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.toml"
ROLLOUTS = 16
MICRO = 16  # sequences that TRL takes at a time
SAME, OURS, TRL = "ours, the same tool", "ours, sandboxed tool", "TRL"
COLUMNS = ("explore", "update", "tokens a run", "calls a run", "success")
RESPONSE = {  # how the tiny policy's turns are read
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>", "close_pattern": "</tool_call>", "repeats": True, "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|end\|>", "content": "text"},
    },
}  # fmt: skip


class Bare(Arithmetic):
    """The same tasks with TRL's tool."""

    def tools(self) -> list[FunctionTool]:  # type: ignore[override]
        async def called(code: str) -> str:  # in this thread, as TRL calls it
            return python(code)

        called.__name__, called.__doc__ = python.__name__, python.__doc__
        return [FunctionTool(called)]


def ours(config: RunConfig, source: Arithmetic) -> list[dict[str, float]]:
    """What each iteration took, in seconds, and what it did."""
    with tempfile.TemporaryDirectory() as folder:
        config = config.model_copy(update={"run_dir": Path(folder) / "run"})
        trainer = Trainer(config, source, GRPO(rollouts=ROLLOUTS), console=Console(quiet=True))
        trainer.train()
        rows = trainer.folder.read_metrics()
    return [
        {
            "explore": row["seconds_explore"],
            "update": row["seconds_update"],
            "tokens a run": row["generated_tokens"] / row["rollouts"],
            "calls a run": row["tool_calls"] / row["rollouts"],
            "success": row["success"],
        }
        for row in rows
    ]


class Timed(GRPOTrainer):
    """Notes how long generating and scoring a batch of runs takes, and what came of it."""

    explored: list[dict[str, float]]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        start = time.perf_counter()
        out = super()._generate_and_score_completions(inputs)
        metrics = {name: values[-1] for name, values in self._metrics["train"].items() if values}
        self.explored.append({
            "explore": time.perf_counter() - start, "tokens a run": metrics["completions/mean_length"],
            "calls a run": metrics["tools/call_frequency"], "success": metrics["reward"],
        })  # fmt: skip
        return out


class Clock(TrainerCallback):
    """The time after each iteration, which is some optimizer steps."""

    def __init__(self, steps: int):
        self.steps = steps
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.steps == 0:
            self.times.append(time.perf_counter())


def python(code: str) -> str:
    """Run Python code.

    Args:
        code: The code to run
    """
    return str(eval(code))


def correct(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    answers = [run[-1].get("content") or "" for run in completions]
    return [float(f"\\boxed{{{right}}}" in given) for given, right in zip(answers, answer, strict=True)]


def trl(config: RunConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, float]]:
    tasks = TASKS["arithmetic"]().train(config.seed, 0, config.batch * config.steps)
    updates = config.learner.epochs * (config.batch // config.learner.mini_batch)
    settings = GRPOConfig(
        tempfile.mkdtemp(), num_generations=ROLLOUTS, per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=config.learner.mini_batch * ROLLOUTS // MICRO,
        steps_per_generation=config.batch * ROLLOUTS // MICRO, num_iterations=config.learner.epochs,
        max_steps=updates * config.steps, max_completion_length=config.agent.max_context,
        max_tool_calling_iterations=config.agent.max_steps, top_k=0, learning_rate=config.optimizer.lr, beta=0.0,
        use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no", shuffle_dataset=False,
    )  # fmt: skip
    prompts = [[{"role": "user", "content": task.question}] for task in tasks]
    data = Dataset.from_dict({"prompt": prompts, "answer": [task.answer for task in tasks]})
    tokenizer.response_template = RESPONSE
    model.set_attn_implementation("sdpa")
    clock = Clock(updates)
    trainer = Timed(model, correct, settings, data, processing_class=tokenizer, tools=[python], callbacks=[clock])
    trainer.explored = []
    trainer.train()
    seconds = [end - start for start, end in itertools.pairwise(clock.times)]
    return [{**row, "update": s - row["explore"]} for row, s in zip(trainer.explored, seconds, strict=True)]


def total(row: dict[str, float]) -> float:
    return row["explore"] + row["update"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 tasks, once each; only print")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parsed = parser.parse_args()
    recipe = read_recipe(RECIPE) | {"steps": 2, "evaluation": {"problems": 0}}  # the first one warms up
    if parsed.quick:
        recipe |= {"batch": 4, "learner": {"mini_batch": 2, "epochs": 4}}
    config = RunConfig.model_validate(recipe)
    source = TASKS["arithmetic"]()
    start = start_model(config, source, Console(stderr=True), source.tools())
    lines = [
        f"GRPO on `arithmetic`: {config.batch} tasks x {ROLLOUTS} runs, {config.learner.epochs} epochs of mini-batches "
        f"of {config.learner.mini_batch} tasks, from the same cold start. TRL's tool is a bare `eval` in its own "
        "process; ours is that one too, and then Python in its sandbox, as it would be used. TRL generates with "
        f"transformers and trains on {MICRO} sequences at a time. Medians over iterations, after one that does not "
        "count; sides take turns.",
        "",
    ]
    for threads in parsed.threads:
        torch.set_num_threads(threads)
        rows: dict[str, list[dict[str, float]]] = {SAME: [], OURS: [], TRL: []}
        for _ in range(1 if parsed.quick else 3):
            rows[SAME] += ours(config, Bare())[1:]
            rows[OURS] += ours(config, source)[1:]
            rows[TRL] += trl(config, *load_policy(start))[1:]
        cells = []
        for side, measured in rows.items():
            ratios = [total(row) / total(mine) for row, mine in zip(rows[TRL], measured, strict=True)]
            values = [statistics.median(row[name] for row in measured) for name in COLUMNS]
            shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells.append([side, f"{statistics.median(map(total, measured)):.1f}", *(f"{v:.2f}" for v in values),
                          "" if side == TRL else shown])  # fmt: skip
        head = ["", "seconds", *COLUMNS, "TRL takes so many times as long (least to most)"]
        lines += [f"{bench.threads_of(threads)}:", "", *bench.table(head, cells), ""]
        print("\n".join(lines[-6:]), flush=True)
    bench.publish("iteration", "A whole iteration", lines, parsed.quick, "trl")


if __name__ == "__main__":
    main()
