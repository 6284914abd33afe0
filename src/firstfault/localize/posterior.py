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

    A completion that begins by repeating steps of the failed run says more: it is a try after all of these steps. So
    are other runs of the task (`learn`), as far as they agree with it. Let a_j of those that came past step j repeat
    step j + 1, and of the others s_j succeed and f_j fail; each kind of hypothesis says how likely that is, with
    the chance π_j of a repetition from Beta(½, ½):

        t > j + 1    repetition π_j, success r_j of the rest
        t = j + 1    success r_j, and none of it by repeating the fault; failures repeat it with π_j
        t <= j       repetition π_j, success `leak` of the rest

    So a success after step j rules out all t <= j, and failures that repeat a step without exception accuse it.

    Ours: no paper.

    Args:
        steps: K.
        prior: of t = 1 .. K, up to a factor; uniform by default.
        none: prior probability that no step is irrecoverable.
        leak: success probability after the first irrecoverable step: lucky guesses, errors of the judge.
        spread: κ; infinite if all good prefixes recover at the same rate.
        stop: probability at which the answer is sure.
    """

    asks_ahead = True

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
        self.leak, self.spread, self.stop = leak, min(spread, 1e9), stop
        self.rates = np.array(RATES)
        shape = np.ones(steps) if prior is None else np.asarray(prior, float)
        joint = np.outer(np.append((1 - none) * shape / shape.sum(), none), np.ones(len(RATES)) / len(RATES))
        joint[-1] *= 1 - self.rates  # were no step irrecoverable, this run is a failure after all of them
        self.joint = joint / joint.sum()  # [K + 1, G]
        # of the completions that came past step j = 0 .. K by themselves
        self.tried, self.succeeded = np.zeros(steps + 1), np.zeros(steps + 1)
        self.repeated, self.won, self.lost = np.zeros((3, steps + 1))  # a_j, s_j, f_j
        self.good = np.arange(1, steps + 2)[:, None] > np.arange(1, steps + 1)  # [K + 1, K], t > m

    @property
    def belief(self) -> np.ndarray:
        """P(t), [K + 1]."""
        return self.joint.sum(1)

    def ask(self, remaining: int) -> tuple[int, int] | None:
        if not self.steps:
            return None
        best = self.verdict()
        if best.step == 1 and best.probability >= 0.5 and not self.succeeded.any():
            return 0, 1  # is it the step, or does this task hardly ever succeed?
        if best.probability >= self.stop and self.tried[min(best.step, self.steps) :].any():  # not by the prior alone
            before = best.step - 1
            contrast = sum(probe.successes for probe in self.probes if probe.step == before)
            return (before, 1) if before < self.steps and contrast < 2 else None
        return int(np.argmax(self._gain(remaining))) + 1, 1

    def tell(self, step: int, outcomes: Sequence[bool], agreed: Sequence[int | None] = ()) -> None:
        super().tell(step, outcomes)
        for number, success in enumerate(outcomes):
            self.learn(step, success, agreed[number] if agreed else None)

    def learn(self, step: int, success: bool, agreed: int | None) -> None:
        end = step if agreed is None else agreed
        for j in range(step, end):  # it repeats step j + 1, and fails for that if t = j + 1
            a, s, f = self.repeated[j], self.won[j], self.lost[j]
            self.joint[j] *= (1 - self._rate(s, a + s + f)) * (a + s + f + 1) / (a + f + 1)
            self.repeated[j] += 1
        a, s, f = self.repeated[end], self.won[end], self.lost[end]
        at_fault = self.joint[end].copy()  # t = end + 1
        rate = self._rate(s, s + f)
        self.joint[:end] *= self.leak if success else 1 - self.leak
        self.joint[end:] *= rate if success else 1 - rate
        if agreed is not None and end < self.steps:  # it goes another way than step end + 1
            rate = self._rate(s, a + s + f)
            at_fault *= rate if success else (1 - rate) * (f + 0.5) / (a + f + 1)
            self.joint[end] = at_fault * (a + s + f + 1) / (s + f + 0.5)
        self.won[end] += success
        self.lost[end] += not success
        self.tried[step : end + 1] += 1
        self.succeeded[step : end + 1] += success
        self.joint /= self.joint.sum()

    def _rate(self, successes: np.ndarray | float, tries: np.ndarray | float) -> np.ndarray:
        """r for every q on the grid, where so many tries had so many successes."""
        return (self.spread * self.rates + successes) / (self.spread + tries)

    def _gain(self, remaining: int) -> np.ndarray:
        """What a try after step m = 1 .. K is worth, [K]."""
        belief = self.belief
        entropy = -_xlogx(belief).sum() / np.log(2)
        times = np.clip(2 * remaining / max(entropy, 1e-9), 1, 8) if remaining > 1 else 1.0
        rates = self._rate(self.succeeded[1:, None], self.tried[1:, None])  # [K, G]
        rates = 1 - (1 - rates) ** times  # of a success in so many tries
        leak = 1 - (1 - self.leak) ** times
        won = np.where(self.good, self.joint @ rates.T, leak * belief[:, None])  # P(t, success), [K + 1, K]
        lost = belief[:, None] - won
        if remaining == 1:
            return won.max(0) + lost.max(0)
        share = won.sum(0)
        return (_xlogx(won) + _xlogx(lost)).sum(0) - _xlogx(share) - _xlogx(1 - share)  # I(t; outcome) + const.

    def verdict(self, leaf: int = -1) -> Verdict:
        """The likeliest step, or none if that is likelier than all of them.

        It is finished if that is as likely as not, and any run has succeeded: of a task that always fails, nothing can
        be said.
        """
        belief = self.belief
        step = self.steps + 1 if belief[-1] > 0.5 else int(np.argmax(belief[:-1])) + 1
        probability = float(belief[step - 1])
        finished = bool(self.succeeded.any()) and probability >= 0.5
        verdict = Verdict(leaf, self.steps, step, finished, self.probes, probability=probability)
        verdict.weights = np.cumsum(belief)[:-1].tolist()
        return verdict

    @property
    def cost(self) -> int:
        return anytime_cost(self.steps, self.probes)


def _xlogx(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.maximum(p, 1e-300))
