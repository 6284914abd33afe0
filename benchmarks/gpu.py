"""On a GPU: rollouts, rollout trees and training steps of a policy with the shape of Qwen3-0.6B, beside other ways.

python benchmarks/gpu.py                          # writes docs/results/gpu.md
python benchmarks/gpu.py --quick --device cpu     # a tiny policy, few rounds; only prints

The weights are random, which changes nothing about the work: the lengths of all turns are drawn beforehand. Needs what
benchmarks/rollouts.py needs.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable
from functools import partial

import rollouts as sampling
import side_by_side as bench
import torch
import training
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from trees import flat_tokens, make_tree

from firstfault.attention import autocast
from firstfault.config import LearnerConfig, OptimizerConfig
from firstfault.training.learner import Learner
from firstfault.training.pack import pack, unique_tokens

OURS, GENERATE, SORTED, PADDED = sampling.OURS, sampling.GENERATE, training.SORTED, training.PADDED
SHAPES = [(4, 1), (8, 2), (4, 4), (8, 6)]  # depth, token ratio


def policy(device: str) -> PreTrainedModel:
    if device == "cpu":
        return sampling.policy(128, 3)
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForCausalLM(Qwen3Config(
            vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
            num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, tie_word_embeddings=True,
            rope_theta=1e6, eos_token_id=1, pad_token_id=0,
        )).eval()  # fmt: skip
    model.generation_config.eos_token_id = None  # no side may stop early
    return model


def finished(work: Callable[[], object]) -> Callable[[], None]:
    """Do it, and wait until the GPU has done it too."""

    def run() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def grow(model: PreTrainedModel, tasks: int, rounds: int) -> list[str]:
    sides = {OURS: sampling.Ours(copy.deepcopy(model)), GENERATE: sampling.Generate(copy.deepcopy(model))}
    rows = []
    for work in (sampling.Work(sampling.ROLLOUTS, tasks, 16, 0), sampling.Work(sampling.TREES, tasks, 8, 4)):
        times = bench.take_turns({name: finished(partial(side.grow, work)) for name, side in sides.items()}, rounds)
        counts = sides[OURS].engine.counts
        for name, side in sides.items():
            seconds = statistics.median(times[name])
            rows.append([
                work.name, name, f"{seconds:.2f}", f"{work.written / seconds:,.0f}",
                "" if name == OURS else bench.show(bench.ratio(times, name, OURS)), f"{side.computed:,}",
                f"{counts['passes']} of {counts['rows'] / counts['passes']:.0f}" if name == OURS else "",
            ])  # fmt: skip
        print(rows[-2:], flush=True)
    head = ["", "", "seconds", "tokens written/s", "times ours", "tokens computed", "passes of completions"]
    return bench.table(head, rows)


def train(model: PreTrainedModel, tasks: int, rounds: int) -> list[str]:
    rows = []
    for depth, ratio in SHAPES:
        trees = [make_tree(seed, depth=depth, ratio=ratio) for seed in range(tasks)]
        sides = {name: training.side(name, copy.deepcopy(model), trees) for name in (OURS, SORTED, PADDED)}
        losses = {name: sides[name]() for name in sides}
        times = bench.take_turns({name: finished(side) for name, side in sides.items()}, rounds)
        peaks = {}
        for name in sides if torch.cuda.is_available() else ():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            finished(sides[name])()
            peaks[name] = f"{(torch.cuda.max_memory_allocated() - before) / 1e9:.1f}"
        unique = sum(map(unique_tokens, trees))
        rows.append([
            str(depth), f"{sum(map(flat_tokens, trees)) / unique:.2f}", f"{unique:,}",
            f"{1e3 * statistics.median(times[OURS]):.0f}", f"{unique / statistics.median(times[OURS]):,.0f}",
            *(bench.show(bench.ratio(times, name, OURS)) for name in (SORTED, PADDED)),
            " / ".join(peaks.values()), " / ".join(f"{loss:.5f}" for loss in losses.values()),
        ])  # fmt: skip
        print(rows[-1], flush=True)
        del sides
        gc.collect()
    head = ["steps", "token ratio", "unique tokens", "ours, ms", "ours, tokens/s", SORTED, PADDED]
    head += ["GB on top (ours / sorted / padded)", "loss (ours / sorted / padded)"]
    return bench.table(head, rows)


@torch.no_grad()
def gap(model: PreTrainedModel) -> list[str]:
    """How far log-probabilities differ: the engine's from the learner's, and the learner's from flattened runs."""
    ours = sampling.Ours(model)
    ours.grow(sampling.Work(sampling.TREES, 2, 8, 4))
    learner = Learner(model, OptimizerConfig(lr=1e-6), LearnerConfig())
    packed = pack(ours.trees, model.device)
    with autocast(model):
        scored, _ = learner.logprobs(packed, learner.hidden(packed))
    scored = scored.float().cpu()
    drawn = (scored - packed.old_logprobs.cpu()).abs()
    lengths = [len(node.action_tokens) for node in packed.steps]
    of_node = dict(zip(map(id, packed.steps), scored.split(lengths), strict=True))
    model.set_attn_implementation("sdpa")
    differences = []
    for tree in ours.trees:
        for leaf in tree.leaves:
            tokens = torch.tensor([leaf.tokens], device=model.device)
            with autocast(model):
                logprobs = torch.log_softmax(model(input_ids=tokens, use_cache=False).logits[0, :-1].float(), -1)
            flat = logprobs.gather(-1, tokens[0, 1:, None])[:, 0].cpu()
            at = len(leaf.path[0].observation_tokens) - 1
            for node in leaf.steps:
                differences.append((flat[at : at + len(node.action_tokens)] - of_node[id(node)]).abs())
                at += len(node.action_tokens) + len(node.observation_tokens)
    flat = torch.cat(differences)
    return [
        f"Log-probabilities of {len(drawn)} sampled tokens, absolute differences: engine and learner "
        f"{drawn.mean():.1e} on average, {drawn.max():.1e} at most; learner and flattened runs {flat.mean():.1e} and "
        f"{flat.max():.1e}.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tasks and rounds; only print")
    parser.add_argument("--device", default="cuda")
    parsed = parser.parse_args()
    tasks, rounds = (2, 2) if parsed.quick else (8, 3)
    start = time.perf_counter()
    if parsed.device == "cuda":
        training.MAX_TOKENS = 16384
    model = policy(parsed.device)
    gc.freeze()
    where = torch.cuda.get_device_name() if parsed.device == "cuda" else "CPU"
    size = sum(p.numel() for p in model.parameters()) / 1e6
    lines = [
        f"A policy of {size:,.0f}M parameters, weights in float32, passes in bfloat16, random weights, on one {where}. "
        f"The work is that of the sections above, with {tasks} tasks; a training step is on {tasks // 2} trees, "
        f"{training.MAX_TOKENS:,} tokens in a pass at most.",
        "",
    ]
    for part in (lambda: gap(copy.deepcopy(model)), lambda: train(model, tasks // 2, rounds),
                 lambda: grow(model, tasks, rounds)):  # fmt: skip
        lines += [*part(), ""]
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    bench.publish("gpu", "On a GPU", lines, parsed.quick, "trl")


if __name__ == "__main__":
    main()
