"""Claims that are read from a comparison: their arithmetic by hand, and on real ones of a tiny policy."""

import json
import re

import numpy as np
import pytest

from firstfault.cli import main
from firstfault.evaluation.claims import READ, others
from firstfault.evaluation.claims.compared import Compared, final, per_call, spend
from firstfault.evaluation.claims.finding import Figure, judged
from firstfault.evaluation.statistics import mean_t


def run(
    method: str, seed: int, after: list[float], family: str = "f", before: float = 0.0, calls: float = 4.0, **outcomes
):
    """A run of two iterations; it spends 10 tool calls and a second for each call of a held-out run."""
    records = [
        {"iteration": iteration, "sampled": float(np.mean(success)), "calls_per_run": calls,
         "outcomes": {"sampled": success, **more}, "spent": {"tool_calls": 5 * calls * iteration}}
        for iteration, success, more in ((0, [before] * len(after), {}), (2, after, outcomes))
    ]  # fmt: skip
    rows = [{"entropy": 0.5, "success_whole": 0.25, "zero_gradient_groups": 0.5}] * 2
    spent = {"tool_calls": 10 * calls, "seconds": calls}
    return (family, method, seed), {"evaluations": records, "iterations": rows, "spend": spent}


def figures(finding) -> dict[str, Figure]:
    return {figure.name: figure for figure in finding.figures}


def test_a_difference_pairs_seeds_and_its_interval_knows_of_problems():
    runs = dict([*(run("a", seed, [1.0, 1.0, 0.0, 0.0]) for seed in range(3)), run("a", 3, [0.0] * 4),
                 *(run("b", seed, [0.0, 0.0, 0.0, seed / 100]) for seed in range(3))])  # fmt: skip
    found = Compared(["f"], runs).difference("a", "b", final)
    by_seed = [0.5, 0.5 - 0.0025, 0.5 - 0.005]
    assert found.n == 3 and found.mean == pytest.approx(np.mean(by_seed))
    low, high = mean_t(by_seed)[1:]
    assert found.low < 0.1 < 0.48 < low < high < found.high  # of so few problems, others might have been asked
    assert Compared(["f"], runs).difference("a", "b", spend("seconds")).low is None  # which are all alike
    assert Compared(["f"], runs).difference("a", "c", final).n == 0


def test_families_weigh_the_same_and_one_seed_has_no_interval():
    runs = dict([run("a", 0, [1.0] * 2, "f"), run("b", 0, [0.0] * 2, "f"), run("a", 0, [0.5] * 8, "g"),
                 run("b", 0, [0.5] * 8, "g"), run("c", 0, [0.5] * 8, "g")])  # fmt: skip
    both = Compared(["f", "g"], runs)
    found = both.difference("a", "b", final)
    assert (found.mean, found.low, found.high, found.n) == (0.5, None, None, 1)
    assert str(found) == "0.500, of one" and both.methods == ["a", "b"] and both.family == "together: f, g"
    assert READ["vppo"].lacks(both) == "the methods vppo, grpo"


def test_gains_at_k_by_hand():
    def of(method, *outcomes):
        names = ("pass@4", "pass@32", "major@4", "major@32")
        return [run(method, seed, [0.0, 0.0], **dict(zip(names, outcomes, strict=True))) for seed in range(4)]

    runs = dict([*of("elpo", [1, 0], [1, 1], [0, 0], [1, 1]), *of("grpo", [0, 0], [1, 0], [0, 0], [0, 0])])
    compared = Compared(["f"], runs)
    assert compared.ks == [4, 32] and not READ["pass-at-k"].lacks(compared)
    found = figures(READ["pass-at-k"].finding(compared))
    assert found["Pass@4: elpo - grpo"].mean == 0.5 and found["Major@32: elpo - grpo"].mean == 1
    assert found["Pass@K: gain at 32 - at 4"].mean == 0 and found["Major@K: gain at 32 - at 4"].mean == 1
    assert found["gain in Major@32 - in Pass@32"].mean == 0.5
    full = Compared(["f"], dict(of("elpo", *[[1, 1]] * 4) + of("grpo", *[[1, 1]] * 4)))
    assert READ["pass-at-k"].finding(full).notes == ["GRPO's Pass@32 is 1.000: hardly any room for a gain"]
    without = Compared(["f"], dict(run(m, 0, [0.0]) for m in ("elpo", "grpo")))
    assert READ["pass-at-k"].lacks(without).startswith("Pass@K for two K")


def test_success_per_call_by_hand():
    _, kept = run("elpo", 0, [1.0, 0.0], before=0.25, calls=2.0)
    assert per_call(kept) == pytest.approx((12.5 + 25) / 2)
    assert per_call(run("elpo", 0, [1.0], calls=0.0)[1]) is None
    # both learn in two iterations, ELPO with half of the calls: at 20 calls it has got to 1, GRPO to 0.5
    runs = dict([run("elpo", 0, [1.0], calls=2.0), run("grpo", 0, [1.0], calls=4.0)])
    found = figures(READ["efficiency"].finding(Compared(["f"], runs)))
    assert found["elpo - grpo: successes per 100 calls"].mean == pytest.approx(25 - 12.5)
    assert found["elpo - grpo: success along training's calls"].mean == pytest.approx(0.5 - 0.25)


