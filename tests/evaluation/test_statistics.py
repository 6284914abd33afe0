"""Intervals, p-values and powers: against scipy, against hand-computed values, and on simulated comparisons."""

import math

import numpy as np
import pytest
from scipy import stats

from firstfault.evaluation.statistics import (
    area_weights,
    bootstrap,
    holm,
    mean_t,
    p_value,
    power,
    seeds_needed,
)


@pytest.mark.parametrize("seed", range(5))
def test_intervals_and_p_values_are_scipy_s(seed):
    random = np.random.default_rng(seed)
    first, second = random.normal(0.1, 1, 6), random.normal(0, 1, 6)
    theirs = stats.ttest_rel(first, second)
    assert p_value(first - second) == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval()
    assert mean_t(first - second) == pytest.approx(((first - second).mean(), interval.low, interval.high))


@pytest.mark.parametrize("values", [[0.3], [0.0, 0.0, 0.0], [1 / 16, 1 / 16], [0.1 + 0.2, 0.3, 0.3]])
def test_without_a_spread_nothing_is_shown(values):
    assert p_value(values) == 1
    assert mean_t(values) == (pytest.approx(values[0]), -math.inf, math.inf)
    assert seeds_needed(values) is None


def test_a_stricter_level_needs_more_seeds():
    differences = [0.02, 0.05, -0.01, 0.04, 0.0]
    assert seeds_needed(differences) == 15
    assert seeds_needed(differences, 0.05 / 112) == 37


@pytest.mark.parametrize(("given", "corrected"), [
    ([], []),
    ([0.2], [0.2]),
    ([0.01, 0.02, 0.03, 0.005], [0.03, 0.04, 0.04, 0.02]),  # 3 x, 2 x, no less than before, 4 x
    ([0.5, 0.9], [1, 1]),
])  # fmt: skip
def test_holm(given, corrected):
    assert holm(given) == pytest.approx(corrected)


@pytest.mark.parametrize(
    ("seeds", "mean", "level"),
    [
        (10, 0.8, 0.05),
        (2, 5.7, 0.05),
        (4, 5.7, 0.05 / 112),
        (3, 5.0, 0.05 / 112),
    ],
)
def test_power_is_what_simulated_tests_have(seeds, mean, level):
    """Also where scipy has NaN for the tail on the wrong side, as in the last two."""
    found = stats.ttest_1samp(np.random.default_rng(0).normal(mean, 1, (20_000, seeds)), 0, axis=1).pvalue < level
    assert power(seeds, mean, 1, level) == pytest.approx(found.mean(), abs=0.01)


@pytest.mark.parametrize(("mean", "spread", "seeds"), [(0.5, 1, 34), (1, 1, 10), (-0.2, 1, 199)])
def test_seeds_needed(mean, spread, seeds):
    """The values of tables of sample sizes (Cohen's d of 0.5, 1, 0.2, one sample, two-sided)."""
    differences = np.array([mean - spread / math.sqrt(2), mean + spread / math.sqrt(2)])
    assert seeds_needed(differences) == seeds
    assert power(seeds - 1, mean, spread) < 0.8 <= power(seeds, mean, spread)


def test_where_every_seed_shows_it_few_are_needed():
    """scipy's noncentral t is NaN here and there where it is far out."""
    needed = [seeds_needed([d - 1, d, d + 1]) for d in (2, 3, 4, 5, 6, 8, 12, 20, 50)]
    assert needed == sorted(needed, reverse=True) and needed[-1] == 2


def test_bootstrap_of_one_problem_is_that_over_seeds():
    values = np.array([0.1, 0.5, 0.2, 0.9, 0.4, 0.3])
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", random_state=0)
    assert bootstrap([values[:, None]], 20_000) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)


def test_bootstrap_over_problems_knows_that_problems_differ():
    """Seeds that agree to the last problem, and still: on other problems the difference might be another."""
    one_in_four = np.array([[1.0, 0, 0, 0]] * 5)
    low, high = bootstrap([one_in_four])
    assert low == 0 and high > 0.5
    several = bootstrap([one_in_four, np.zeros((5, 4))])  # families weigh the same
    assert several[1] < 0.5


def test_areas_are_trapezoids():
    random = np.random.default_rng(0)
    spent, success = np.cumsum([0, *random.random(7)]), random.random(8)
    assert area_weights(spent, spent[-1]) @ success == pytest.approx(np.trapezoid(success, spent) / spent[-1])
    limit = (spent[3] + spent[4]) / 2
    grid = np.linspace(0, limit, 100_001)
    assert area_weights(spent, limit) @ success == pytest.approx(np.interp(grid, spent, success).mean(), abs=1e-4)
    assert area_weights([0, 0, 2], 2).tolist() == [0, 0.5, 0.5]  # an iteration that spent nothing
    with pytest.raises(ValueError, match="no area"):
        area_weights([0, 5], 6)


def outcomes(random: np.random.Generator, seeds: int, gain: float) -> np.ndarray:
    """Differences of two simulated methods [seeds, problems]: seeds differ by luck, problems by what they suit."""
    luck, suit = random.normal(0, 0.05, (seeds, 1)), random.normal(0, 0.2, (1, 64))
    return gain + luck + suit - suit.mean() + random.normal(0, 0.3, (seeds, 64))


def told_apart(gain: float, trials: int = 400) -> float:
    """How often both checks say that they differ."""
    random, found = np.random.default_rng(1), 0
    for _ in range(trials):
        differences = outcomes(random, 5, gain)
        low, high = bootstrap([differences], resamples=300)
        found += p_value(differences.mean(axis=1)) < 0.05 and not low <= 0 <= high
    return found / trials


def test_false_alarms_are_as_rare_as_promised_and_gains_are_found():
    assert told_apart(0) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    assert told_apart(0.15) > 0.8
