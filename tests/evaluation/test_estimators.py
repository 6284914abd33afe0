"""Estimators against brute force, published formulas and scipy."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
import scipy.stats

from firstfault.estimators import major_at_k, pass_at_k
from firstfault.intervals import mean_interval, ratio_interval


def published(n, c, k):
    """The estimator as Chen et al. print it (arXiv 2107.03374, figure 3)."""
    if n - c < k:
        return 1.0
    return 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))


# counts, and the estimator's value as a quotient of binomials
GOLDEN = [
    (10, 3, 5, 1 - 21 / 252),  # 1 - C(7, 5) / C(10, 5)
    (5, 2, 2, 1 - 3 / 10),
    (4, 1, 1, 1 / 4),
    (200, 1, 100, 1 / 2),
    (16, 0, 16, 0.0),
    (16, 16, 4, 1.0),
    (16, 13, 4, 1.0),  # 3 failures are too few for a set of 4 without a success
    (32, 4, 16, 1 - math.comb(28, 16) / math.comb(32, 16)),
]


@pytest.mark.parametrize(("n", "correct", "k", "value"), GOLDEN)
def test_pass_at_k_has_the_published_values(n, correct, k, value):
    assert pass_at_k(n, correct, k) == pytest.approx(value, abs=1e-12)
    assert pass_at_k(n, correct, k) == pytest.approx(published(n, correct, k), abs=1e-12)


def test_pass_at_k_equals_the_quotient_of_binomials():
    for n in range(1, 20):
        for correct, k in itertools.product(range(n + 1), range(1, n + 1)):
            quotient = 1 - math.comb(n - correct, k) / math.comb(n, k)
            assert pass_at_k(n, correct, k) == pytest.approx(quotient, abs=1e-12)


def test_pass_at_k_is_unbiased():
    """Its mean over binomial counts is the chance of a success among k independent runs."""
    n, k, p = 12, 5, 0.2
    mean = sum(scipy.stats.binom.pmf(c, n, p) * pass_at_k(n, c, k) for c in range(n + 1))
    assert mean == pytest.approx(1 - (1 - p) ** k)


def by_hand(answers, correct, k):
    """The mean over all sets of k runs."""
    total = 0.0
    for chosen in itertools.combinations(range(len(answers)), k):
        votes = Counter(
            "right" if correct[i] else ("wrong", answers[i]) for i in chosen if correct[i] or answers[i] is not None
        )
        most = max(votes.values(), default=0)
        winners = [candidate for candidate, count in votes.items() if count == most]
        total += ("right" in winners) / max(1, len(winners))
    return total / math.comb(len(answers), k)


def test_major_at_k_equals_the_mean_over_all_sets():
    draw = random.Random(0)
    for _ in range(300):
        n = draw.randint(1, 9)
        answers = [draw.choice([None, None, "a", "b", "c", "d"]) for _ in range(n)]
        luck = draw.random()
        correct = [answer in ("a", "b") and draw.random() < luck for answer in answers]  # one answer may be both
        for k in range(1, n + 1):
            assert major_at_k(answers, correct, k) == pytest.approx(by_hand(answers, correct, k), abs=1e-12)


MAJOR = {
    "all abstain": ([None] * 4, [False] * 4, 2, 0.0),
    "one says it and none objects": (["7", None, None], [True, False, False], 3, 1.0),
    "all runs, two against two": (["7", "7", "5", "5"], [True, True, False, False], 4, 0.5),
    "three ways": (["7", "5", "6"], [True, False, False], 3, 1 / 3),
    "right answers of two forms are one": (["0.5", "1/2", "3", "3"], [True, True, False, False], 4, 0.5),
    "the same text, right and wrong": (["f", "f", "f"], [True, True, False], 3, 1.0),
    "the wrong majority": (["7", "5", "5"], [True, False, False], 3, 0.0),
}


@pytest.mark.parametrize(("answers", "correct", "k", "value"), MAJOR.values(), ids=MAJOR)
def test_major_at_k_by_hand(answers, correct, k, value):
    assert major_at_k(answers, correct, k) == pytest.approx(value)


def test_major_at_1_is_the_share_of_successes():
    assert major_at_k(["7", None, "5", "7"], [True, False, False, True], 1) == pytest.approx(0.5)


def test_major_at_k_of_many_runs_agrees_with_sampling():
    draw = np.random.default_rng(0)
    answers = [*("7" * 20), *("5" * 18), *("6" * 9), *map(str, range(10, 21)), *[None] * 6]
    correct = [answer == "7" for answer in answers]
    hits = []
    for _ in range(20_000):
        votes = Counter(answers[i] for i in draw.permutation(64)[:16] if answers[i] is not None)
        winners = [answer for answer, count in votes.items() if count == max(votes.values())]
        hits.append(("7" in winners) / len(winners))
    error = np.std(hits) / math.sqrt(len(hits))
    assert major_at_k(answers, correct, 16) == pytest.approx(np.mean(hits), abs=4 * error)


def test_major_at_k_has_no_most_runs():
    answers, correct = ["a"] * 1800 + ["b"] * 1200, [True] * 1800 + [False] * 1200
    assert major_at_k(answers, correct, 500) == pytest.approx(1.0)
    assert major_at_k(answers, correct, 1) == pytest.approx(0.6)
    assert major_at_k(answers, correct, 3000) == 1.0


def test_major_at_k_stays_a_probability_for_a_thousand_runs():
    answers, correct = ["7"] * 600 + ["5"] * 400, [True] * 600 + [False] * 400
    assert major_at_k(answers, correct, 100) == pytest.approx(0.985, abs=0.01)
    assert major_at_k(answers, correct, 1000) == 1.0


@pytest.mark.parametrize("numbers", [{"k": 0}, {"k": 5}])
def test_more_runs_than_there_are_is_a_bug(numbers):
    with pytest.raises(ValueError):
        pass_at_k(4, 2, **numbers)
    with pytest.raises(ValueError):
        major_at_k(["1"] * 4, [True] * 4, **numbers)


def test_intervals_of_means_agree_with_scipy():
    values = np.random.default_rng(2).random(40) ** 2
    mean, low, high = mean_interval(values, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert [low, high] == pytest.approx(list(theirs), abs=0.003)


def test_intervals_of_ratios_agree_with_scipy():
    draw = np.random.default_rng(4)
    successes, calls = draw.integers(5, size=40), draw.integers(1, 30, size=40)
    ratio, low, high = ratio_interval(successes, calls, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (successes, calls), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, vectorized=True,
        n_resamples=20_000, method="percentile", rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert ratio == pytest.approx(successes.sum() / calls.sum())
    assert [low, high] == pytest.approx(list(theirs), abs=0.003)


def test_a_ratio_to_nothing_has_no_upper_bound():
    calls, successes = [3.0] * 10, [1.0] + [0.0] * 9
    ratio, low, high = ratio_interval(calls, successes)
    assert ratio == 30 and 0 < low < 30 and high == math.inf
    assert math.isnan(ratio_interval([0.0], [0.0])[0]) and ratio_interval([2.0], [0.0])[0] == math.inf
