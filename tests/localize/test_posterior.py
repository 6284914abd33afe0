"""The search with a posterior: its arithmetic by hand, against brute force, and on runs with a planted fault."""

import itertools
import math
import random

import numpy as np
import pytest

from firstfault.localize import SEARCHES, Filled, Posterior
from firstfault.localize.posterior import RATES
from firstfault.localize.search import Search, _questions


def played(search: Search, recovers, budget: int, seed: int = 0) -> int:
    """Play a run whose completions after step m succeed with `recovers[m]`; returns the rollouts used."""
    draw, spent = random.Random(seed), 0
    while spent < budget and (question := search.ask(budget - spent)) is not None:
        step, tries = question
        assert 0 <= step <= search.steps and 1 <= tries <= budget - spent
        search.tell(step, [draw.random() < recovers[step] for _ in range(tries)])
        spent += tries
    return spent


def cliff(steps: int, fault: int, rate: float = 1.0) -> list[float]:
    return [rate if m < fault else 0.0 for m in range(steps + 1)]


def test_the_posterior_of_two_tries_by_hand():
    """K = 1, flat rates: hypotheses t = 1 and t = 2 (none) with every q; a failure, then a success after step 1."""
    search = Posterior(1, none=0.5, leak=0.01, spread=math.inf)
    lost, fine = 1.0, sum(1 - q for q in RATES) / len(RATES)  # this run failed after step 1, too
    assert search.belief == pytest.approx([lost / (lost + fine), fine / (lost + fine)])
    search.tell(1, [False])
    lost, fine = 0.99, sum((1 - q) ** 2 for q in RATES) / len(RATES)
    assert search.belief == pytest.approx([lost / (lost + fine), fine / (lost + fine)])
    search.tell(1, [True])
    lost, fine = 0.99 * 0.01, sum((1 - q) ** 2 * q for q in RATES) / len(RATES)
    assert search.belief == pytest.approx([lost / (lost + fine), fine / (lost + fine)])
    verdict = search.verdict()
    assert (verdict.step, verdict.finished, verdict.probability) == (2, True, pytest.approx(search.belief[1]))
    assert verdict.weights == pytest.approx([search.belief[0]])


def test_anchors_may_have_rates_of_their_own():
    """With κ = 2, after a success and a failure at an anchor its rate is (2 q + 1) / 4 whatever happened elsewhere."""
    search = Posterior(2, spread=2.0)
    search.tell(1, [True, False])
    q = np.array(RATES)
    rates = search._rate(search.succeeded[:, None], search.tried[:, None])
    assert rates[1] == pytest.approx((2 * q + 1) / 4) and rates[2] == pytest.approx(q)
    fresh = Posterior(2, spread=2.0).joint
    likelihood = np.array([np.full(len(q), 0.001 * 0.999), *[q * (1 - (2 * q + 1) / 3)] * 2])
    assert search.joint == pytest.approx(fresh * likelihood / (fresh * likelihood).sum())


def test_the_information_of_an_anchor_is_its_mutual_information():
    search = Posterior(7)
    search.tell(3, [False])
    entropy = lambda p: -sum(x * math.log(x) for x in p if x > 0)  # noqa: E731
    gains = []
    for m in range(1, 8):
        outcomes = []
        for success in (True, False):
            rate = search._rate(search.succeeded[m], search.tried[m])
            rate = np.where(search.good[:, m - 1, None], rate, search.leak)
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
    search.tell(0, [True] * 7 + [False])
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
    outcomes = iter([False, True, False, False, False, False])
    while (question := search.ask(16 - len(asked))) is not None and len(asked) < 6:
        asked.append(question)
        search.tell(question[0], [next(outcomes)])
    assert asked == [(4, 1), (4, 1), (6, 1), (6, 1), (6, 1), (6, 1)]


@pytest.mark.parametrize("name", ["printed", "verified", "filled", "posterior"])
@pytest.mark.parametrize("fault", range(1, 9))
def test_questions_asked_together_lead_where_single_ones_lead(name, fault):
    for together in (1, 2, 4):
        search = SEARCHES[name](8, lambda step: 2, random.Random(0))
        left = 60
        while questions := _questions(search, left, together):
            for step, tries in questions:
                search.tell(step, [step < fault] * tries)
                left -= tries
        assert (search.verdict().step, search.verdict().finished) == (fault, True)


@pytest.mark.parametrize("name", SEARCHES)
def test_discarded_rollouts_end_a_search_or_change_nothing(name):
    search = SEARCHES[name](6, lambda step: 2, random.Random(0))
    for _ in range(30):
        question = search.ask(20)
        if question is None:
            break
        search.tell(question[0], [])
    assert search.probes == [] and search.verdict().steps == 6


