"""A training step on rollout trees: each shared token once, beside other ways to train on the same runs.

python benchmarks/training.py            # writes docs/results/training.md
python benchmarks/training.py --quick    # three rounds of two trees; only prints

TRL's side needs `pip install trl`. All sides take the same step: GRPO's clipped loss on the same runs, its gradient,
and AdamW.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import side_by_side as bench
import torch
from transformers import PreTrainedModel
from trees import flat_tokens, make_tree

from firstfault.attention import autocast
from firstfault.config import LearnerConfig, OptimizerConfig
from firstfault.losses import clipped_surrogate
from firstfault.training.learner import Learner
from firstfault.training.pack import pack, unique_tokens
from firstfault.training.tiny import tiny_model, tiny_tokenizer
from firstfault.tree import Node, Tree

try:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
except ImportError:
    sys.exit("benchmarks/training.py compares with TRL: pip install trl")

VOCAB = 384
SHAPES = [(4, 1), (2, 2), (4, 2), (8, 2), (2, 3), (4, 3), (8, 3), (4, 4), (8, 4), (4, 6), (8, 6)]  # depth, token ratio
OURS, ONE, SORTED, PADDED, TRL = "ours", "ours, a tree at a time", "flattened, sorted", "flattened, padded", "TRL"
MAX_TOKENS = 4096  # of a micro-batch, as by default
LR = 1e-6


class Flattened:
    """Each run a row of its own. `sorted_by_length`: rows of like length together, and logits of actions only."""

    def __init__(self, model: torch.nn.Module, trees: Sequence[Tree], sorted_by_length: bool):
        self.model = model.train()
        self.model.set_attn_implementation("sdpa")
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
        leaves = [leaf for tree in trees for leaf in tree.leaves]
        self.total = len(leaves)  # each run weighs as much as any other
        if sorted_by_length:
            leaves.sort(key=lambda leaf: len(leaf.tokens))
        self.score = self._score_actions if sorted_by_length else self._score_all
        self.batches, batch = [], []
        for leaf in leaves:
            if batch and max(len(other.tokens) for other in [*batch, leaf]) * (len(batch) + 1) > MAX_TOKENS:
                self.batches.append(self._pad(batch))
                batch = []
            batch.append(leaf)
        self.batches.append(self._pad(batch))

    def _pad(self, leaves: list[Node]) -> tuple[torch.Tensor, ...]:
        longest = max(len(leaf.tokens) for leaf in leaves)
        device = self.model.device
        tokens, real, actions = torch.zeros(3, len(leaves), longest, dtype=torch.long, device=device)
        old, weights = torch.zeros(2, len(leaves), longest, device=device)
        for row, leaf in enumerate(leaves):
            at = len(leaf.path[0].observation_tokens)
            tokens[row, : len(leaf.tokens)] = torch.tensor(leaf.tokens, device=device)
            real[row, : len(leaf.tokens)] = 1
            length = sum(len(step.action_tokens) for step in leaf.steps)
            for step in leaf.steps:
                span = slice(at, at + len(step.action_tokens))
                actions[row, span], weights[row, span] = 1, 1 / length
                old[row, span] = torch.tensor(step.logprobs, device=device)
                at += len(step.action_tokens) + len(step.observation_tokens)
        rewards = torch.tensor([[leaf.reward for leaf in other.path[0].leaves] for other in leaves], device=device)
        advantages = torch.tensor([leaf.reward for leaf in leaves], device=device) - rewards.mean(1)
        advantages = (advantages / (rewards.std(1, correction=0) + 1e-6))[:, None].expand_as(old)
        return tokens, real, actions.bool(), old, advantages, weights

    def _score_all(self, tokens: torch.Tensor, real: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=tokens, attention_mask=real, use_cache=False).logits[:, :-1]
        logprobs = torch.log_softmax(logits, -1)
        with torch.no_grad():
            torch.special.entr(logprobs.exp()).sum(-1)
        return logprobs.gather(-1, tokens[:, 1:, None])[..., 0][actions[:, 1:]]

    def _score_actions(self, tokens: torch.Tensor, real: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        # causal attention and padding at the end: no mask is needed
        hidden = self.model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][actions[:, 1:]]
        logprobs = torch.log_softmax(self.model.lm_head(hidden), -1)
        with torch.no_grad():
            torch.special.entr(logprobs.exp()).sum(-1)
        return logprobs.gather(-1, tokens[actions][:, None])[:, 0]

    def step(self) -> float:
        total = 0.0
        for tokens, real, actions, old, advantages, weights in self.batches:
            with autocast(self.model):
                logprobs = self.score(tokens, real, actions)
            ratios = (logprobs - old[actions]).exp()
            gains = torch.minimum(ratios * advantages[actions], ratios.clamp(0.8, 1.2) * advantages[actions])
            loss = -(weights[actions] * gains).sum() / self.total
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total


class Given(GRPOTrainer):
    """TRL's trainer on runs that were sampled before."""

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return inputs


