"""What follows from finished runs, by hand: who is left out, and how far pairs are compared."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from firstfault.errors import UserError
from firstfault.evaluation.cells import Spend
from firstfault.evaluation.compare import Comparison
from firstfault.evaluation.plan import read_families, read_plan
from firstfault.evaluation.results import results
from firstfault.report.compared import write_comparison
from firstfault.report.terminal import comparison_table


def spent(rollouts: int, tokens: int, seconds: float):
    return asdict(Spend(rollouts, tokens, tool_calls=0, updates=0, skipped_updates=0, seconds=seconds))


def run(method: str, seed: int, after: float, rollouts: int = 100):
    """A run of two iterations on eight problems, of which `after` succeed behind the first and for good."""
    success = {0: 0.0, 1: after, 2: after}
    records = [
        {"iteration": i, "sampled": rate, "greedy": rate, "calls_per_run": 4.0,
         "outcomes": {"sampled": [rate] * 8, "greedy": [rate] * 8},
         "spent": spent(i * rollouts, i * 10, i * 1.0)}
        for i, rate in success.items()
    ]  # fmt: skip
    return {
        "family": "f", "method": method, "seed": seed, "multiple": 1.0, "lr": 1e-4, "budget_share": 1.0,
        "overspent": "", "firstfault": "0", "code": "c1", "evaluations": records,
        "iterations": [{"iteration": 1}, {"iteration": 2}], "spend": spent(2 * rollouts, 20, 2.0),
        "config": {}, "tunes": False,
    }  # fmt: skip


def reported(runs, methods, tmp_path: Path) -> str:
    """What `results.md` says of runs."""
    known = {
        "title": "t", "budget": "16 rollouts per task", "seeds": 2, "first_seed": 0, "against": "", "lr_grid": [1.0],
        "tune_seeds": 1, "chosen": [], "trials": [], "failures": {}, "rewards": {}, "wanted": len(runs), "settings": {},
    }  # fmt: skip
    write_comparison({**known, **results(runs, ["f"], methods)}, tmp_path)
    return (tmp_path / "results.md").read_text()


def difference(found, first, second, measure="final"):
    return next(d for d in found["differences"] if (d["first"], d["second"], d["measure"]) == (first, second, measure))


def test_what_failed_is_told_apart_from_nobody():
    runs = [run("a", seed, 0.2 + seed / 100) for seed in range(3)] + [run("b", seed, 0.8) for seed in range(3)]
    whole = difference(results(runs, ["f"], ["a", "b"]), "a", "b")
    assert whole["told_apart"] and "b is ahead of a on f" in whole["words"]
    found = results(runs, ["f"], ["a", "b"], failed={("f", "b")})
    left = difference(found, "a", "b")
    assert not left["told_apart"] and left["mean"] == whole["mean"]
    assert left["words"].startswith("a and b are not compared on f: runs of b failed, and those that are left")


def test_many_pairs_are_put_together_without_what_can_not_be_told():
    methods = ["a", "b", "c", "d"]
    one = results([run(method, 0, 0.5) for method in methods], ["f"], methods)
    single = "pairs have one seed only, which can't tell them apart: it does not show how runs differ by luck."
    assert one["conclusions"] == [f"On f, 6 of 6 {single}"]
    runs = [run(method, seed, 0.5 + seed / 100 * (method == "a")) for method in methods for seed in range(3)]
    assert results(runs, ["f"], methods, failed={("f", "b")})["conclusions"] == [
        "On f, b can be compared with no other: runs of theirs failed.",
        "On f, 3 of 3 pairs cannot be told apart by final success.",
    ]
    late = [kept for kept in runs if kept["method"] != "d" or kept["seed"] == 0]  # one has only begun
    assert results(late, ["f"], methods)["conclusions"] == [
        "On f, 3 of 3 pairs cannot be told apart by final success.",
        f"On f, 3 of 6 {single}",
    ]


def test_differences_that_cancel_are_differences():
    runs = [run("a", seed, 0.5) for seed in range(2)] + [run("b", seed, 0.25 + seed / 2) for seed in range(2)]
    found = results(runs, ["f"], ["a", "b"])
    assert difference(found, "a", "b")["mean"] == 0
    assert "a has 0.000 [-3.177, 3.177] more" in difference(found, "a", "b")["words"]


def test_how_a_method_learnt_counts_runs_without_a_search():
    runs = [run("a", seed, 0.5) | {"iterations": [{"rollouts": 8, "probes": n, "searches": n}]}
            for seed, n in enumerate((0, 4))]  # fmt: skip
    [learnt] = results(runs, ["f"], ["a"])["learnt"]
    assert learnt["searches"] == 2.0 and learnt["probes"] == 0.25
    [learnt] = results([run("b", 0, 0.5) | {"iterations": [{"rollouts": 8}]}], ["f"], ["b"])["learnt"]
    assert learnt["searches"] is None and learnt["probes"] is None


def test_all_against_one_are_fewer_comparisons():
    rates = {"a": 0.5, "b": 0.52, "c": 0.55}
    runs = [
        run(method, seed, rate + seed * i / 100) for i, (method, rate) in enumerate(rates.items()) for seed in range(3)
    ]
    pairs, found = results(runs, ["f"], list(rates)), results(runs, ["f"], list(rates), against="a")
    assert [(d["first"], d["second"]) for d in found["differences"] if d["measure"] == "final"] == [
        ("b", "a"),
        ("c", "a"),
    ]
    one, same = difference(found, "c", "a"), difference(pairs, "a", "c")
    assert one["mean"] == -same["mean"] and one["p"] == same["p"]
    assert (one["comparisons"], same["comparisons"]) == (2, 3) and one["p_holm"] < same["p_holm"]
    assert one["seeds_needed"] <= same["seeds_needed"]


def test_seeds_that_agree_to_the_last_digit_are_no_proof():
    found = results(
        [run(method, s, rate) for method, rate in (("a", 0.2), ("b", 0.8)) for s in range(2)], ["f"], ["a", "b"]
    )
    assert found["conclusions"] == [
        "b and a cannot be told apart on f: b has 0.600 more with every seed, which does not show how seeds differ."
    ]


def test_nothing_is_said_of_the_way_where_nothing_was_seen_on_it():
    runs = [run(method, seed, rate) for method, rate in (("a", 0.2), ("b", 0.8)) for seed in range(2)]
    for one in runs:
        del one["evaluations"][1]
    assert set(results(runs, ["f"], ["a", "b"])["measures"]) == {"final"}


def test_how_far_a_pair_is_compared_is_its_own_affair():
    runs = [run("a", 0, 0.2), run("b", 0, 0.8)]
    found, more = results(runs, ["f"], ["a", "b"]), results([*runs, run("c", 0, 0.5, 20)], ["f"], ["a", "b", "c"])
    assert difference(more, "a", "b", "rollouts")["mean"] == difference(found, "a", "b", "rollouts")["mean"]
    # levels of all go as far as the run that spent least: 200 rollouts, or 40 with c
    levels = [results["levels"][0]["rollouts"]["mean"] for results in (found, more)]
    assert levels == pytest.approx([0.2 * 0.75, 0.2 * 0.4 / 2])
    # a has spent 40 of the 100 rollouts of its first iteration by then
    assert difference(more, "a", "c", "rollouts")["mean"] == pytest.approx(0.2 * 0.4 / 2 - 0.5 * 0.75)


def test_updates_are_counted_where_a_pair_is_compared():
    runs = [run(method, seed, 0.5, rollouts) for method, rollouts in (("a", 100), ("b", 80)) for seed in range(2)]
    for one in runs:
        for record, updates in zip(one["evaluations"], (0, 8, 14 + 2 * one["seed"]), strict=True):
            record["spent"]["updates"] = updates
    found = results(runs, ["f"], ["a", "b"])
    # b ends after 160 rollouts, a has made 3/5 of its second iteration by then: 8 + 0.6 * (6 and 8)
    assert difference(found, "a", "b", "rollouts")["updates"] == pytest.approx([12.2, 15])
    assert difference(found, "a", "b", "generated_tokens")["updates"] == [15, 15]
    assert {d["measure"] for d in found["differences"] if "updates" in d} == {"rollouts", "generated_tokens", "seconds"}


def test_curves_along_training_are_means_over_seeds_where_all_have_the_measure():
    runs = [run("a", 0, 0.5), run("a", 1, 1.0)]
    for one, idle, entropy in zip(runs, (0.5, 0.25), (2.0, 1.0), strict=True):
        first, second = one["iterations"]
        first |= {"zero_gradient_groups": idle, "entropy": entropy}
        second |= {"zero_gradient_groups": 0.0, "success_whole": 0.5}
    runs[0]["iterations"][1]["entropy"] = 3.0  # the other seed had no update
    runs[1]["evaluations"][2]["calls_per_run"] = 0.0
    curves = results(runs, ["f"], ["a", "b"])["curves"]
    assert all(curve["method"] == "a" for curve in curves) and len(curves) == 4 + 4
    points = {curve["measure"]: curve["points"] for curve in curves if curve["axis"] == "iterations"}
    means = {measure: [(point["at"], point["mean"]) for point in own] for measure, own in points.items()}
    assert means == {
        "success": [(0, 0.0), (1, 0.75), (2, 0.75)],
        "per_100_calls": [(0, 0.0), (1, 18.75)],
        "success_whole": [(2, 0.5)],
        "gradient": [(1, 0.625), (2, 1.0)],
        "entropy": [(1, 1.5)],
    }
    # two seeds, half a nat to each side of the mean: 12.7 standard errors of 0.5, cut off at 0 only
    [entropy] = points["entropy"]
    assert entropy["low"] == 0 and entropy["high"] == pytest.approx(1.5 + 12.706 * 0.5, abs=1e-3)
    assert points["success"][1]["high"] == 1 and points["gradient"][1]["high"] is None


def test_runs_of_more_than_one_code_are_named(tmp_path: Path):
    runs = [run(method, seed, 0.5) for method in ("a", "b") for seed in range(2)]
    del runs[0]["code"]  # an older one
    assert "versions of firstfault's code" not in reported(runs, ["a", "b"], tmp_path)
    runs[3]["code"] = "d2"
    said = "made by 2 versions of firstfault's code, which may be what they differ by (c1: 1 of a, 1 of b; d2: 1 of b)."
    assert said in reported(runs, ["a", "b"], tmp_path)
    more = [run(method, 0, 0.5) | {"code": code} for method, code in zip("abcdefghi", "xyxyxyxyx", strict=True)]
    assert "what they differ by (of each in results.json)." in reported(more, list("abcdefghi"), tmp_path)


def test_a_terminal_is_told_what_was_spent():
    runs = [run("a", seed, 0.5) for seed in range(2)] + [run("b", 0, 0.5, 110), run("b", 1, 0.5, 90)]
    runs[2] |= {"overspent": "220 rollouts, 200 allowed", "budget_share": 1.1}
    runs[3] |= {"budget_share": 0.9, "spend": spent(180, 4020, 2.0)}
    found = results(runs, ["f"], ["a", "b"])
    printed = io.StringIO()
    Console(width=80, file=printed).print(comparison_table({"title": "t", "budget": "100 rollouts per task", **found}))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.getvalue().splitlines()]
    assert ["f", "a", "200", "20", "0", "100%"] in lines
    assert ["f", "b", "200", "2,020", "0", "100%, refused"] in lines


def test_a_learning_rate_of_which_a_trial_failed_is_not_chosen(tmp_path: Path):
    flags = {"methods": "grpo,rloo", "tasks": "arithmetic", "lr_grid": "1,4", "tune_seeds": 3, "out": tmp_path}
    plan = read_plan(None, flags, {"model": "tiny", "steps": 1})
    for cell in plan.tuning():
        sampled = 0.65 if cell.multiple == 4 else 0.6
        if cell.multiple == 1 or cell.method == "rloo" or cell.seed == 1000:  # two trials of grpo at 4 have failed
            cell.folder.mkdir(parents=True)
            kept = {**run(cell.method, cell.seed, sampled), "multiple": cell.multiple, "family": cell.family}
            (cell.folder / "cell.json").write_text(json.dumps(kept))
    chosen = Comparison(plan, Console(quiet=True)).chosen()
    assert chosen == {("arithmetic", "grpo"): 1, ("arithmetic", "rloo"): 4}


def test_families_of_a_recipe_are_what_they_are_called(tmp_path: Path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('steps = 3\n[compare]\ntasks = ["programs"]\n')
    assert {label: config.tasks for label, config in read_families(recipe, ["arithmetic"], {}).items()} == {
        "arithmetic": {"name": "arithmetic"}
    }
    assert read_families(recipe, [], {})["programs"].steps == 3
    recipe.write_text("seed = 7\n[families.lore]\n")
    with pytest.raises(UserError, match=r"seed is not a setting of comparisons and claims"):
        read_families(recipe, ["lore"], {})
    recipe.write_text("[families]\nlore = 3\n")
    with pytest.raises(UserError, match=r"families.lore = 3 is no table; write \[families.lore\]"):
        read_families(recipe, ["lore"], {})
    recipe.write_text("[methods.grpo]\n[methods.mine]\nname = 3\n")
    with pytest.raises(UserError, match=r"\[methods.mine\] has name = 3; give the name of a method in quotes"):
        read_plan(recipe, {"tasks": ["lore"]}, {})


@pytest.mark.parametrize(("given", "every"), [({}, 3), ({"steps": 2}, 1), ({"evaluation": {"every": 0}}, 0)])
def test_a_comparison_without_a_recipe_is_of_policies_that_learn_and_has_curves(given, every):
    family = read_plan(None, {"methods": "grpo,elpo", "tasks": "arithmetic"}, given).families["arithmetic"]
    assert (family.evaluation.every, family.optimizer.lr) == (every, 1e-4)


def test_all_methods_have_the_judge_s_reward_unless_it_is_said():
    plan = read_plan(None, {"methods": "grpo,arpo,paper=arpo:reward=tools", "tasks": "arithmetic"}, {"model": "tiny"})
    assert {label: table["reward"] for label, table in plan.methods.items()} == {
        "grpo": "judge", "arpo": "judge", "paper": "tools"
    }  # fmt: skip
