"""A search with a posterior: where a run was lost, how sure that is, and what to ask next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstfault.localize.search import Search, anytime_cost
from firstfault.tree import Verdict

RATES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)


class Posterior(Search):
    """Bayesian search for the first irrecoverable step t*, with the rate q at which good prefixes recover unknown.

    Hypotheses are pairs of t = 1 .. K + 1 (K + 1: no step is irrecoverable) and q on a grid. After m steps, a
    completion succeeds with `leak` if t <= m, and else with r_m = (κ q + s_m) / (κ + n_m): near q, but each anchor may
    have a rate of its own, which its n_m tries with s_m successes tell.

    The next anchor is the one whose answer says most about t, taken as if asked b times at once, b = 2 remaining /
    H(t): a single try says little where tries must be repeated. The last try goes where the best guess gains most.
    Once the answer is sure, the step before it is asked until two runs succeeded there, to stand beside the failure.

    Ours: no paper. Whole rollouts of the task are evidence, too: `tell(0, tries, successes)`.

    Args:
        steps: K.
        prior: of t = 1 .. K, up to a factor; uniform by default.
        none: prior probability that no step is irrecoverable.
        leak: success probability behind the first irrecoverable step: lucky guesses, errors of the judge.
        spread: κ; infinite if all good prefixes recover at the same rate.
        stop: probability at which the answer is sure.
    """

    def __init__(
        self,
        steps: int,
        *,
        prior: Sequence[float] | None = None,
        none: float = 0.1,
        leak: float = 0.001,
        spread: float = 16.0,
        stop: float = 0.9,
    ):
        super().__init__(steps)
        self.leak, self.spread, self.stop = leak, spread, stop
        self.rates = np.array(RATES)
        shape = np.ones(steps) if prior is None else np.asarray(prior, float)
        joint = np.outer(np.append((1 - none) * shape / shape.sum(), none), np.ones(len(RATES)) / len(RATES))
        joint[-1] *= 1 - self.rates  # were no step irrecoverable, this run is a failure after all of them
        self.joint = joint / joint.sum()  # [K + 1, G]
        self.tried, self.succeeded = np.zeros(steps + 1), np.zeros(steps + 1)  # by anchor m = 0 .. K
        self.good = np.arange(1, steps + 2)[:, None] > np.arange(1, steps + 1)  # [K + 1, K], t > m

    @property
    def belief(self) -> np.ndarray:
        """P(t), [K + 1]."""
        return self.joint.sum(1)

    def ask(self, remaining: int) -> tuple[int, int] | None:
        if not self.steps:
            return None
        best = self.verdict()
        if best.probability >= self.stop and self.tried[min(best.step, self.steps) :].any():  # not by the prior alone
            before = best.step - 1
            siblings = before < self.steps and self.succeeded[before] < 2
            return (before, 1) if siblings else None
        return int(np.argmax(self._gain(remaining))) + 1, 1

    def tell(self, step: int, tries: int, successes: int) -> None:
        super().tell(step, tries, successes)
        lost = np.arange(1, self.steps + 2) <= step
        for success in [True] * successes + [False] * (tries - successes):
            rate = np.where(lost[:, None], self.leak, self._rate(step))
            self.joint *= rate if success else 1 - rate
            self.joint /= self.joint.sum()
            self.tried[step] += 1
            self.succeeded[step] += success

    def _rate(self, m: int | slice) -> np.ndarray:
        """r_m for every q on the grid."""
        tried, succeeded = self.tried[m, None], self.succeeded[m, None]
        if np.isinf(self.spread):
            return self.rates + 0 * tried
        return (self.spread * self.rates + succeeded) / (self.spread + tried)

    def _gain(self, remaining: int) -> np.ndarray:
        """What a try after step m = 1 .. K is worth, [K]."""
        belief = self.belief
        entropy = -_xlogx(belief).sum() / np.log(2)
        times = np.clip(2 * remaining / max(entropy, 1e-9), 1, 8) if remaining > 1 else 1.0
        rates = 1 - (1 - self._rate(slice(1, None))) ** times  # [K, G], of a success in so many tries
        leak = 1 - (1 - self.leak) ** times
        won = np.where(self.good, self.joint @ rates.T, leak * belief[:, None])  # P(t, success), [K + 1, K]
        lost = belief[:, None] - won
        if remaining == 1:
            return won.max(0) + lost.max(0)
        share = won.sum(0)
        return (_xlogx(won) + _xlogx(lost)).sum(0) - _xlogx(share) - _xlogx(1 - share)  # I(t; outcome) + const.

    def verdict(self, leaf: int = -1) -> Verdict:
        """The likeliest step, or none if that is likelier than all of them; finished if it is as likely as not."""
        belief = self.belief
        step = self.steps + 1 if belief[-1] > 0.5 else int(np.argmax(belief[:-1])) + 1
        probability = float(belief[step - 1])
        finished = bool(self.probes) and probability >= 0.5
        verdict = Verdict(leaf, self.steps, step, finished, self.probes, probability=probability)
        verdict.weights = np.cumsum(belief)[:-1].tolist()
        return verdict

    @property
    def cost(self) -> int:
        return anytime_cost(self.steps, self.probes)


def _xlogx(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.maximum(p, 1e-300))
