"""Claims: their arithmetic by hand, and measured on a real tiny policy, whose work is kept."""

import asyncio
import json
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from plans import Plan, Planted
from rich.console import Console
from scipy.stats import mannwhitneyu

from firstfault.cli import main
from firstfault.config import RunConfig
from firstfault.errors import UserError
from firstfault.evaluation import failures
from firstfault.evaluation.claims import consistency, praise, ranking, recovery, values
from firstfault.evaluation.claims.command import ClaimsConfig, command
from firstfault.evaluation.claims.finding import Figure, judged
from firstfault.evaluation.claims.ranking import kendall_tau, pairwise_accuracy
from firstfault.evaluation.failures import Failure, search_again
from firstfault.localize import Bisect, Posterior
from firstfault.tree import Task, Term, Tree


def failure(rates: list[float], first_wrong: int | None = None, completions: int = 64, name: str = "t") -> Failure:
    """A failed run whose completions succeed at these rates and repeat nothing."""
    draw = random.Random(name)
    recovered = ["".join("01"[draw.random() < rate] for _ in range(completions)) for rate in rates]
    agreed = ["0123456789"[m] * completions for m in range(len(rates))]
    return Failure("f", name, first_wrong, recovered, agreed, [[0.5]] * len(rates))


def test_a_search_of_a_recorded_failure_finds_its_cliff_and_draws_no_completion_twice():
    run = failure([0.5] * 4 + [0.0] * 3, name="cliff")
    assert run.step == 4 and run.steps == 6
    answers = [search_again(Posterior(6), run.shuffled(seed), 24).step for seed in range(20)]
    assert answers.count(4) >= 17
    bisected = search_again(Bisect(6, lambda step: 2), run.shuffled(0), 24)
    assert sum(probe.tries for probe in bisected.probes) <= 6
    assert sorted(run.shuffled(3)[0]) == sorted((o == "1", 0) for o in run.recovered[0])


def test_other_runs_of_the_task_come_first_and_are_not_asked_for_again():
    run = Failure("f", "t", None, ["1" * 4 + "0" * 12, "0" * 16, "0" * 16], ["1" * 4 + "2" * 12, "1" * 16, "2" * 16])
    verdict = search_again(Posterior(2), run.shuffled(0), 0, others=16)
    assert verdict.step == 2 and verdict.probability > 0.8 and verdict.probes == []


class Lossy(Planted):
    """Can't bring back the state of its tools after step 2."""

    async def _complete_all(self, nodes, first):
        return [leaf for leaf in await super()._complete_all(nodes, first) if leaf.anchor.depth != 2]


@pytest.mark.parametrize(("rollouts", "known"), [(Planted, ["0000", "1111", "0000", "0000", "0000"]), (Lossy, None)])
def test_a_run_with_a_step_that_can_not_be_gone_back_to_is_not_measured(rollouts, known):
    async def measured():
        planted = rollouts(Tree(Task("q", "a"), prompt=[1]), 10**9, [Plan(fault=2)])
        [failed] = await planted.sample(1)
        return await failures.recoveries(planted, failed, 4)

    outcomes = asyncio.run(measured())
    assert (outcomes and outcomes[0]) == known


def test_a_run_without_a_lost_prefix_has_no_step():
    assert failure([0.5, 0.4, 0.3]).step == 3


def test_a_claim_holds_only_beyond_its_interval():
    assert judged([Figure("d", 0.2, 0.1, 0.3, 9)])[0] == "holds"
    assert judged([Figure("d", 0.2, -0.1, 0.3, 9)])[0] == "can't tell at this size"
    assert judged([Figure("d", 0.2, 0.1, 0.3, 9), Figure("e", -0.2, -0.3, -0.1, 9)])[0] == "does not hold"
    assert judged([Figure.of("d", [])])[0] == "can't tell at this size"


def test_which_edit_recovers_by_hand():
    edited = {"random": 3, "random, earlier": 1, "first wrong": None, "1st irrecoverable": 2, "2nd irrecoverable": 3,
              "3rd irrecoverable": 4}  # fmt: skip
    rows = [{"edited": edited, "recovered": {"1": False, "2": True, "3": False}}] * 12
    found = recovery.finding("f", rows)
    mean = {figure.name: (figure.mean, figure.n) for figure in found.figures}
    assert mean["1st irrecoverable"] == (1.0, 12) and mean["random"] == (0.0, 12) and mean["first wrong"][1] == 0
    assert mean["1st irrecoverable - random, earlier"] == (1.0, 12)
    assert mean["1st irrecoverable - 2nd irrecoverable"] == (1.0, 12) and found.verdict == "can't tell at this size"
    same = recovery.finding("f", [{"edited": edited, "recovered": {"2": None, "3": None}}])
    assert "2 of 2 edits had no other action" in same.notes[0]


