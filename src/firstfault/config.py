"""The settings of a run: what there is, what is allowed, and how TOML recipes and flags become one.

Every section is a frozen pydantic model; unknown keys and impossible combinations are refused in one sentence. The
options of a method or a task source are those of its own class: see `methods` and `tasks`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from firstfault.errors import UserError, what_is_wrong

M = TypeVar("M", bound=BaseModel)


def listed(value: Any) -> Any:
    """Of a setting that is a list: a text alone is a list of one."""
    return [value] if isinstance(value, str) else value


def between_commas(value: Any) -> list[str]:
    """Of a setting that is a list: texts with commas between.

    >>> between_commas("grpo, elpo"), between_commas(["grpo,elpo", "dapo"])
    (['grpo', 'elpo'], ['grpo', 'elpo', 'dapo'])
    """
    given = value if isinstance(value, list) else [value]
    return [part.strip() for text in given for part in str(text).split(",") if part.strip()]


class Settings(BaseModel):
    """Values that are checked when they are given and don't change; a name that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AgentConfig(Settings):
    temperature: float = Field(1.0, gt=0, description="of sampling in training")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of sampling; ratios are exact only at 1")
    max_new_tokens: int = Field(512, ge=1, description="tokens of one step")
    max_steps: int = Field(16, ge=1, description="steps of one run")
    max_context: int = Field(4096, ge=16, description="tokens of one run, prompt included")
    tool_timeout: float = Field(5.0, gt=0, description="seconds of one call, for tools that have no limit of their own")
    tool_output: int = Field(
        2000, ge=100, description="characters of one output; the middle of a longer one is cut out"
    )
    stop: list[str] = Field([], description="strings that end a step, besides the template's own end of turn")

    _listed = field_validator("stop", mode="before")(listed)


class EngineConfig(Settings):
    max_batch: int = Field(256, ge=1, description="most completions decoded together")
    cache_gb: float = Field(2.0, gt=0, le=1e6, description="bound of the store of prefixes, in GiB")
    deterministic: bool = Field(True, description="same seed, same trees; false waits for no tool")
    overlap: int = Field(1, ge=0, description="passes of the engine that tools have time for before it waits for them")


class LearnerConfig(Settings):
    mini_batch: int = Field(4, ge=1, description="trees per optimizer update, all if there are fewer (tiny: 8)")
    parts: int = Field(0, ge=0, description="mini-batches of a batch, however many trees it has; 0: by mini_batch")
    epochs: int = Field(1, ge=1, description="passes over each batch (tiny: 4)")
    max_tokens: int = Field(4096, ge=1, description="most unique tokens in one forward pass")


class OptimizerConfig(Settings):
    name: Literal["adamw", "muon"] = Field("adamw", description="muon: Muon on hidden matrices, AdamW on the rest")
    lr: float = Field(1e-6, gt=0, description="learning rate of AdamW (tiny: 1e-4)")
    muon_lr: float = Field(1.5e-3, gt=0, description="learning rate of Muon")
    warmup: int = Field(0, ge=0, description="iterations over which learning rates rise (tiny: 2)")
    schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear: then down to 0 at the end (tiny: linear)"
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of both")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")

    def scale(self, iteration: int, steps: int) -> float:
        """What the learning rates are multiplied with in iteration 1 to `steps`."""
        rise = min(1.0, iteration / (self.warmup + 1))
        return rise if self.schedule == "constant" else rise * (1 - (iteration - 1) / steps)


class BudgetConfig(Settings):
    """A bound on what an iteration spends besides the method's own of rollouts: the number of tasks follows from it."""

    tokens: int = Field(0, ge=0, description="generated tokens per iteration; 0: `batch` tasks, whatever they take")
    calls: int = Field(0, ge=0, description="or tool calls per iteration")


class EvaluationConfig(Settings):
    first: int = Field(0, ge=0, description="the first of the held-out tasks to use, from 0: splits that don't overlap")
    problems: int = Field(128, ge=0, description="held-out tasks, before and after training; 0 evaluates nothing")
    samples: int = Field(4, ge=1, description="sampled runs per task, besides a greedy one")
    every: int = Field(
        0,
        ge=0,
        description="also after each so many iterations; 0 only before and after (compare: a fourth of the steps)",
    )
    k: list[int] = Field(
        [],
        description="K of Pass@K and Major@K after training, such as 1,4,16: as many sampled runs as the largest; "
        "`firstfault eval` by default has 1 and the number of samples",
    )

    _listed = field_validator("k", mode="before")(between_commas)

    @field_validator("k")
    @classmethod
    def _possible(cls, value: list[int]) -> list[int]:
        if value and min(value) < 1:
            raise ValueError(f"{min(value)} runs have no majority; give numbers of at least 1")
        return sorted(set(value))

    @property
    def last_samples(self) -> int:
        """Sampled runs per task after training."""
        return max([self.samples, *self.k])