@pytest.mark.parametrize("name", SEARCHES)
def test_a_run_without_a_tool_call_has_nothing_to_search(name):
    search = SEARCHES[name](0, lambda step: 2, random.Random(0))
    assert search.cost == 0 and search.ask(10) is None
    verdict = search.verdict()
    assert (verdict.steps, verdict.step, verdict.finished, verdict.weights) == (0, 1, False, [])


def test_a_fault_at_the_first_step_is_contrasted_with_whole_runs():
    search = Posterior(4)
    search.tell(0, [True, False, False, False])  # an earlier whole run has succeeded
    played(search, cliff(4, 1, rate=0.9), budget=60)
    assert search.verdict().step == 1
    assert sum(probe.successes for probe in search.probes if probe.step == 0) >= 2


# What a completion that repeats steps of the failed run says


def betaln(x: float, y: float) -> float:
    return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)


def exact(steps: int, runs, spread: float, leak: float) -> np.ndarray:
    """log P(runs | t, q), [K + 1, G], by counting: `runs` are (step, agreed, success)."""
    a, s, f = (np.zeros(steps + 1) for _ in range(3))
    for start, agreed, success in runs:
        a[start:agreed] += 1
        (s if success else f)[agreed] += 1
    log = np.zeros((steps + 1, len(RATES)))
    for t, (g, q) in itertools.product(range(1, steps + 2), enumerate(RATES)):
        for j in range(steps + 1):
            if t <= j:
                outcome = s[j] * math.log(leak) + f[j] * math.log(1 - leak)
            else:
                failures = f[j] + (a[j] if t == j + 1 <= steps else 0)
                outcome = betaln(spread * q + s[j], spread * (1 - q) + failures) - betaln(spread * q, spread * (1 - q))
            if j < steps:  # of those that do not repeat step j + 1, the successes could not if it is at fault
                others = f[j] + (0 if t == j + 1 else s[j])
                outcome += betaln(a[j] + 0.5, others + 0.5) - betaln(0.5, 0.5)
            log[t - 1, g] += outcome
    return log


def test_repeated_steps_are_evidence_as_counting_says():
    draw, steps = random.Random(1), 4
    for _ in range(20):
        search, runs = Posterior(steps, leak=0.01, spread=5.0), []
        before = np.log(search.joint)
        for _ in range(12):
            start = draw.randint(0, steps)
            runs.append((start, draw.randint(start, steps), draw.random() < 0.3))
            search.learn(runs[-1][0], runs[-1][2], runs[-1][1])
        expected = before + exact(steps, runs, 5.0, 0.01)
        expected = np.exp(expected - expected.max())
        assert search.joint == pytest.approx(expected / expected.sum())


def test_a_success_that_repeats_the_run_up_to_a_step_clears_all_steps_up_to_it():
    search = Posterior(6)
    search.tell(2, [True], agreed=[5])
    assert search.belief[:5].sum() < 0.02 < search.belief[5]
    other = Posterior(6)
    other.learn(0, True, 5)  # so does another run of the task, which nobody asked for
    assert other.belief[:5].sum() < 0.02 and other.probes == [] and search.probes[0].step == 2


def test_failures_that_all_repeat_a_step_accuse_it():
    search = Posterior(6)
    for success, agreed in [(True, 2), (True, 2), *[(False, 3)] * 8]:
        search.learn(0, success, agreed)
    assert search.verdict().step == 3 and search.verdict().probability > 0.8


def test_it_is_calibrated_where_runs_repeat_the_failed_one():
    """Runs drawn from its model, siblings and completions alike: of those found with probability p, a share p is."""
    draw, said, true = random.Random(0), [], []
    while len(said) < 600:
        q, fault = draw.choice(RATES), draw.randint(1, 5)
        repeats = [draw.betavariate(0.5, 0.5) for _ in range(5)]  # the chance to repeat step j + 1
        repeats[fault - 1] *= 1 - q

        def run(start: int, fault=fault, repeats=repeats, q=q) -> tuple[bool, int]:
            for j in range(start, 5):
                if draw.random() >= repeats[j]:
                    rate = 0.0 if j >= fault else q / (1 - repeats[j]) if j + 1 == fault else q
                    return draw.random() < rate, j
            return False, 5

        search = Posterior(5, leak=1e-6, spread=math.inf, none=1e-6, stop=1.0)
        for _ in range(4):
            search.learn(0, *run(0))
        for left in range(6, 0, -1):
            [(step, _)] = [search.ask(left)]
            success, agreed = run(step)
            search.tell(step, [success], [agreed])
        said.append(search.verdict().probability)
        true.append(search.verdict().step == fault)
    assert np.mean(said) == pytest.approx(np.mean(true), abs=0.05)
    sure = [t for p, t in zip(said, true, strict=True) if p >= 0.9]
    assert len(sure) > 60 and np.mean(sure) > 0.85