def test_how_credit_orders_branches_by_hand():
    row = {"task": "t", "credit": [[0.5, -0.5, 0.0], [1.0, 0.0]], "worth": [[0.75, 0.25, 0.25], [0.0, 0.5]]}
    assert ranking.ordering(row, pairwise_accuracy) == 0.5  # the first branching is right, the second wrong
    assert ranking.ordering(row, kendall_tau) == pytest.approx((2 / 6**0.5 - 1) / 2)
    same = {"task": "t", "credit": [[1.0, 2.0]], "worth": [[0.5, 0.5]]}
    assert ranking.ordering(same, pairwise_accuracy) is None
    silent = {"task": "t", "credit": [[1.0, 1.0]], "worth": [[0.5, 0.0]]}
    assert (ranking.ordering(silent, pairwise_accuracy), ranking.ordering(silent, kendall_tau)) == (0.5, 0.0)


def test_pairwise_accuracy_is_the_area_under_the_curve_of_two_classes():
    """For a worth of 0 and 1 it is the statistic of Mann and Whitney over the number of pairs."""
    draw = np.random.default_rng(1)
    credit, worth = draw.integers(5, size=40), draw.integers(2, size=40)
    statistic = mannwhitneyu(credit[worth == 1], credit[worth == 0]).statistic
    assert pairwise_accuracy(credit, worth) == pytest.approx(statistic / (worth.sum() * (1 - worth).sum()))


def test_rankings_are_paired_by_their_place_whatever_tasks_are_called():
    right, wrong = {"credit": [[1.0, 0.0]], "worth": [[0.5, 0.0]]}, {"credit": [[0.0, 1.0]], "worth": [[0.5, 0.0]]}
    measured = {name: [{"task": "", "branchings": 1, **right}] * 4 for name in ranking.METHODS}
    measured["elpo, random branching"] = [{"task": "", "branchings": 1, **row} for row in (right, right, right, wrong)]
    found = {figure.name: (figure.mean, figure.n) for figure in ranking.finding("f", *measured.values()).figures}
    assert found["elpo"] == (1.0, 4) and found["elpo - elpo, random branching"] == (0.25, 4)


def test_children_that_act_alike_are_one_branch():
    tree = Tree(Task("q", "a"), prompt=[1])
    for token, advantage in ((2, 1.0), (2, 0.0), (3, -1.0)):
        node = tree.add(tree.root, rollout=token, action_tokens=[token])
        node.terms = [Term(advantage, 1.0, 0.2, 0.2)]
    tree.add(tree.root, rollout=9, action_tokens=[4])  # without credit
    assert [[node.action_tokens for node in branch] for branch in ranking.credited(tree.root)] == [[[2], [2]], [[3]]]


def test_searches_that_agree_are_counted_in_pairs():
    assert consistency.same_answer_rate([1, 1, 2]) == pytest.approx(1 / 3)
    runs = [failure([0.6] * (1 + k % 4) + [0.0] * 5, 1 + k % 4, name=str(k)) for k in range(8)]
    found = consistency.finding("f", [asdict(run) for run in runs])
    mean = {figure.name: figure.mean for figure in found.figures}
    assert mean["posterior: names the true step"] > mean["printed: names the true step"] > 0.6
    assert mean["posterior: names the true step"] == mean["posterior: names the first wrong step"]
    lost = consistency.finding("f", [asdict(run) for run in [*runs, failure([0.0] * 5)]])  # by no step
    assert lost.figures == found.figures and lost.notes[0].startswith("1 of 9 runs are left out")


def test_errors_of_values_by_hand():
    rows = [
        {"critic": [0.5, 0.5], "monte carlo": [0.25, 1.0], "truth": [0.5, 1.0]},
        {"critic": [0.5], "monte carlo": [0.25], "truth": [0.0]},
    ]
    found = values.finding("f", rows)
    mean = {figure.name: figure.mean for figure in found.figures}
    assert mean["error of the critic"] == pytest.approx((0.25 + 0.5) / 2)
    assert mean["error of 9 completions"] == pytest.approx((0.125 + 0.25) / 2)
    assert mean["error of their mean, for all states"] == 0.375  # their mean is 0.5
    assert mean["critic less truth"] == pytest.approx((-0.25 + 0.5) / 2) and found.notes == ["3 states of 2 runs"]


@pytest.fixture
def families(tiny_policy) -> dict[str, RunConfig]:
    tasks = {"name": "arithmetic", "operations_min": 2, "operations_max": 2}
    agent = {"max_new_tokens": 32, "max_steps": 4, "max_context": 256}
    config = RunConfig(model=str(tiny_policy), tasks=tasks, agent=agent, threads=1, device="cpu", steps=1, batch=4)
    return {"arithmetic": config}


