"""How sure a difference between two methods is. All of it is about paired differences: same seeds, same problems."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from firstfault.errors import require

LEVEL = 0.05  # of all tests; intervals hold 95 %
POWER = 0.8
MOST_SEEDS = 100_000


def scipy_stats() -> ModuleType:
    """`scipy.stats`, which is imported only where something is to be concluded.

    Raises:
        UserError: if scipy is not installed.
    """
    require("scipy", "compare", "a comparison or a claim")
    from scipy import stats

    return stats


def alike(values: Sequence[float]) -> bool:
    """Whether values have no spread to go by: one of them, or all the same.

    Success is counted in small steps, so that a few seeds may well agree to the last digit. That is not certainty.
    """
    return float(np.ptp(values)) < 1e-12


def mean_t(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean over seeds with Student's 95 % interval, which is infinite where nothing tells how seeds differ.

    It widens as few seeds demand (2.78 standard errors at five), where the quantiles of a bootstrap would not.

    >>> [round(v, 3) for v in mean_t([0.1, 0.2, 0.3])]
    [0.2, -0.048, 0.448]
    """
    n, mean = len(values), float(np.mean(values))
    if alike(values):
        return mean, -math.inf, math.inf
    half = float(scipy_stats().t.ppf(1 - LEVEL / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def p_value(differences: Sequence[float]) -> float:
    """Of the paired t-test, two-sided: how often so large a mean difference comes from equal methods.

    1 if there is no spread that tells how seeds differ.
    """
    if alike(differences):
        return 1.0
    return float(scipy_stats().ttest_1samp(differences, 0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction: the chance of any false alarm among them all is bounded.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def bootstrap(parts: Sequence[np.ndarray], resamples: int = 4000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean difference over seeds and problems, both drawn again with replacement.

    Args:
        parts: differences [seeds, problems] of each task family, of the same seeds. Families weigh the same; their
            problems are drawn apart, and every seed meets the same problems, as it did.

    It says what other problems would have changed, too. Of few seeds it is too narrow (by a factor of 1.6 at five),
    so it never stands alone.
    """
    drawn, *weights = _drawn((len(parts[0]), *(part.shape[1] for part in parts)), resamples, seed)
    families = [np.einsum("rp,rp->r", drawn @ part, w) for part, w in zip(parts, weights, strict=True)]
    low, high = np.quantile(np.mean(families, axis=0), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


@functools.lru_cache(maxsize=16)  # every pair of a comparison is asked with the same draws
def _drawn(numbers: tuple[int, ...], resamples: int, seed: int) -> list[np.ndarray]:
    """The shares [resamples, n] of n things drawn again, for each n of `numbers`."""
    random = np.random.default_rng(seed)
    return [random.multinomial(n, [1 / n] * n, resamples) / n for n in numbers]


def power(seeds: int, mean: float, sd: float, level: float = LEVEL) -> float:
    """The chance that the paired t-test of so many seeds at this level tells such methods apart.

    >>> round(power(34, 0.5, 1.0), 2)
    0.81
    """
    stats = scipy_stats()
    bound, shift = stats.t.ppf(1 - level / 2, seeds - 1), abs(mean) / sd * math.sqrt(seeds)
    right, wrong = stats.nct.sf(bound, seeds - 1, shift), stats.nct.cdf(-bound, seeds - 1, shift)
    return float(right + np.nan_to_num(wrong))  # scipy's is NaN where next to nothing is left of the wrong side


def seeds_needed(differences: Sequence[float], level: float = LEVEL) -> int | None:
    """Seeds for a power of 80 % at this level, if mean and spread of the differences are as they were seen.

    None where that says nothing: no spread, no difference, or more than 100,000. As good a guess as the spread of few
    seeds is: a rough one.
    """
    mean = float(np.mean(differences))
    if alike(differences) or mean == 0:
        return None
    sd, normal = float(np.std(differences, ddof=1)), scipy_stats().norm
    enough = math.ceil(((normal.ppf(1 - level / 2) + normal.ppf(POWER)) * sd / mean) ** 2)  # if the spread were known
    if enough > MOST_SEEDS:
        return None
    enough = max(2, enough)
    while power(enough, mean, sd, level) < POWER:
        enough += 1
    return enough


def area_weights(spent: Sequence[float], limit: float) -> np.ndarray:
    """What each evaluation weighs in the mean success along the way, from the start until `limit` is spent.

    Success is taken to change evenly between evaluations (trapezoids); the weights add up to 1.

    >>> area_weights([0, 10, 30], 30).round(3).tolist(), area_weights([0, 10, 30], 20).round(3).tolist()
    ([0.167, 0.5, 0.333], [0.25, 0.625, 0.125])
    """
    if not 0 < limit - spent[0] <= spent[-1] - spent[0]:
        raise ValueError(f"no area up to {limit} under a curve from {spent[0]} to {spent[-1]}")
    weights = np.zeros(len(spent))
    for k in range(len(spent) - 1):
        if spent[k] < limit and spent[k] < spent[k + 1]:
            width = min(spent[k + 1], limit) - spent[k]
            share = width / (spent[k + 1] - spent[k])  # of the way to the next evaluation
            weights[k] += width * (2 - share) / 2
            weights[k + 1] += width * share / 2
    return weights / (limit - spent[0])