class ColdStartConfig(Settings):
    """How the model called "tiny" is taught its first manners, from demonstrations of the tasks."""

    steps: int = Field(240, ge=1, description="updates")
    batch: int = Field(32, ge=1, description="demonstrations per update")
    lr: float = Field(1e-2, gt=0, description="peak learning rate of AdamW")
    muon_lr: float = Field(2e-2, gt=0, description="peak learning rate of Muon")
    width: int = Field(128, ge=32, description="of the model")
    layers: int = Field(3, ge=1, description="of the model")
    seed: int = Field(0, ge=0, description="of weights and demonstrations")


TINY: dict[str, Any] = {  # what the model called "tiny" learns with; other defaults are for LLMs
    "steps": 14,
    "learner": {"mini_batch": 8, "epochs": 4},
    "optimizer": {"lr": 1e-4, "warmup": 2, "schedule": "linear"},
}


class RunConfig(Settings):
    """All settings of a training run. `method` and `tasks` are names, or tables of a name and options.

    The model called "tiny" has defaults of its own (`TINY`).
    """

    model: str = Field("tiny", description='a folder or a Hub id; "tiny" is taught from the tasks\' demonstrations')
    tasks: dict[str, Any] = Field({"name": "arithmetic"}, description="a family (see `firstfault tasks`) or a .jsonl")
    method: dict[str, Any] = Field({"name": "elpo"}, description="see `firstfault methods`, or file.py:ClassName")
    functions: list[str] = Field([], description="a file of tools: my_tools.py, or my_tools.py:ClassName")
    mcp: list[str] = Field([], description="an MCP server as a tool: the command that starts it, or its URL")
    search: str = Field("", description="a corpus as a tool: a JSONL or Parquet file, or a data set of the Hub")
    run_dir: Path = Field(Path("runs/run"), description="where everything of the run is written")
    steps: int = Field(40, ge=0, description="iterations: explore, credit, update (tiny: 14)")
    batch: int = Field(16, ge=1, description="tasks per iteration")
    seed: int = Field(0, ge=0, description="of tasks, sampling and order")
    checkpoint_every: int = Field(10, ge=1, description="iterations between checkpoints")
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = Field("none", description="where metrics also go")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA GPU where there is one")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 leaves torch's default")

    agent: AgentConfig = AgentConfig()
    engine: EngineConfig = EngineConfig()
    learner: LearnerConfig = LearnerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    budget: BudgetConfig = BudgetConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cold_start: ColdStartConfig = ColdStartConfig()

    @model_validator(mode="before")
    @classmethod
    def _of_tiny(cls, values: Any) -> Any:
        return merge(TINY, values) if values.get("model", "tiny") == "tiny" else values

    @field_validator("tasks", "method", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    _listed = field_validator("functions", "mcp", mode="before")(listed)

    @model_validator(mode="after")
    def _possible(self) -> RunConfig:
        for key in ("tasks", "method"):
            if not isinstance(getattr(self, key).get("name"), str):
                raise ValueError(
                    f'the table [{key}] needs a name, such as name = "{RunConfig.model_fields[key].default["name"]}"'
                )
        if self.budget.tokens and self.budget.calls:
            raise ValueError("budget.tokens and budget.calls both say how many tasks an iteration has; give one")
        if self.agent.max_new_tokens >= self.agent.max_context:
            raise ValueError(
                f"agent.max_new_tokens = {self.agent.max_new_tokens} leaves no room in "
                f"agent.max_context = {self.agent.max_context}; make it smaller"
            )
        return self


def read_recipe(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the recipe {path} can't be read ({error.strerror}); give the path of a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe {path} is not TOML: {error}; correct it there.") from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, table by table; a name instead of a table keeps no options of another name.

    >>> merge({"method": {"name": "elpo", "beta": 2}}, {"method": {"name": "elpo", "rollouts": 8}})
    {'method': {'name': 'elpo', 'beta': 2, 'rollouts': 8}}
    >>> merge({"method": {"name": "elpo", "beta": 2}}, {"method": {"name": "grpo"}})
    {'method': {'name': 'grpo'}}
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        old = {"name": old} if isinstance(old, str) and isinstance(value, Mapping) else old
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            renamed = "name" in value and value["name"] != old.get("name", value["name"])
            merged[key] = dict(value) if renamed and key in ("method", "tasks") else merge(old, value)
        else:
            merged[key] = value
    return merged


def validated(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """`model(**values)`.

    Raises:
        UserError: one sentence about the first thing that is wrong; `where` says where it was set.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            section: Any = model
            for part in first["loc"][:-1]:
                section = section.model_fields[part].annotation
            names = list(section.model_fields)
            near = difflib.get_close_matches(str(first["loc"][-1]), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}."
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"{where}: there is no setting {place!r}; {hint}") from None
        what_to_do = "; give it" if first["type"] == "missing" else ""
        raise UserError(f"{where}: {what_is_wrong(error)}{what_to_do}.") from None


def to_toml(config: RunConfig) -> str:
    """A recipe that gives `config` again."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
