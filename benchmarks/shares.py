"""Where the time of an iteration goes: the demo's, with GRPO and with ELPO.

python benchmarks/shares.py            # writes docs/results/shares.md
python benchmarks/shares.py --quick    # 8 tasks; only prints
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import side_by_side as bench
import torch
from rich.console import Console

from firstfault.config import RunConfig, read_recipe
from firstfault.engines import transformers as engine
from firstfault.engines.base import Turnstile
from firstfault.engines.prefix import PrefixCache
from firstfault.methods import METHODS
from firstfault.tasks import TASKS
from firstfault.training import learner
from firstfault.training.loop import Trainer

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.toml"
PARTS = {  # in the order of an iteration
    "prefill": "passes of the model in which prompts or observations join, and all that they decode beside",
    "decode": "all other passes of the model",
    "draw": "logits, sampling, entropies",
    "prefixes": "finding, copying and keeping keys and values",
    "tools": "waiting for tools and for whoever reads their outputs, beyond what runs while the engine computes",
    "credit": "what the method writes on the trees",
    "pack": "trees to rows",
    "forward": "of training, with log-probabilities and entropies",
    "backward": "of training",
    "optimizer": "clipping and AdamW",
    "rest": "all else, most of it Python",
}


class Shares:
    """Seconds by part. Parts that stand inside others count for themselves alone. And how full each pass was."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.passes: list[tuple[int, float]] = []  # completions, seconds
        self._inside: list[float] = []

    def wrap(self, owner: Any, name: str, part: str | Callable[..., str]) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            which = part if isinstance(part, str) else part(*args)
            start = time.perf_counter()
            self._inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                self.seconds[which] += took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        setattr(owner, name, timed)

    def watch_passes(self) -> None:
        compute = engine.TransformersEngine._compute

        def timed(self_: engine.TransformersEngine) -> Any:
            start = time.perf_counter()
            result = compute(self_)
            self.passes.append((len(self_._active), time.perf_counter() - start))
            return result

        engine.TransformersEngine._compute = timed

    def occupancy(self) -> tuple[float, float]:
        """Completions in a pass, on average; and the share of time in passes a quarter as full as the fullest."""
        most = max(rows for rows, _ in self.passes)
        thin = sum(seconds for rows, seconds in self.passes if rows <= most / 4)
        mean = sum(rows for rows, _ in self.passes) / len(self.passes)
        return mean, thin / sum(seconds for _, seconds in self.passes)

    def wrap_waiting(self, owner: Any, name: str, part: str) -> None:
        function = getattr(owner, name)

        async def timed(*args: Any, **kwargs: Any) -> Any:
            start, before = time.perf_counter(), sum(self.seconds.values())
            await function(*args, **kwargs)
            others = sum(self.seconds.values()) - before  # of tasks that ran meanwhile
            self.seconds[part] += time.perf_counter() - start - others

        setattr(owner, name, timed)


def instrument() -> Shares:
    shares = Shares()
    joins = lambda model, tokens, positions, plan: "prefill" if len(plan.last) < len(tokens) else "decode"  # noqa: E731
    shares.wrap(engine, "hidden_states", joins)
    shares.wrap(engine, "logits", "draw")
    shares.wrap(engine, "sample", "draw")
    for name in ("match", "reserve", "store"):
        shares.wrap(PrefixCache, name, "prefixes")
    for name in ("write", "move", "reserve"):
        shares.wrap(engine.Slots, name, "prefixes")
    shares.watch_passes()
    shares.wrap_waiting(Turnstile, "quiet", "tools")
    shares.wrap(learner, "pack", "pack")
    for name in ("hidden", "logprobs"):
        shares.wrap(learner.Learner, name, "forward")
    shares.wrap(torch.Tensor, "backward", "backward")
    shares.wrap(torch.nn.utils, "clip_grad_norm_", "optimizer")
    shares.wrap(torch.optim.AdamW, "step", "optimizer")
    for method in METHODS.values():
        if "credit" in vars(method):
            shares.wrap(method, "credit", "credit")
    return shares


def run(method: str, batch: int, shares: Shares) -> list[dict[str, float]]:
    """Shares of each iteration but the first."""
    recipe = read_recipe(RECIPE) | {"method": method, "steps": 4, "batch": batch, "evaluation": {"problems": 0}}
    measured = []

    class Watched(Trainer):
        async def _iterate(self) -> dict[str, float]:
            shares.seconds.clear()
            shares.passes.clear()
            row = await super()._iterate()
            whole = row["seconds_explore"] + row["seconds_update"]
            parts = {part: shares.seconds[part] for part in PARTS if part != "rest"}
            full, thin = shares.occupancy()
            measured.append({"whole": whole, **parts, "rest": whole - sum(parts.values()), "full": full, "thin": thin})
            return row

    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig.model_validate(recipe | {"run_dir": Path(folder) / "run"})
        Watched(config, TASKS["arithmetic"](), METHODS[method](), console=Console(quiet=True)).train()
    return measured[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 tasks; only print")
    quick = parser.parse_args().quick
    torch.set_num_threads(2)
    shares = instrument()
    rows = {method: run(method, 8 if quick else 16, shares) for method in ("grpo", "elpo")}
    medians = {
        method: {part: statistics.median(row[part] for row in measured) for part in measured[0]}
        for method, measured in rows.items()
    }
    cells = [["whole", "seconds", *(f"{of['whole']:.1f}" for of in medians.values())]]
    cells += [
        [part, what, *(f"{of[part] / of['whole']:.0%}" for of in medians.values())] for part, what in PARTS.items()
    ]
    cells += [
        ["completions a pass", "on average", *(f"{of['full']:.0f}" for of in medians.values())],
        ["stragglers", "share of the time of passes in those at most a quarter as full as the fullest",
         *(f"{of['thin']:.0%}" for of in medians.values())],
    ]  # fmt: skip
    largest = {method: max(PARTS, key=lambda part, of=of: of[part]) for method, of in medians.items()}
    lines = [
        "Medians over three iterations of 16 tasks x 16 rollouts on `arithmetic` (the demo), 2 threads.",
        "",
        *bench.table(["part", "", *medians], cells),
        "",
        f"The next bottleneck: {', '.join(f'{part} ({method})' for method, part in largest.items())}.",
        "",
    ]
    bench.publish("shares", "Where an iteration goes", lines, quick)


if __name__ == "__main__":
    main()
