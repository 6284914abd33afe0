"""What the README and the docs say is run or compared with the code."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from firstfault.config import RunConfig, read_recipe, validated
from firstfault.evaluation.claims import CLAIMS, READ
from firstfault.evaluation.compare import Comparison
from firstfault.evaluation.plan import flat, read_plan
from firstfault.evaluation.summary import FIGURES
from firstfault.methods import METHODS
from firstfault.report.metrics import METRICS
from firstfault.training.build import build_method, build_tasks, method_class
from firstfault.tree import Task, Tree

ROOT = Path(__file__).parent.parent


def test_the_docs_explain_every_metric():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert dict(rows) == METRICS


def test_the_docs_explain_every_figure_of_an_evaluation():
    rows = re.findall(r"^\| `([\w@]+)` \| (.+) \|$", (ROOT / "docs" / "evaluation.md").read_text(), re.MULTILINE)
    assert dict(rows) == FIGURES


def test_every_method_has_a_page():
    assert {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} == set(METHODS)


RECIPES = {path.stem: path for path in sorted((ROOT / "recipes").glob("*.toml"))}
COMPARISONS = [name for name, path in RECIPES.items() if "compare" in read_recipe(path)]


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in COMPARISONS])
def test_every_recipe_is_valid(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = validated(RunConfig, read_recipe(RECIPES[recipe]), recipe)
    build_method(config.method)
    assert len(build_tasks(config.tasks).train(seed=0, first=0, n=config.batch)) == config.batch


@pytest.mark.parametrize("recipe", COMPARISONS)
def test_every_recipe_of_a_comparison_is_valid(recipe):
    """What claims are read from has the methods that they need."""
    plan = read_plan(RECIPES[recipe], {}, {})
    assert len(plan.compared(Comparison(plan, Console()).chosen())) == (
        len(plan.methods) * len(plan.families) * plan.config.seeds
    )
    assert all(set(claim.methods) <= set(plan.methods) for claim in READ.values() if claim.recipe == recipe)


@pytest.mark.parametrize("recipe", ["methods", "sensitivity", "related", "rollouts"])
def test_recipes_that_may_share_a_folder_have_the_same_settings(recipe):
    """The budget of one of them is another."""
    settings, shared = (flat(read_plan(RECIPES[name], {}, {}).settings()) for name in (recipe, "ablations"))
    other = {key for key, value in settings.items() if shared.get(key, value) != value}
    if any(claim.apart for claim in READ.values() if claim.recipe == recipe):
        assert other and all(key == "budget" or ".budget." in key for key in other)
    else:
        assert not other


def test_the_docs_list_every_claim():
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "claims.md").read_text(), re.MULTILINE)
    assert rows == list(CLAIMS)


def test_the_readme_s_own_method_gives_credit(tmp_path):
    source = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "my_method.py").write_text(source)
    method = method_class(f"{tmp_path / 'my_method.py'}:Mine")()
    tree = Tree(Task("q", "a"), prompt=[1])
    for i, reward in enumerate([1.0, 0.0]):
        tree.add(tree.root, rollout=i, action_tokens=[2], end="answer", success=reward > 0, reward=reward)
    method.credit([tree])
    assert [leaf.advantage for leaf in tree.leaves] == [0.5, -0.5]


@pytest.mark.parametrize("page", ["planted", "evaluation"])
def test_the_code_of_a_page_runs(page):
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    exec("\n".join(blocks), {})


def test_the_docs_link_to_files_that_exist():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
