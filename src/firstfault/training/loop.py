"""The training loop: explore, credit, update; and all that it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from firstfault.agent.base import Rollouts
from firstfault.agent.batch import Batch, Tasks
from firstfault.agent.rollouts import Agent
from firstfault.config import RunConfig, validated
from firstfault.engines.transformers import TransformersEngine
from firstfault.errors import UserError
from firstfault.files import alone, saving
from firstfault.methods.base import Method
from firstfault.policy import load_policy, pick_device, use_threads
from firstfault.progress import LONG, progress
from firstfault.run_folder import RunFolder
from firstfault.tasks.base import TaskSource
from firstfault.training.budget import tasks_due
from firstfault.training.build import build_agent, build_method, build_tasks, complete, run_tools
from firstfault.training.checkpoint import load_state, save_checkpoint
from firstfault.training.cold_start import start_model
from firstfault.training.learner import Learner, holding
from firstfault.training.metrics import tree_metrics
from firstfault.training.validate import held_out, validate
from firstfault.tree import Task, Tree, save_trees


async def grow(
    method: Method,
    agent: Agent,
    tasks: Sequence[Task],
    key: tuple[int, ...],
    more: Tasks = lambda first, n: [],
    reference: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[Tree]:
    """Explore an iteration's tasks with the method's budget for each.

    `more` are for methods that draw other tasks, too; within `reference`, the engine has the reference policy.
    """

    def start(task: Task, number: int, rollouts: int) -> Rollouts:
        return agent.rollouts(agent.tree(task, (*key, number)), rollouts)

    return await method.explore_all(Batch(tasks, method.rollouts, start, more, reference))


CHECKED = 10_000  # tasks whose prompts are checked before a run begins; those after them, as they come


class Trainer:
    """One run, in its folder.

    Args:
        config: all settings; written to the folder when training begins.
        source, method: as `config` names them, see `build`.
        start: the folder of the policy to start from, where that is not what `config.model` names.
        resume: go on from the newest checkpoint of the folder, if it has one.

    Raises:
        UserError: if the folder holds a run already and `resume` is false, or anything in `config` can't be had.
    """

    def __init__(
        self,
        config: RunConfig,
        source: TaskSource,
        method: Method,
        *,
        start: Path | None = None,
        resume: bool = False,
        console: Console | None = None,
    ):
        self.config, self.source, self.method = config, source, method
        self.console = console or Console(stderr=True)
        self.folder = RunFolder(config.run_dir)
        if self.folder.is_used and not resume:
            raise UserError(f"{config.run_dir} holds a run already; go on with --resume, or give another --run-dir.")
        use_threads(config.threads)
        tracker = None if config.tracker == "none" else config.tracker
        if tracker and importlib.util.find_spec(tracker) is None:  # accelerate would go on without it
            raise UserError(f"the tracker {tracker} is not installed; pip install 'firstfault[{tracker}]'.")
        self.accelerator = Accelerator(
            log_with=tracker, project_dir=config.run_dir, cpu=pick_device(config.device) == "cpu"
        )
        # what is wrong with tasks, tools or folder shows before a model is taught or loaded
        source.train(config.seed, 0, config.batch)
        self.held_out = held_out(source, config.evaluation)
        tools = run_tools(config, source)
        config = self.config = complete(config, source, method)
        checkpoint = self.folder.last_checkpoint() if resume else None
        if checkpoint:
            # settings that were not there yet when it was started had their defaults
            started = validated(RunConfig, self.folder.read_config(), str(self.folder.config))
            self.folder.check_same(config, complete(started, build_tasks(started.tasks), build_method(started.method)))
        elif self.folder.has_iterations:
            raise UserError(f"{config.run_dir} holds a run without a checkpoint to go on from; give another --run-dir.")
        self.iteration, start = checkpoint or (0, start or start_model(config, source, self.console, tools))
        model, self.tokenizer = load_policy(str(start), self.accelerator.device)
        self.learner = Learner(
            model,
            config.optimizer,
            config.learner,
            temperature=config.agent.temperature,
            critic_step=method.critic,
        )
        if checkpoint:
            self.learner.load_state(load_state(start))
        self.engine = TransformersEngine(model, self.tokenizer, **config.engine.model_dump())
        self.agent = build_agent(config.agent, self.engine, self.tokenizer, source, tools)
        due = min(max(0, config.steps - self.iteration) * config.batch, CHECKED)
        self.agent.check_room([*source.train(config.seed, self.iteration * config.batch, due), *self.held_out])

    def train(self) -> None:
        """Run all iterations that are left."""
        gc.freeze()  # what is loaded by now stays: the collector need not look at it again and again

        async def run() -> None:
            try:
                await self._train()
            finally:
                await self.agent.session.close()
                await self.source.close()
                self.accelerator.end_training()

        with alone(self.folder.path):
            if (self.folder.last_checkpoint() or (0,))[0] != self.iteration:
                raise UserError(f"another command trained in {self.folder.path} meanwhile; give this one again.")
            self.folder.write_config(self.config)
            self.folder.rewind(self.iteration)
            asyncio.run(run())

    async def _train(self) -> None:
        config = self.config
        if config.tracker != "none":
            self.accelerator.init_trackers("firstfault", config={"run": config.model_dump_json()})
        if self.iteration == 0:
            if self.folder.last_checkpoint() is None:
                self._save()
            await self._evaluate()
        with progress(self.console, over=LONG) as bar:
            task = bar.add_task("training", total=config.steps, completed=self.iteration, unit="iter")
            while self.iteration < config.steps:
                row = await self._iterate()
                bar.update(task, advance=1, description=f"train, success {row['success']:.2f}")
                if not self.console.is_terminal:  # which shows no bar before its end
                    self.console.print(f"iteration {self.iteration} of {config.steps}: success {row['success']:.2f}")
                every = config.evaluation.every
                if every and self.iteration % every == 0 and self.iteration < config.steps:
                    await self._evaluate()
                if self.iteration % config.checkpoint_every == 0 or self.iteration == config.steps:
                    self._save()
        if config.steps:
            await self._evaluate()

    def _save(self) -> None:
        path = self.folder.checkpoint(self.iteration)
        save_checkpoint(path, self.learner.model, self.tokenizer, self.learner.state())

    async def _iterate(self) -> dict[str, float]:
        self.iteration += 1
        config, key = self.config, (self.config.seed, self.iteration)
        due = tasks_due(config, self.folder.read_metrics())
        tasks = self.source.train(config.seed, due.start, len(due))
        self.engine.counts.clear()
        self.agent.counts.clear()
        start = time.perf_counter()
        more = partial(self._more, due.start * self.method.rollouts)
        trees = await grow(self.method, self.agent, tasks, key, more, self._as_reference)
        explored = time.perf_counter()
        self.engine.release()  # training needs the room
        if self.learner.critic:
            self.learner.value(trees)
        self.method.shape(trees)
        self.method.credit(trees)
        if self.method.needs_reference:
            self.learner.refer([tree for tree in trees if tree.is_credited], self._reference)
        self.learner.scale_lr(config.optimizer.scale(self.iteration, config.steps))
        learnt = self.learner.update(trees, self.method.loss, seed=key, ties=self.method.learns_from_ties)
        self.engine.load(self.learner.weights())
        updated = time.perf_counter()
        row = {
            "iteration": self.iteration,
            "tasks": len(tasks),
            **tree_metrics(trees, self.engine.counts + self.agent.counts),
            **learnt,
            "seconds_explore": explored - start,
            "seconds_update": updated - explored,
            "peak_memory_mb": peak_memory(),
        }
        with saving(self.folder.trees(self.iteration)):
            save_trees(trees, self.folder.trees(self.iteration))
        self.folder.log(row)
        self.accelerator.log(row, step=self.iteration)
        return row

    def _more(self, apart: int, first: int, n: int) -> Sequence[Task]:
        """Tasks beyond those that are due in this iteration, from a stream of their own."""
        return self.source.train(self.config.seed + 1_000_003, apart + first, n)

    @cached_property
    def _reference(self) -> dict[str, Tensor]:
        """The weights that training began with."""
        return load_policy(str(self.folder.checkpoint(0)), self.accelerator.device)[0].state_dict()

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        try:
            with holding(self.learner.model, self._reference):
                self.engine.load(self.learner.weights())  # what it knows of prefixes is another policy's
                yield
        finally:
            self.engine.load(self.learner.weights())

    async def _evaluate(self) -> None:
        if not self.held_out:
            return
        config = self.config.evaluation
        is_last = 0 < self.iteration == self.config.steps
        samples, ks = (config.last_samples, config.k) if is_last else (config.samples, [])
        with progress(self.console) as bar:
            task = bar.add_task("evaluation", total=len(self.held_out) * (samples + 1), unit="runs")
            record = await validate(self.agent, self.held_out, samples=samples, ks=ks, seed=self.config.seed,
                                    done=lambda n: bar.advance(task, n))  # fmt: skip
        self.folder.log_evaluation({"iteration": self.iteration, **record})
        # prefixes that the engine still knows would make the next iteration unlike that of a resumed run
        self.engine.load(self.learner.weights())


def peak_memory() -> float:
    """The most memory (MB) that this process has had: that of tensors on its GPU if it uses one, else all."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
