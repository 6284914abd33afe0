"""Claims that are measured on a policy, a task at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console

from firstfault.agent.rollouts import Agent
from firstfault.config import RunConfig
from firstfault.evaluation.agents import local_agent
from firstfault.evaluation.claims.finding import Finding
from firstfault.tasks import TaskSource
from firstfault.tools import Tool
from firstfault.tree import Task

Row = dict[str, Any]  # what was measured on a task


class Subject(NamedTuple):
    """What is measured on: an agent, and a task of a family with the key of its randomness."""

    agent: Agent
    source: TaskSource
    family: str
    task: Task
    key: tuple[int, ...]


@dataclass(frozen=True)
class Measurement:
    """What a variant of a claim measured on a task, by its number; None if the claim is not about it."""

    number: int
    variant: str
    measured: Row | None


@dataclass(frozen=True)
class Measured:
    """A claim that is measured on a policy.

    Each of `variants` measures a task, or returns None if the claim is not about it. `finding` is given the family and
    the rows of each variant, in this order. `policy` makes the agent from the settings; if it `trains`, rows follow
    from those of training, too.
    """

    variants: Mapping[str, Callable[[Subject], Awaitable[Row | None]]]
    finding: Callable[..., Finding]
    policy: Callable[[RunConfig, TaskSource, Sequence[Tool], Console], Agent] = local_agent
    trains: bool = False
