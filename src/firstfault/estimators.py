"""Estimators of an evaluation, as pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that at least one of `k` runs succeeds, from `n` runs of which `correct` did.

        Pass@K = 1 - C(n - c, k) / C(n, k) = 1 - Π_{i = n - c + 1..n} (1 - k / i)

    Unbiased (Chen et al. 2021, arXiv 2107.03374, eq. 1): the share of the sets of k runs that have a success in them.

    Of 3 runs with 1 success, 2 of the 3 pairs have it:

    >>> round(pass_at_k(n=3, correct=1, k=2), 6), pass_at_k(n=4, correct=1, k=1)
    (0.666667, 0.25)

    Raises:
        ValueError: unless 1 <= k <= n and 0 <= correct <= n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"pass@{k} of {correct} successes in {n} runs")
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def major_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool], k: int) -> float:
    """The chance that the majority of `k` runs is right, from n runs with these answers, of which some are `correct`.

    Over all sets of k of the n runs:

        Major@K = Σ_sets 1[v₀ = max v and v₀ > 0] / |{i: vᵢ = max v}| / C(n, k)

    where v₀ counts the correct runs of a set, whose answers are one candidate, and vᵢ those with the ith wrong answer.
    Runs without an answer (None) abstain; a set in which all do fails. Ties are broken uniformly at random.

    Exact, by dynamic programming. Runs that are taken independently, each with chance k / n, are a uniform set of k
    given that there are k of them; so what candidates get is independent up to their sum. For each number of correct
    votes, `chance[s, j]` is that of s votes for wrong answers, of which j have as many votes as the right one.

    Two runs say 7, which is right, one says 5, one 6, and one nothing. Of the 10 pairs, 7 7 wins, as do 7 and nothing
    twice; 7 5 and 7 6, twice each, win every other time:

    >>> round(major_at_k([7, 7, 5, 6, None], [True, True, False, False, False], k=2), 6)
    0.5

    Raises:
        ValueError: unless there are as many answers as verdicts, and 1 <= k <= n.
    """
    n, right = len(answers), sum(correct)
    if not (len(correct) == n and 1 <= k <= n):
        raise ValueError(f"major@{k} of {n} answers with {len(correct)} verdicts")
    wrong = Counter(a for a, success in zip(answers, correct, strict=True) if not success and a is not None)
    abstaining = n - right - wrong.total()
    take = k / n
    total = 0.0
    for votes in range(1, min(k, right) + 1):
        rest = k - votes
        chance = np.zeros((rest + 1, rest // votes + 1))
        chance[0, 0] = 1.0
        for count in wrong.values():
            before, chance = chance, np.zeros_like(chance)
            for v, p in enumerate(_taken(count, take, min(votes, rest))):
                if v < votes:
                    chance[v:] += p * before[: rest + 1 - v]
                else:
                    chance[v:, 1:] += p * before[: rest + 1 - v, :-1]
        silent = np.zeros(rest + 1)
        silent[: abstaining + 1] = _taken(abstaining, take, rest)
        wins = silent[::-1] @ chance @ (1.0 / np.arange(1, chance.shape[1] + 1))
        total += wins * _taken(right, take, votes)[votes]
    return float(min(1.0, total / _taken(n, take, k)[k]))


def _taken(count: int, take: float, most: int) -> list[float]:
    """The chances that 0, 1, ... of `count` runs are taken, up to `most` of them, each with chance `take`."""
    several = range(min(count, most) + 1)
    if take == 1:
        return [float(x == count) for x in several]
    if count <= 1000:
        return [math.comb(count, x) * take**x * (1 - take) ** (count - x) for x in several]
    yes, no = math.log(take), math.log1p(-take)  # the numbers of sets are too large for floats
    return [math.exp(math.log(math.comb(count, x)) + x * yes + (count - x) * no) for x in several]