def trl_step(model: torch.nn.Module, trees: Sequence[Tree]) -> Callable[[], None]:
    """TRL's training step, one tree's runs at a time, and AdamW."""
    model.set_attn_implementation("sdpa")
    config = GRPOConfig(
        tempfile.mkdtemp(), per_device_train_batch_size=16, gradient_accumulation_steps=len(trees), num_generations=16,
        use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], learning_rate=LR, beta=0.0,
        disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": ["x"] * 16})
    trainer = Given(
        model, lambda completions, **_: [0.0] * len(completions), config, data, processing_class=tiny_tokenizer(["x"])
    )
    trainer.current_gradient_accumulation_steps = len(trees)
    model = trainer.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    inputs = []
    for tree in trees:
        prompt = torch.tensor([tree.root.observation_tokens] * len(tree.leaves))
        runs = [torch.tensor(leaf.tokens[prompt.shape[1] :]) for leaf in tree.leaves]
        masks = [
            torch.tensor([int(kind) for step in leaf.steps
                          for kind in "1" * len(step.action_tokens) + "0" * len(step.observation_tokens)])
            for leaf in tree.leaves
        ]  # fmt: skip
        pad = lambda rows: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # noqa: E731
        inputs.append({
            "prompt_ids": prompt, "prompt_mask": torch.ones_like(prompt), "completion_ids": pad(runs),
            "completion_mask": pad([torch.ones_like(run) for run in runs]), "tool_mask": pad(masks),
            "advantages": torch.tensor([2 * leaf.reward - 1 for leaf in tree.leaves]),
            "old_per_token_logps": torch.full(pad(runs).shape, -6.0),
            "num_items_in_batch": torch.tensor(16.0 * len(trees)),
        })  # fmt: skip

    def step() -> None:
        for batch in inputs:
            trainer.training_step(model, batch, None)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def sides(
    trees: Sequence[Tree], names: Sequence[str], *, vocab: int = VOCAB, width: int = 128, layers: int = 3
) -> dict[str, Callable[[], object]]:
    """A training step on the same trees for each side, with a model of its own."""

    return {name: side(name, tiny_model(vocab, 1, 0, width=width, layers=layers), trees) for name in names}


def side(name: str, model: torch.nn.Module, trees: Sequence[Tree]) -> Callable[[], object]:
    """A training step of that side, with a model that it trains."""
    if name == TRL:
        return trl_step(model, trees)
    if name in (SORTED, PADDED):
        return Flattened(model, trees, sorted_by_length=name == SORTED).step
    config = LearnerConfig(mini_batch=len(trees), max_tokens=MAX_TOKENS if name == OURS else 1)
    learner = Learner(model, OptimizerConfig(lr=LR), config)
    return lambda: learner.update(trees, clipped_surrogate)["loss"]


def operations(model: PreTrainedModel, tokens: int, pairs: float, actions: int) -> float:
    """Floating-point operations of a step: twice as many backward as forward, and the logits once more.

    `pairs` are of a token and one that it sees.
    """
    body, config = sum(p.numel() for p in model.model.layers.parameters()), model.config
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * pairs
    return 6 * body * tokens + 8 * model.lm_head.weight.numel() * actions + attention


