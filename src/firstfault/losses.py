"""Losses on the terms of a batch (see `tree.Term`): what a method's credit is turned into."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class TermBatch:
    """The terms of a micro-batch, one entry per term and token: all tensors are [T].

    A token that carries several terms stands here several times, with one log-probability that was computed once.
    `total_weight` adds up the weights of the whole mini-batch, so that micro-batches add up to its weighted mean.
    """

    logprobs: Tensor  # under the policy that is trained
    old_logprobs: Tensor  # under the policy that sampled
    advantages: Tensor
    weights: Tensor
    clip_low: Tensor
    clip_high: Tensor
    total_weight: float

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
    kept = (1 + batch.clip_high) * ratios / ratios.detach()
    over = (batch.advantages > 0) & (ratios > 1 + batch.clip_high)
    clipped = torch.clamp(ratios, 1 - batch.clip_low, 1 + batch.clip_high)
    gains = torch.minimum(ratios * batch.advantages, clipped * batch.advantages)
    gains = torch.where(over, kept * batch.advantages, gains)
    return -(batch.weights * gains).sum() / batch.total_weight


def negative_log_likelihood(batch: TermBatch) -> Tensor:
    """Mean by weight of -ln π: supervised learning of the actions of a tree."""
    return -(batch.weights * batch.logprobs).sum() / batch.total_weight
