"""The search with a posterior: its arithmetic by hand, against brute force, and on runs with a planted fault."""

import itertools
import math
import random

import numpy as np
import pytest

from firstfault.localize import SEARCHES, Filled, Posterior
from firstfault.localize.posterior import RATES
from firstfault.localize.search import Search


def played(search: Search, recovers, budget: int, seed: int = 0) -> int:
    """Play a run whose completions after step m succeed with `recovers[m]`; returns the rollouts used."""
    draw, spent = random.Random(seed), 0
    while spent < budget and (question := search.ask(budget - spent)) is not None:
        step, tries = question
        assert 0 <= step <= search.steps and 1 <= tries <= budget - spent
        search.tell(step, tries, sum(draw.random() < recovers[step] for _ in range(tries)))
        spent += tries
    return spent


def cliff(steps: int, fault: int, rate: float = 1.0) -> list[float]:
    return [rate if m < fault else 0.0 for m in range(steps + 1)]


def test_the_posterior_of_two_tries_by_hand():
    """K = 1, flat rates: hypotheses t = 1 and t = 2 (none) with every q; a failure, then a success after step 1."""
    search = Posterior(1, none=0.5, leak=0.01, spread=math.inf)
    lost, fine = 1.0, sum(1 - q for q in RATES) / len(RATES)  # this run failed after step 1, too
    assert search.belief == pytest.approx([lost / (lost + fine), fine / (lost + fine)])
    search.tell(1, 1, 0)
    lost, fine = 0.99, sum((1 - q) ** 2 for q in RATES) / len(RATES)
    assert search.belief == pytest.approx([lost / (lost + fine), fine / (lost + fine)])
    search.tell(1, 1, 1)
    lost, fine = 0.99 * 0.01, sum((1 - q) ** 2 * q for q in RATES) / len(RATES)
    assert search.belief == pytest.approx([lost / (lost + fine), fine / (lost + fine)])
    verdict = search.verdict()
    assert (verdict.step, verdict.finished, verdict.probability) == (2, True, pytest.approx(search.belief[1]))
    assert verdict.weights == pytest.approx([search.belief[0]])


def test_anchors_may_have_rates_of_their_own():
    """With κ = 2, after a success and a failure at an anchor its rate is (2 q + 1) / 4 whatever happened elsewhere."""
    search = Posterior(2, spread=2.0)
    for outcome in (1, 0):
        search.tell(1, 1, outcome)
    q = np.array(RATES)
    assert search._rate(1) == pytest.approx((2 * q + 1) / 4)
    assert search._rate(2) == pytest.approx(q)
    fresh = Posterior(2, spread=2.0).joint
    likelihood = np.array([np.full(len(q), 0.001 * 0.999), *[q * (1 - (2 * q + 1) / 3)] * 2])
    assert search.joint == pytest.approx(fresh * likelihood / (fresh * likelihood).sum())


def test_the_information_of_an_anchor_is_its_mutual_information():
    search = Posterior(7)
    search.tell(3, 1, 0)
    entropy = lambda p: -sum(x * math.log(x) for x in p if x > 0)  # noqa: E731
    gains = []
    for m in range(1, 8):
        outcomes = []
        for success in (True, False):
            rate = np.where(search.good[:, m - 1, None], search._rate(m), search.leak)
            outcomes.append((search.joint * (rate if success else 1 - rate)).sum(1))
        gains.append(entropy(search.belief) - sum(o.sum() * entropy(o / o.sum()) for o in outcomes))
    bits = entropy(search.belief) / math.log(2)
    assert bits > 2  # with half as many rollouts left, b = 1
    assert search._gain(bits / 2) + entropy(search.belief) == pytest.approx(gains)


@pytest.mark.parametrize("name", ["verified", "filled", "posterior"])
@pytest.mark.parametrize("steps", [1, 2, 5, 8, 13])
def test_true_probes_lead_to_every_planted_fault_and_to_none(name, steps):
    for fault in range(1, steps + 2):
        search = SEARCHES[name](steps, lambda step: 1, random.Random(0))
        played(search, cliff(steps, fault), budget=40)
        verdict = search.verdict()
        assert (verdict.step, verdict.finished) == (fault, True)