def test_what_is_saved_by_hand():
    runs = dict([*(run("arpo", seed, [0.5] * 8, calls=2.0) for seed in range(3)),
                 *(run("grpo", seed, [0.5] * 8) for seed in range(3))])  # fmt: skip
    finding = others.arpo(Compared(["f"], runs))
    saved = figures(finding)["tool calls saved, arpo for grpo"]
    assert (saved.mean, saved.low, saved.n) == (0.5, None, 3)  # without a spread, nothing is known of it
    assert finding.verdict == "can't tell at this size" and "arpo - grpo is 0.000, all alike" in finding.why
    assert others.early(run("prs", 0, [1.0])[1]) is None  # nothing was evaluated in the first half
    kept = run("astarpo", 0, [0.5])[1]
    assert others.peak_memory(kept) is None
    kept["iterations"] = [{"peak_memory_mb": 5.0}, {"peak_memory_mb": 7.0}]
    assert others.peak_memory(kept) == 7


def test_a_claim_speaks_of_its_own_methods_only():
    methods = ("vppo", "grpo", "vppo-uncut", "elpo", "ppo")
    compared = Compared(
        ["f"], dict(run(m, s, [0.5 + s / 10] * 4) for m in methods for s in range(3)), {("f", "cir"): "it failed"}
    )
    names = {figure.name for figure in READ["vppo"].judge(compared).figures}
    assert names == {"vppo", "grpo", "vppo-uncut", "vppo - grpo", "vppo-uncut - grpo"}
    assert {"elpo - vppo", "elpo - ppo"} <= {figure.name for figure in READ["main"].judge(compared).figures}
    assert not READ["vppo"].judge(compared).notes
    missing, left_out = READ["main"].judge(compared).notes
    assert "grpo-tcr were not compared" in missing and left_out == "cir on f is left out: it failed"


def test_every_claim_is_told():
    """Where each method is better than the next, at equal cost and alike in all that is no success."""
    equal = dict.fromkeys(("pass-at-k", "dynamics", "arpo", "astarpo"), "can't tell at this size")
    verdicts = {"vspo": "does not hold", **equal}
    for name, claim in READ.items():
        rate = {method: 1.0 - 0.1 * i for i, method in enumerate(claim.methods)}
        at_k = {f"{kind}@{k}": [0.5] * 16 for kind in ("pass", "major") for k in (4, 32)}
        runs = dict(run(m, s, [rate[m] * (1 + s / 100)] * 16, **at_k) for m in claim.methods for s in range(3))
        for kept in runs.values():
            first, last = kept["evaluations"]
            kept["evaluations"] = [first, {**last, "iteration": 1, "spent": {"tool_calls": 20}}, last]
        compared = Compared(["f"], runs)
        finding = claim.judge(compared)
        assert not claim.lacks(compared)
        assert (finding.claim, finding.verdict) == (name, verdicts.get(name, "holds"))


SMALL = ["--steps", "2", "--evaluation.problems", "4", "--evaluation.samples", "1", "--seeds", "2"]


def test_one_of_several_differences_may_be_below_0_by_chance():
    below, above = Figure("a - b", -0.1, -0.19, -0.01, 5), Figure("a - c", 0.1, 0.01, 0.2, 5)
    assert judged([below])[0] == "does not hold"
    assert judged([below, above])[0] == "can't tell at this size"
    assert judged([Figure("a - b", -0.3, -0.39, -0.21, 5), above])[0] == "does not hold"


