"""How many tasks an iteration has, where tokens or tool calls are what may be spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from firstfault.config import RunConfig

MOST = 8  # times `batch`: a policy that hardly writes or calls any more must not get tasks without end


def tasks_due(config: RunConfig, earlier: Sequence[Mapping[str, float]]) -> range:
    """Which tasks of the training stream are due next, by the metrics of all earlier iterations.

    They are `batch`, unless `budget` bounds tokens or tool calls to N per iteration. Then the first iteration has
    `batch`, and iteration i as many as what is left of i * N pays for at the mean price so far; at least one, and at
    most 8 times `batch`.

    >>> config = RunConfig(batch=4, budget={"tokens": 1000})
    >>> tasks_due(config, []), tasks_due(config, [{"tasks": 4, "generated_tokens": 800}])
    (range(0, 4), range(4, 10))
    >>> tasks_due(config, [{"tasks": 4, "generated_tokens": 3000}])
    range(4, 5)
    """
    drawn = int(sum(row.get("tasks", config.batch) for row in earlier))
    bound = config.budget.tokens or config.budget.calls
    if not bound or not earlier:
        return range(drawn, drawn + config.batch)
    spent = sum(row["generated_tokens" if config.budget.tokens else "tool_calls"] for row in earlier)
    left = bound * (len(earlier) + 1) - spent
    most = MOST * config.batch
    due = max(1, min(most, int(left * drawn / spent))) if spent else most
    return range(drawn, drawn + due)
