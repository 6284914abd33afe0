"""Log-probabilities and entropies of tokens from hidden states, without ever holding vocabulary x tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits that stand in memory at once: on a CPU what its caches hold, on a GPU what keeps it busy. But rows enough that
# a chunk's product is worth the pass over the gradient of the weights.
LOGITS = {"cpu": 2**20, "cuda": 2**26}
MIN_ROWS = 128


def score(head: torch.nn.Linear, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """What softmax(head(hidden) / temperature) says.

    Args:
        hidden: [A, d].
        targets: [A].

    Returns:
        Log-probabilities of the targets [A], with gradient, and entropies [A] (nats) without. Both are float32.
    """
    return _Score.apply(hidden, head.weight, head.bias, targets, temperature)


class _Score(torch.autograd.Function):
    """Rows are taken chunk by chunk, and their logits computed once more going backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature = temperature
        ctx.dtype = F.linear(hidden[:1], weight, bias).dtype  # autocast's, which is over when the gradient is taken
        logprobs, entropies = torch.empty(2, len(hidden), device=hidden.device)
        for rows, logits in _logits(ctx, hidden, weight, bias):
            distribution = torch.log_softmax(logits, -1)
            logprobs[rows] = distribution.gather(-1, targets[rows, None])[:, 0]
            entropies[rows] = -torch.linalg.vecdot(distribution.exp(), distribution)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """d ln p_target / d logit_v = (1[v = target] - p_v) / temperature."""
        hidden, weight, bias, targets = ctx.saved_tensors
        gradient = gradient[:, None] / ctx.temperature
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        cast = weight.to(ctx.dtype)
        for rows, logits in _logits(ctx, hidden, weight, bias):
            of_logits = torch.softmax(logits, -1).mul_(-gradient[rows])
            of_logits = of_logits.scatter_add_(1, targets[rows, None], gradient[rows]).to(ctx.dtype)
            of_hidden[rows] = of_logits @ cast
            if of_weight is not None and weight.dtype == ctx.dtype:
                of_weight.addmm_(of_logits.T, hidden[rows].to(ctx.dtype))
            elif of_weight is not None:
                of_weight += of_logits.T @ hidden[rows].to(ctx.dtype)
            if of_bias is not None:
                of_bias += of_logits.sum(0)
        return of_hidden, of_weight, of_bias, None, None


def _logits(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """A chunk of rows, and their logits over the temperature [rows, V], float32."""
    weight, bias = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
    step = max(MIN_ROWS, LOGITS[hidden.device.type] // len(weight))
    for start in range(0, len(hidden), step):
        rows = slice(start, start + step)
        yield rows, F.linear(hidden[rows].to(ctx.dtype), weight, bias).float().div_(ctx.temperature)