def test_a_sure_search_asks_for_siblings_before_the_fault_and_stops():
    search = Posterior(8)
    assert played(search, cliff(8, 5), budget=100) < 25
    assert search.ask(50) is None and search.verdict().probability >= 0.9
    assert sum(probe.successes for probe in search.probes if probe.step == 4) >= 2


def test_weights_are_the_probability_that_the_run_is_lost_by_then():
    search = Posterior(6)
    played(search, cliff(6, 3, rate=0.5), budget=8)
    weights = search.verdict().weights
    assert weights == sorted(weights) and len(weights) == 6
    assert weights == pytest.approx([search.belief[:t].sum() for t in range(1, 7)])
    assert weights[-1] == pytest.approx(1 - search.belief[-1])


def test_a_prior_moves_it_and_evidence_overrules():
    early = Posterior(8, prior=[8, 7, 6, 5, 4, 3, 2, 1])
    assert early.verdict().step == 1 and Posterior(8).belief[0] == pytest.approx(Posterior(8).belief[7])
    played(early, cliff(8, 8), budget=30)
    assert early.verdict().step == 8


def test_rollouts_of_the_task_tell_the_rate_and_not_the_step():
    search = Posterior(5)
    before = search.belief[:5] / search.belief[:5].sum()
    search.tell(0, 8, 7)
    assert search.belief[:5] / search.belief[:5].sum() == pytest.approx(before)
    assert search.joint.sum(0)[-1] > Posterior(5).joint.sum(0)[-1]


def test_the_posterior_is_calibrated_where_its_model_is_right():
    """Runs drawn from its own prior: of those said to be found with probability p, a share p is."""
    draw, said, true = random.Random(0), [], []
    for number in range(1500):
        q = draw.choice(RATES)
        fault = draw.randint(1, 6) if draw.random() < 0.9 else 7
        if fault == 7 and draw.random() < q:
            continue  # not a failed run
        search = Posterior(6, leak=1e-4, spread=math.inf, stop=1.0)
        played(search, cliff(6, fault, q), budget=10, seed=number)
        said.append(search.verdict().probability)
        true.append(search.verdict().step == fault)
    for low, high in itertools.pairwise([0.2, 0.4, 0.6, 0.8, 1.01]):
        bin_ = [(p, t) for p, t in zip(said, true, strict=True) if low <= p < high]
        share, mean = sum(t for _, t in bin_) / len(bin_), sum(p for p, _ in bin_) / len(bin_)
        assert share == pytest.approx(mean, abs=4 * (0.25 / len(bin_)) ** 0.5)


def test_filled_takes_the_rollouts_of_a_round_and_leaves_an_anchor_at_its_first_success():
    search = Filled(8)
    asked = []
    outcomes = iter([0, 1, 0, 0, 0, 0])
    while (question := search.ask(16 - len(asked))) is not None and len(asked) < 6:
        asked.append(question)
        search.tell(question[0], 1, next(outcomes))
    assert asked == [(4, 1), (4, 1), (6, 1), (6, 1), (6, 1), (6, 1)]


@pytest.mark.parametrize("name", SEARCHES)
def test_discarded_rollouts_end_a_search_or_change_nothing(name):
    search = SEARCHES[name](6, lambda step: 2, random.Random(0))
    for _ in range(30):
        question = search.ask(20)
        if question is None:
            break
        search.tell(question[0], 0, 0)
    assert search.probes == [] and search.verdict().steps == 6


@pytest.mark.parametrize("name", SEARCHES)
def test_a_run_without_a_tool_call_has_nothing_to_search(name):
    search = SEARCHES[name](0, lambda step: 2, random.Random(0))
    assert search.cost == 0 and search.ask(10) is None
    verdict = search.verdict()
    assert (verdict.steps, verdict.step, verdict.finished, verdict.weights) == (0, 1, False, [])


def test_a_fault_at_the_first_step_is_contrasted_with_whole_runs():
    search = Posterior(4)
    search.tell(0, 4, 1)  # an earlier whole run has succeeded
    played(search, cliff(4, 1, rate=0.9), budget=60)
    assert search.verdict().step == 1
    assert sum(probe.successes for probe in search.probes if probe.step == 0) >= 2
