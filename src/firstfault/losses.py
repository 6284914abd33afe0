"""Losses on the terms of a batch (see `tree.Term`): what a method's credit is turned into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass
class TermBatch:
    """The terms of a micro-batch, one entry per term and token: all tensors are [T].

    A token that carries several terms stands here several times, with one log-probability that was computed once.
    `total_weight` adds up the weights of the whole mini-batch, so that micro-batches add up to its weighted mean.
    `runs` and `trees` number the run that a term is of (-1: of several) and its tree, which are whole in here.
    `reference_logprobs` is there where the method needs the reference policy, `values` [S] and their targets [S] where
    it needs a critic; `total_states` counts those of the mini-batch.
    """

    logprobs: Tensor  # under the policy that is trained
    old_logprobs: Tensor  # under the policy that sampled
    advantages: Tensor
    weights: Tensor
    clip_low: Tensor
    clip_high: Tensor
    total_weight: float
    runs: Tensor | None = None
    trees: Tensor | None = None
    reference_logprobs: Tensor | None = None
    values: Tensor | None = None
    value_targets: Tensor | None = None
    total_states: int = 0

    @property
    def ratios(self) -> Tensor:
        return (self.logprobs - self.old_logprobs).exp()


def clipped_surrogate(batch: TermBatch) -> Tensor:
    """Mean by weight of -min(ρ A, clip(ρ, 1 - ε_low, 1 + ε_high) A) (PPO, Eq. 7; ELPO, Eq. 12).

    >>> def loss(ratio, advantage, low=0.2, high=0.3):
    ...     one = torch.ones(1)
    ...     batch = TermBatch(torch.log(one * ratio), 0 * one, one * advantage, one, one * low, one * high, 1.0)
    ...     return round(clipped_surrogate(batch).item(), 4)
    >>> loss(1.5, +1), loss(1.5, -1)  # a rise that is already large enough is not paid for; a wrong rise is
    (-1.3, 1.5)
    >>> loss(0.5, +1), loss(0.5, -1), loss(0.5, -1, low=0.4)  # a wider lower bound goes on pushing down
    (-0.5, 0.8, 0.6)
    """
    ratios = batch.ratios
    clipped = torch.clamp(ratios, 1 - batch.clip_low, 1 + batch.clip_high)
    gains = torch.minimum(ratios * batch.advantages, clipped * batch.advantages)
    return -(batch.weights * gains).sum() / batch.total_weight


def clipped_with_gradient(batch: TermBatch) -> Tensor:
    """As `clipped_surrogate`, but a good token whose ratio is clipped keeps the gradient (1 + ε_high) A ∇ln π (AEPO).

    >>> logprobs = torch.tensor([0.5], requires_grad=True)  # the ratio is 1.65
    >>> one = torch.ones(1)
    >>> loss = clipped_with_gradient(TermBatch(logprobs, 0 * one, 2 * one, one, 0.2 * one, 0.2 * one, 1.0))
    >>> loss.backward()
    >>> round(loss.item(), 4), round(logprobs.grad.item(), 4)
    (-2.4, -2.4)
    """
    ratios = batch.ratios
    highest = (1 + batch.clip_high) * (batch.logprobs - batch.logprobs.detach()).exp()  # its gradient is its value
    clipped = torch.where(ratios > 1 + batch.clip_high, highest, ratios.clamp(min=1 - batch.clip_low))
    gains = torch.minimum(ratios * batch.advantages, clipped * batch.advantages)
    return -(batch.weights * gains).sum() / batch.total_weight


def negative_log_likelihood(batch: TermBatch) -> Tensor:
    """Mean by weight of -ln π: supervised learning of the actions of a tree."""
    return -(batch.weights * batch.logprobs).sum() / batch.total_weight


def divergence(batch: TermBatch, estimate: Literal["k2", "k3"] = "k3") -> Tensor:
    """Mean by weight of an estimate of KL(policy || reference): k2 is ½ d², k3 is e^d - d - 1, d = ln π_ref - ln π.

    k3 is clamped at 10, as VinePPO has it (arXiv 2410.01679). On runs of the policy, the mean of k3 is the divergence,
    and its gradient that of KL(reference || policy); the gradient of k2 is that of KL(policy || reference).

    >>> zero = torch.zeros(1)
    >>> batch = TermBatch(zero - 1, zero, zero, zero + 1, zero, zero, 1.0, reference_logprobs=zero - 2)
    >>> round(divergence(batch, "k2").item(), 4), round(divergence(batch, "k3").item(), 4)
    (0.5, 0.3679)
    """
    d = batch.reference_logprobs - batch.logprobs
    values = d.square() / 2 if estimate == "k2" else (d.clamp(max=20).exp() - d - 1).clamp(max=10)
    return (batch.weights * values).sum() / batch.total_weight


def value_error(batch: TermBatch) -> Tensor:
    """Half the mean squared error of the critic over the states of the mini-batch; 0 without a critic."""
    if batch.values is None:
        return batch.logprobs.new_zeros(())
    return (batch.values - batch.value_targets).square().sum() / (2 * max(1, batch.total_states))


@dataclass
class RunBatch:
    """The runs of a micro-batch, R of them: what the policy makes more likely of each, and what it is worth."""

    logratios: Tensor  # [R], ln π(run) - ln π_before(run)
    advantages: Tensor  # [R]
    trees: Tensor  # [R]


def by_run(batch: TermBatch, before: Tensor) -> RunBatch:
    """Add up the terms of each run; `before` [T] are the log-probabilities to compare with.

    Raises:
        ValueError: if a term is of no one run.

    >>> ln = torch.tensor([-1.0, -2.0, -3.0])
    >>> advantages, runs, trees = torch.tensor([[5, 5, 7], [4, 4, 9], [0, 0, 0]])
    >>> batch = TermBatch(ln, ln, advantages.float(), ln, ln, ln, 1.0, runs, trees)
    >>> by_run(batch, 2 * ln)
    RunBatch(logratios=tensor([3., 3.]), advantages=tensor([5., 7.]), trees=tensor([0, 0]))
    """
    if (batch.runs < 0).any():
        raise ValueError("a loss over whole runs needs terms that say which run they are of (Term.run)")
    _, run = batch.runs.unique(return_inverse=True)
    number = int(run.max()) + 1
    logratios = (batch.logprobs - before).new_zeros(number).index_add(0, run, batch.logprobs - before)

    def any_of(values: Tensor) -> Tensor:  # equal within a run
        return values.new_zeros(number).scatter(0, run, values)

    return RunBatch(logratios, any_of(batch.advantages), any_of(batch.trees))
