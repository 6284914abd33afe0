"""The cold start: teaches a tiny policy the manners of a task family from its demonstrations, once per recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from firstfault import __version__
from firstfault.agent.chat import Chat
from firstfault.config import ColdStartConfig, LearnerConfig, OptimizerConfig, RunConfig
from firstfault.errors import UserError
from firstfault.files import cache_folder, saving, whole
from firstfault.losses import negative_log_likelihood
from firstfault.progress import progress
from firstfault.tasks.base import TaskSource
from firstfault.tools import Session, Tool
from firstfault.tools.arguments import Schema
from firstfault.training.learner import Learner
from firstfault.training.tiny import TEMPLATE, tiny_model, tiny_tokenizer
from firstfault.tree import Task, Term, Tree

Progress = Callable[[int], None]


def start_model(config: RunConfig, source: TaskSource, console: Console, tools: Sequence[Tool]) -> str:
    """The folder or Hub id that a run starts from; "tiny" is taught first, where the cache does not have it."""
    if config.model != "tiny":
        return config.model
    bar = progress(console)
    row = bar.add_task("cold start", total=config.cold_start.steps, unit="updates")

    def done(updates: int) -> None:
        bar.start()  # where there is something to teach
        bar.advance(row, updates)

    try:
        return str(cold_start(source, config.cold_start, done, tools))
    finally:
        if bar.live.is_started:
            bar.stop()


def cold_start(
    source: TaskSource, config: ColdStartConfig, done: Progress = lambda n: None, tools: Sequence[Tool] | None = None
) -> Path:
    """The folder of the tiny policy for these tasks, taught now if it is not in the user's cache yet.

    It is told of `tools`, by default those of the tasks.

    The cache is `$FIRSTFAULT_CACHE`, or else `~/.cache/firstfault`; the folder's name is a hash of the recipe: the
    settings, a sample of the demonstrations, what the policy is told of its tools, and what the last bits depend on,
    the version of torch and the number of its threads.
    """
    try:
        sample = [[task.question, *(asdict(turn) for turn in source.demonstrate(task))]
                  for task in source.train(config.seed, 0, 50)]  # fmt: skip
    except NotImplementedError:
        raise UserError(
            f"{type(source).__name__} has no demonstrations to teach the tiny policy from; give a model that can "
            "already use tools, with --model."
        ) from None
    schemas = Session(source.tools() if tools is None else tools).schemas
    recipe = [
        __version__,
        torch.__version__,
        torch.get_num_threads(),
        source.model_dump(mode="json"),
        config.model_dump(),
        source.system,
        schemas,
        TEMPLATE,
        sample,
    ]
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / f"tiny-{key}"
    if not folder.exists():
        _teach(source, config, schemas, folder, done)
    return folder


def _teach(
    source: TaskSource, config: ColdStartConfig, schemas: Sequence[Schema], folder: Path, done: Progress
) -> None:
    sample = source.train(config.seed, 0, 500)
    texts = (task.question + "".join(turn.text for turn in source.demonstrate(task)) for task in sample)
    tokenizer = tiny_tokenizer(texts, schemas)
    model = tiny_model(len(tokenizer), tokenizer.eos_token_id, config.seed, width=config.width, layers=config.layers)
    chat = Chat(tokenizer, schemas, source.system)
    learner = Learner(
        model,
        OptimizerConfig(name="muon", lr=config.lr, muon_lr=config.muon_lr),
        LearnerConfig(mini_batch=config.batch),
    )
    for step in range(config.steps):
        learner.scale_lr(min(1.0, (step + 1) / 20) * max(0.02, 1 - step / config.steps))  # warm up, then down
        tasks = source.lesson(step / config.steps).train(config.seed, step * config.batch, config.batch)
        learner.update([demonstration(source, task, chat) for task in tasks], negative_log_likelihood)
        done(1)
    with saving(folder), whole(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def demonstration(source: TaskSource, task: Task, chat: Chat) -> Tree:
    """A demonstration as a tree of one run, a term on every step."""
    tree = Tree(task, chat.prompt(task.question))
    node = tree.root
    for turn in source.demonstrate(task):
        action = chat.action(turn.text)
        node = tree.add(node, rollout=0, action_tokens=action, logprobs=[0.0] * len(action), text=turn.text)
        node.terms = [Term(1.0, 1.0, 0.0, 0.0)]
        if turn.outputs:
            node.observation_tokens = chat.observe(action, turn.outputs)
    node.end = "answer"
    return tree
