"""The policy that is looked at, with its tools and its tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
from accelerate import PartialState
from rich.console import Console

from firstfault.agent.rollouts import Agent
from firstfault.config import RunConfig
from firstfault.engines.transformers import TransformersEngine
from firstfault.policy import load_policy
from firstfault.tasks import TaskSource
from firstfault.training.build import build_agent, build_tasks, run_tools, uses_cpu
from firstfault.training.cold_start import start_model


@asynccontextmanager
async def subject(config: RunConfig, console: Console) -> AsyncIterator[tuple[Agent, TaskSource]]:
    """The model of `config` as an agent, and the source of its tasks.

    Raises:
        UserError: if anything in `config` can't be had.
    """
    source = build_tasks(config.tasks)
    if config.threads:
        torch.set_num_threads(config.threads)
    tools = run_tools(config, source)
    model, tokenizer = load_policy(
        start_model(config, source, console, tools), PartialState(cpu=uses_cpu(config)).device
    )
    engine = TransformersEngine(model, tokenizer, **config.engine.model_dump())
    agent = build_agent(config.agent, engine, tokenizer, source, tools)
    try:
        yield agent, source
    finally:
        await agent.session.close()
        await source.close()