def needed(model: PreTrainedModel, trees: Sequence[Tree]) -> tuple[float, float]:
    """Operations that a step needs on unique tokens, and those on flattened runs."""
    packed = pack(trees)
    runs = [leaf for tree in trees for leaf in tree.leaves]
    lengths = [len(run.tokens) for run in runs]
    actions = sum(len(step.action_tokens) for run in runs for step in run.steps)
    return (
        operations(model, len(packed.tokens), (packed.plan.positions + 1).sum().item(), len(packed.targets)),
        operations(model, sum(lengths), sum(n * (n + 1) / 2 for n in lengths), actions),
    )


def measure(depth: int, ratio: float, trees: int, rounds: int, width: int, layers: int) -> dict[str, Any]:
    batch = [make_tree(seed, depth=depth, ratio=ratio) for seed in range(trees)]
    steps = sides(batch, (OURS, SORTED, PADDED, TRL), width=width, layers=layers)
    losses = [steps[name]() for name in (OURS, SORTED, PADDED)]
    assert max(losses) - min(losses) < 1e-4, f"the sides disagree: {losses}"
    unique = sum(map(unique_tokens, batch))
    ours, flattened = needed(tiny_model(VOCAB, 1, 0, width=width, layers=layers), batch)
    load = bench.foreign_load()
    return {
        "operations": flattened / ours,
        "floor": ours / bench.multiply_rate(torch.get_num_threads()),
        "depth": depth,
        "ratio": sum(map(flat_tokens, batch)) / unique,
        "unique": unique,
        "load": load,
        "times": bench.take_turns(steps, rounds),
    }


def render(results: dict[int, list[dict[str, Any]]], moved: float) -> list[str]:
    lines = [
        "GRPO's step (clipped loss, gradient, AdamW) on 4 trees of 16 runs; token ratio is tokens of the flattened "
        "runs over unique ones. How many times as long as ours the other sides take: median over rounds and quartiles. "
        f"*{SORTED}*: rows of like length in a batch, logits of the actions only. *{PADDED}*: as they come, all "
        "logits. *TRL*: GRPOTrainer's training step, a tree's runs at a time. *Operations*: the ratio of the "
        "floating-point operations that the flattened runs and the unique tokens need; it is lower, because shared "
        "tokens are early ones, which attend to little. *Of tokens*, *of operations*: what of the two becomes speed, "
        f"beside *{SORTED}*. *Floor*: the time in which this machine multiplies matrices of as many operations as the "
        "step needs for its unique tokens, as a share of ours. The bytes that it has to move, parameters twice, "
        f"gradients once and AdamW's seven times the parameters, take {1e3 * moved:.0f} ms.",
        "",
    ]
    for threads, rows in results.items():
        lines += [f"{bench.threads_of(threads)}:", ""]
        cells = []
        for row in rows:
            times = row["times"]
            cells.append([
                str(row["depth"]), f"{row['ratio']:.2f}", f"{row['operations']:.2f}", f"{row['unique']:,}",
                f"{row['unique'] / statistics.median(times[OURS]):,.0f}",
                *(bench.show(bench.ratio(times, side, OURS)) for side in (SORTED, PADDED, TRL)),
                *(f"{bench.ratio(times, SORTED, OURS)[0] / row[of]:.2f}" for of in ("ratio", "operations")),
                f"{row['floor'] / statistics.median(times[OURS]):.0%}", f"{row['load']:.1f}",
            ])  # fmt: skip
        head = ["steps", "token ratio", "operations", "unique tokens", "ours, tokens/s", SORTED, PADDED, TRL]
        head += ["of tokens", "of operations", "floor", "load"]
        lines += [*bench.table(head, cells), ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and trees; only print")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parsed = parser.parse_args()
    results: dict[int, list[dict[str, Any]]] = {}
    model = tiny_model(VOCAB, 1, 0, width=parsed.width, layers=parsed.layers)
    moved = 10 * 4 * sum(p.numel() for p in model.parameters()) / bench.copy_rate(1)
    trees, rounds = (2, 3) if parsed.quick else (4, 5)
    for threads in parsed.threads:
        torch.set_num_threads(threads)
        for depth, ratio in SHAPES[::3] if parsed.quick else SHAPES:
            row = measure(depth, ratio, trees, rounds, parsed.width, parsed.layers)
            results.setdefault(threads, []).append(row)
            print(render({threads: [row]}, moved)[-2], flush=True)
    bench.publish("training", "The training step", render(results, moved), parsed.quick, "trl")


if __name__ == "__main__":
    main()