def test_claims_are_measured_on_a_policy_and_kept(families, tmp_path, monkeypatch):
    monkeypatch.setattr(recovery, "TRIES", 4)
    monkeypatch.setattr(recovery, "LOST", -1)  # this policy hardly ever succeeds
    for module in (recovery, ranking, failures, values):
        monkeypatch.setattr(module, "COMPLETIONS", 4)
    monkeypatch.setattr(praise, "RUNS", 4)
    names = ["recovery", "ranking", "consistency", "praise", "values"]
    console, settings = Console(quiet=True), ClaimsConfig(runs=2, out=tmp_path)
    found = command(names, families, settings, console)
    assert [finding.claim for finding in found] == names
    rows = {name: (tmp_path / f"{name}-arithmetic.jsonl").read_text() for name in names}
    seen = {name: [json.loads(line) for line in text.splitlines()][1:] for name, text in rows.items()}
    methods = [row["variant"] for row in seen["ranking"]]
    assert set(methods) == set(ranking.METHODS) and len(methods) == 2 * len(ranking.METHODS)
    kept = [row["measured"] for row in seen["consistency"]]
    assert all(len(after) == 4 for row in kept if row for after in row["recovered"])
    groups = [row["measured"] for row in seen["praise"]]
    assert all(row["praised"].keys() == praise.METHODS.keys() and not row["praised"]["corpo"] for row in groups if row)
    for row in (row["measured"] for row in seen["values"]):
        assert len(row["critic"]) == len(row["monte carlo"]) == len(row["truth"])
    [trained] = tmp_path.glob("values-arithmetic-*/metrics.jsonl")  # other settings train in another folder
    assert trained.read_text().count("value_error") == 1
    # a second command measures nothing; one for more goes on; a line that was cut short is measured again
    assert command(names, families, settings, console) == found
    assert {name: (tmp_path / f"{name}-arithmetic.jsonl").read_text() for name in names} == rows
    assert command(names, families, ClaimsConfig(runs=1, out=tmp_path), console) == found  # all that is there counts
    for cut in (10, 1):
        (tmp_path / "consistency-arithmetic.jsonl").write_text(rows["consistency"][:-cut])
        command(["consistency"], families, settings, console)
        assert (tmp_path / "consistency-arithmetic.jsonl").read_text() == rows["consistency"]
    assert "### consistency, arithmetic" in (tmp_path / "claims.md").read_text()
    # other settings are not mixed with these; what a policy is trained with matters where one is trained
    longer = {"arithmetic": families["arithmetic"].model_copy(update={"steps": 2})}
    command(["consistency"], longer, settings, console)
    with pytest.raises(
        UserError, match=r"values-arithmetic.jsonl was made with steps = 1, not steps = 2; give the same"
    ):
        command(["values"], longer, settings, console)
    other = {"arithmetic": families["arithmetic"].model_copy(update={"model": "another"})}
    with pytest.raises(UserError, match=r"was made with model = .*, not model = \"another\"; give"):
        command(["consistency"], other, settings, console)


def test_from_the_command_line(tiny_policy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(failures, "COMPLETIONS", 2)
    monkeypatch.setattr(consistency, "LOST", -1)  # this policy hardly ever succeeds
    (tmp_path / "recipe.toml").write_text(
        'device = "cpu"\n[compare]\nmethods = ["grpo", "elpo"]\n'
        "[families.arithmetic.tasks]\nname = 'arithmetic'\noperations_min = 2\noperations_max = 2\n"
        "[families.arithmetic.agent]\nmax_new_tokens = 32\nmax_steps = 4\nmax_context = 256\n"
    )
    command = ["claims", "consistency", "--config", "recipe.toml", "--model", str(tiny_policy), "--runs", "1"]
    assert main([*command, "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "consistency, arithmetic" in said and "report: out/claims.md" in said
    assert json.loads(Path("out/claims.json").read_text())[0]["figures"][0]["n"] == 1
    assert main(["claims", "recover", *command[2:]]) == 2
    assert "there is no claim 'recover'" in capsys.readouterr().err
    assert main(["claims", "recovery"]) == 2
    assert "give --tasks, such as" in capsys.readouterr().err


def test_what_can_t_be_measured_is_said_in_a_sentence(families, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"there is no claim 'recover'; did you mean 'recovery'\?"):
        command(["recover"], families, ClaimsConfig(runs=1, out=tmp_path), Console(quiet=True))
    monkeypatch.setattr("firstfault.evaluation.claims.command.TRIED", 0)
    with pytest.raises(UserError, match=r"of 0 tasks only 0 are such as it is about; start from"):
        command(["recovery"], families, ClaimsConfig(runs=1, out=tmp_path), Console(quiet=True))
