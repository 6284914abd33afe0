"""A claim of VinePPO (2410.01679): the mean of a few completions tells the value of a state better than a critic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from statistics import mean

from rich.console import Console

from firstfault.agent.rollouts import Agent
from firstfault.config import RunConfig, merge, validated
from firstfault.evaluation.claims.finding import Figure, Finding, difference, judged
from firstfault.evaluation.claims.measured import Row, Subject
from firstfault.methods import PPO, VinePPO
from firstfault.tasks import TaskSource
from firstfault.tools import Tool
from firstfault.training.build import build_tasks
from firstfault.training.loop import Trainer
from firstfault.tree import Node, Tree

SAMPLES = VinePPO().samples
COMPLETIONS = 64  # others, whose mean is taken for the true value


@dataclass(frozen=True, kw_only=True)
class WithCritic(Agent):
    """`evaluate` writes the critic's value on each node of a tree after which runs go on."""

    evaluate: Callable[[Tree], None]


def policy(config: RunConfig, source: TaskSource, tools: Sequence[Tool], console: Console) -> WithCritic:
    """The policy and critic that PPO ends with in `config.run_dir`; what is missing of the training is done now."""
    own = {"method": {"name": "ppo"}, "evaluation": {"problems": 0}}
    config = validated(RunConfig, merge(config.model_dump(), own), "settings")
    trainer = partial(Trainer, config, method=PPO(), resume=True, console=console)
    trainer(source=build_tasks(config.tasks)).train()
    trained = trainer(source=source)
    agent = {field.name: getattr(trained.agent, field.name) for field in fields(Agent)}
    return WithCritic(**agent, evaluate=lambda tree: trained.learner.value([tree]))


async def measure(subject: Subject) -> Row | None:
    """The values of all states of one run: the critic's, the mean of 9 completions, and the mean of 64 others.

    None if completions of a state were lost, since its tools' state could not be brought back.
    """
    agent: WithCritic = subject.agent
    tree = agent.tree(subject.task, subject.key)
    async with agent.rollouts(tree, 10**9) as rollouts:
        for leaf in await rollouts.sample(1):
            states = leaf.path[:-1]
            agent.evaluate(tree)
            critic = [state.value for state in states]
            ends = await rollouts.continue_all([s for s in states for _ in range(SAMPLES + COMPLETIONS)])
            rewards: dict[Node, list[float]] = defaultdict(list)
            for end in ends:
                rewards[end.anchor].append(end.reward)
            if any(len(rewards[state]) < SAMPLES + COMPLETIONS for state in states):
                return None
            return {
                "task": subject.task.id,
                "critic": critic,
                "monte carlo": [mean(rewards[state][:SAMPLES]) for state in states],
                "truth": [mean(rewards[state][SAMPLES:]) for state in states],
            }


def finding(family: str, rows: Sequence[Row]) -> Finding:
    """Mean absolute errors over the states of a run, as means over runs; and how far off the values are on average.

    The 64 completions err as well, by 0.06 where half of them succeed, which makes both errors look larger.
    """
    errors = {name: [_error(row[name], row["truth"]) for row in rows] for name in ("critic", "monte carlo")}
    usual = mean(value for row in rows for value in row["truth"])
    same = [_error([usual] * len(row["truth"]), row["truth"]) for row in rows]
    difference_of = difference("critic - 9 completions", errors["critic"], errors["monte carlo"])
    figures = [
        Figure.of("error of the critic", errors["critic"], "larger (figures)"),
        Figure.of("error of 9 completions", errors["monte carlo"], "smaller"),
        Figure.of("error of their mean, for all states", same),
        Figure.of("critic less truth", [mean(row["critic"]) - mean(row["truth"]) for row in rows]),
        difference_of,
    ]
    verdict, why = judged([difference_of])
    states = sum(len(row["truth"]) for row in rows)
    return Finding("values", family, figures, verdict, why, [f"{states} states of {len(rows)} runs"])


def _error(values: Sequence[float], truth: Sequence[float]) -> float:
    """The mean absolute difference.

    >>> _error([0.5, 1.0], [0.25, 1.0])
    0.125
    """
    return mean(abs(value - true) for value, true in zip(values, truth, strict=True))
