"""Settings: recipes and flags become one, and what can't be is refused in a sentence."""

import math
import tomllib
from pathlib import Path

import pytest

from firstfault.config import EngineConfig, OptimizerConfig, RunConfig, merge, read_recipe, to_toml, validated
from firstfault.errors import UserError

REFUSED = {
    "an unknown key": ({"stps": 3}, "did you mean 'steps'?"),
    "an unknown key in a section": ({"learner": {"minibatch": 3}}, "'learner.minibatch'; did you mean 'mini_batch'?"),
    "a key like no other": ({"optimizer": {"zzz": 1}}, "there are name, lr, "),
    "a wrong type": ({"steps": "many"}, "steps = 'many': input should be a valid integer"),
    "a number for a section": ({"learner": 3}, "learner = 3: "),
    "too small": ({"batch": 0}, "batch = 0: input should be greater than or equal to 1"),
    "not a number": ({"optimizer": {"lr": math.nan}}, "optimizer.lr = nan: "),
    "infinite": ({"engine": {"cache_gb": math.inf}}, "engine.cache_gb = inf: "),
    "none of the choices": ({"optimizer": {"name": "sgd"}}, "'adamw' or 'muon'"),
    "no room in the context": ({"agent": {"max_context": 512}}, "leaves no room in agent.max_context = 512"),
    "a method without a name": ({"method": {"rollouts": 4}}, 'the table [method] needs a name, such as name = "elpo"'),
    "tasks without a name": ({"tasks": {"path": "x"}}, 'the table [tasks] needs a name, such as name = "arithmetic"'),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED)
def test_refusal_says_what_and_where(values, words):
    with pytest.raises(UserError) as refusal:
        validated(RunConfig, values, where="recipe.toml")
    message = str(refusal.value)
    assert message.startswith("recipe.toml: ") and words in message
    assert "\n" not in message and message[-1] in ".?" and message[-2] not in ".?"


def test_toml_gives_the_settings_again():
    config = validated(RunConfig, {"method": {"name": "grpo", "rollouts": 4}, "agent": {"stop": ["a\n"]}}, "here")
    assert validated(RunConfig, tomllib.loads(to_toml(config)), "there") == config


def test_demo_recipe_is_valid():
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "demo.toml")
    assert validated(RunConfig, recipe, "demo").method == {"name": "elpo"}


def test_the_tiny_policy_has_defaults_of_its_own():
    tiny, other = RunConfig(learner={"epochs": 2}), RunConfig(model="some/llm")
    assert (tiny.optimizer.lr, tiny.learner.mini_batch, tiny.learner.epochs) == (1e-4, 8, 2)
    assert (other.optimizer.lr, other.learner.mini_batch, other.learner.epochs) == (1e-6, 4, 1)
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "demo.toml")
    without = {key: value for key, value in recipe.items() if key not in ("learner", "optimizer", "steps")}
    assert validated(RunConfig, without, "") == validated(RunConfig, recipe, "")


def test_settings_can_not_be_changed():
    with pytest.raises(ValueError):
        RunConfig().steps = 3


@pytest.mark.parametrize(("given", "why"), [("[method", "is not TOML"), (None, "can't be read")])
def test_unreadable_recipe_is_refused(tmp_path, given, why):
    path = tmp_path / "recipe.toml"
    if given:
        path.write_text(given)
    with pytest.raises(UserError, match=why):
        read_recipe(path)


MERGED = {
    "a value": ({"steps": 1, "seed": 2}, {"steps": 3}, {"steps": 3, "seed": 2}),
    "a value in a table": ({"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}, {"a": {"x": 3, "y": 2}}),
    "an option over a name": (
        {"method": "elpo"}, {"method": {"rollouts": 8}}, {"method": {"name": "elpo", "rollouts": 8}},
    ),
    "another name drops options": (
        {"method": {"name": "elpo", "beta": 2.0}}, {"method": {"name": "grpo"}}, {"method": {"name": "grpo"}},
    ),
    "the same name keeps options": (
        {"tasks": {"name": "a", "x": 1}}, {"tasks": {"name": "a", "y": 2}}, {"tasks": {"name": "a", "x": 1, "y": 2}},
    ),
    "another optimizer is no other table": (
        {"optimizer": {"name": "adamw", "lr": 1}}, {"optimizer": {"name": "muon"}},
        {"optimizer": {"name": "muon", "lr": 1}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("base", "over", "merged"), MERGED.values(), ids=MERGED)
def test_merge(base, over, merged):
    assert merge(base, over) == merged


def test_linear_schedule_rises_and_falls():
    config = OptimizerConfig(warmup=1, schedule="linear")
    assert [config.scale(i, 4) for i in (1, 2, 3, 4)] == [0.5, 0.75, 0.5, 0.25]


def test_constant_schedule_does_not_depend_on_the_steps():
    config = OptimizerConfig(warmup=1)
    assert [config.scale(i, steps) for steps in (2, 9) for i in (1, 2)] == [0.5, 1, 0.5, 1]


def test_runs_are_reproducible_by_default():
    assert EngineConfig().deterministic