@pytest.fixture
def claims(tmp_path, monkeypatch, capsys):
    """`claims(*arguments)`: the exit code, the findings, and what was said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, list[dict], str]:
        capsys.readouterr()  # what the comparison said
        code = main(["claims", *arguments, "--out", "claims"])
        file = tmp_path / "claims" / "claims.json"
        return code, json.loads(file.read_text()) if code == 0 else [], capsys.readouterr().err

    return run


def test_claims_are_read_from_a_comparison(compare, claims, tmp_path):
    assert compare("grpo,arpo,elpo", *SMALL, "--evaluation.k", "2,4", families="parity,again") == 0
    code, found, _ = claims("--comparison", "out")
    assert code == 0
    names = ["main", "pass-at-k", "efficiency", "dynamics", "arpo"]  # what else there is needs other methods
    assert [(f["claim"], f["family"]) for f in found] == [
        (name, family) for name in names for family in ("again", "parity", "together: again, parity")
    ]
    level = {figure["name"]: figure for figure in found[1]["figures"]}
    cells = [json.loads(path.read_text()) for path in tmp_path.glob("out/cells/parity/elpo/lr-1/seed-*/cell.json")]
    assert level["elpo"]["n"] == 2
    assert level["elpo"]["mean"] == pytest.approx(np.mean([cell["evaluations"][-1]["sampled"] for cell in cells]))
    assert level["elpo - grpo"]["paper"] == "+9.5 points" and level["elpo - grpo"]["n"] == 2
    assert all(cell["iterations"][-1]["peak_memory_mb"] > 50 for cell in cells)
    assert "Read from out." in (tmp_path / "claims" / "claims.md").read_text()
    code, again, _ = claims("main", "--comparison", "out", "--tasks", "again")
    assert code == 0 and again == found  # what was checked before stays in the report
    (tmp_path / "claims" / "claims.json").unlink()
    code, again, _ = claims("main", "--comparison", "out", "--tasks", "again")
    assert code == 0 and again == found[:1]
    (tmp_path / "claims" / "claims.json").write_text("[1]")
    code, _, said = claims("main", "--comparison", "out")
    assert code == 2 and "claims.json can't be read (0 = 1: input should be" in said
    (tmp_path / "claims" / "claims.json").unlink()
    # an earlier comparison that has less is passed over
    (tmp_path / "less" / "cells" / "parity").mkdir(parents=True)
    (tmp_path / "out" / "cells" / "parity" / "grpo").rename(tmp_path / "less" / "cells" / "parity" / "grpo")
    code, found, _ = claims("main", "--comparison", "less,out")
    assert code == 0 and [(f["family"], f["why"]) for f in found[1:]] == [("parity", "out lacks the method grpo")]
    assert found[0]["family"] == "again"


def test_what_no_comparison_has_is_said_in_a_sentence(compare, claims, tmp_path):
    assert compare("grpo,elpo", *SMALL, "--seeds", "1") == 0
    for arguments, said in [
        (["main"], r"claim main is read from a comparison: give --comparison DIR; `firstfault compare --config "
                   r"recipes/compare.toml --out DIR` makes one"),
        (["ablations", "--comparison", "out"], r"out lacks the methods search=random, .* on parity; `firstfault "
                                               r"compare --config recipes/ablations.toml --out DIR` trains what is "
                                               r"missing \(DIR may be out"),
        (["vppo", "--comparison", "out"], r"out lacks the method vppo on parity"),
        (["rollouts", "--comparison", "out"], r"recipes/rollouts.toml --out DIR` trains what is missing\."),
        (["pass-at-k", "--comparison", "out"], r"out lacks Pass@K for two K"),
        (["main", "--comparison", "out", "--tasks", "lore"], r"has a finished run on lore; they have parity"),
        (["main", "--comparison", "nowhere"], r"nowhere has no finished run of a comparison"),
        (["mian", "--comparison", "out"], r"there is no claim 'mian'"),
        (["--tasks", "lore", "--config", "none.toml", "--comparison", "out"], r"none.toml"),
    ]:  # fmt: skip
        code, _, error = claims(*arguments)
        assert code == 2 and error.count("\n") == 1
        assert re.search(said, error), error
    [cell] = (tmp_path / "out" / "cells").glob("parity/elpo/lr-1/seed-0/cell.json")
    whole = cell.read_text()
    odd = lambda **fields: json.dumps(json.loads(whole) | fields)  # noqa: E731
    records = json.loads(whole)["evaluations"]
    fewer = [{**record, "outcomes": {"sampled": record["outcomes"]["sampled"][1:]}} for record in records]
    other = cell.parents[1].with_name("lr-2") / "seed-0"
    other.mkdir(parents=True)
    for text, where, said in [
        (whole[:100], cell, "seed-0/cell.json is no finished run (invalid JSON"),
        ("[]", cell, "seed-0/cell.json is no finished run (input should be an object)"),
        (odd(lr="1e-3"), cell, "seed-0/cell.json is no finished run (lr = '1e-3': input should be a valid number)"),
        (odd(spend={}), cell, "seed-0/cell.json is no finished run (spend.rollouts is missing)"),
        (odd(evaluations=records[:1]), cell, "no evaluation before all iterations, or none after them"),
        (odd(evaluations=records[::-1]), cell, "no evaluation before all iterations, or none after them"),
        (odd(evaluations=fewer), cell, "runs on parity can't be compared: "),
        (whole, other / "cell.json", "out has elpo on parity, seed 0, at two learning rates"),
    ]:
        where.write_text(text)
        code, _, error = claims("main", "--comparison", "out")
        assert code == 2 and said in error and error.count("\n") == 1
        cell.write_text(whole)
    (other / "cell.json").write_text(json.dumps(json.loads(whole) | {"tunes": True, "seed": 1000}))
    cell.write_text(json.dumps(json.loads(whole) | {"overspent": "64 rollouts, 32 allowed"}))
    code, _, error = claims("main", "--comparison", "out")
    assert code == 2 and "out lacks the method elpo (it spent 64 rollouts, 32 allowed) on parity" in error
    cell.write_text(whole)
    failed = cell.parent.with_name("seed-1") / "failed.txt"
    failed.parent.mkdir()
    failed.write_text("exit code 1")
    code, _, error = claims("main", "--comparison", "out")
    assert code == 2 and "out lacks the method elpo (runs of it failed) on parity" in error
    code, _, error = claims("--comparison", "out")
    assert code == 2 and "no claim can be read from out; name one, and what it lacks is said" in error
