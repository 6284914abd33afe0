"""The losses, against their definitions."""

import pytest
import torch

from firstfault.losses import TermBatch, clipped_surrogate, divergence, negative_log_likelihood


def batch(ratios, advantages, weights=None, low=0.2, high=0.3, total=1.0) -> TermBatch:
    """Terms with these ratios under a sampler of probability .5."""
    n = len(ratios)
    old = torch.full((n,), 0.5, dtype=torch.double).log()
    logprobs = (old + torch.tensor(ratios, dtype=torch.double).log()).requires_grad_()
    column = lambda x: torch.tensor(x if isinstance(x, list) else [x] * n, dtype=torch.double)  # noqa: E731
    return TermBatch(logprobs, old, column(advantages), column(weights or 1.0), column(low), column(high), total)


# ratio, advantage, clip_low, gain, and whether the gradient passes
GAINS = [
    (1.0, +2.0, 0.2, +2.0, True),
    (1.0, -2.0, 0.2, -2.0, True),
    (1.25, +1.0, 0.2, +1.25, True),
    (1.4, +1.0, 0.2, +1.3, False),  # raised far enough
    (1.4, -1.0, 0.2, -1.4, True),  # raised, though it should fall: pulled back from any distance
    (0.85, -1.0, 0.2, -0.85, True),
    (0.7, -1.0, 0.2, -0.8, False),  # pushed down far enough
    (0.7, -1.0, 0.315, -0.7, True),  # not yet, within a wider bound
    (0.6, -1.0, 0.315, -0.685, False),
    (0.7, +1.0, 0.2, +0.7, True),
    (0.7, +1.0, 0.315, +0.7, True),  # which a positive advantage doesn't see
    (3.0, 0.0, 0.2, 0.0, False),
    (0.01, -1.0, 1.2, -0.01, True),  # a bound below zero never binds
]


@pytest.mark.parametrize(("ratio", "advantage", "low", "gain", "passes"), GAINS)
def test_the_clipped_surrogate_and_where_its_gradient_passes(ratio, advantage, low, gain, passes):
    terms = batch([ratio], [advantage], low=low)
    loss = clipped_surrogate(terms)
    assert loss.item() == pytest.approx(-gain)
    loss.backward()
    assert terms.logprobs.grad.item() == pytest.approx(-advantage * ratio if passes else 0.0)


def test_a_sum_of_clipped_terms_is_not_the_clipped_term_of_the_sum():
    apart = clipped_surrogate(batch([1.5, 1.5], [+1.0, -1.0]))
    together = clipped_surrogate(batch([1.5], [0.0]))
    assert apart.item() == pytest.approx(0.2) and together.item() == 0


def test_terms_count_by_weight_and_bounds_are_their_own():
    terms = batch(
        [0.5, 0.5, 2.0], [-1.0, -1.0, 1.0], weights=[1.0, 2.0, 3.0], low=[0.2, 0.4, 0.2], high=[0.3, 0.3, 0.5]
    )
    assert clipped_surrogate(terms).item() == pytest.approx(1 * 0.8 + 2 * 0.6 - 3 * 1.5)


@pytest.mark.parametrize("loss", [clipped_surrogate, negative_log_likelihood])
def test_micro_batches_add_up_to_the_mean_of_the_mini_batch(loss):
    ratios, advantages, weights = [0.5, 1.0, 1.2, 2.0], [1.0, -1.0, 0.5, -2.0], [1.0, 0.5, 0.25, 2.0]
    whole = loss(batch(ratios, advantages, weights, total=sum(weights)))
    parts = [
        loss(batch(ratios[part], advantages[part], weights[part], total=sum(weights)))
        for part in (slice(0, 1), slice(1, 4))
    ]
    assert whole.item() == pytest.approx(sum(part.item() for part in parts))


def test_negative_log_likelihood_sees_neither_advantages_nor_bounds():
    terms = batch([1.0, 0.5], [5.0, -7.0], weights=[1.0, 3.0], total=4.0)
    log_half, log_quarter = torch.tensor([0.5, 0.25]).log().tolist()
    assert negative_log_likelihood(terms).item() == pytest.approx(-(log_half + 3 * log_quarter) / 4)


def expected(estimate: str, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The mean of an estimate over the actions of a policy, which are weighed by their probabilities."""
    logprobs = logits.log_softmax(-1)
    weights, zero = logprobs.exp().detach(), torch.zeros_like(logprobs)
    terms = TermBatch(logprobs, logprobs.detach(), zero, weights, zero, zero, 1.0, reference_logprobs=reference)
    return divergence(terms, estimate)


@pytest.mark.parametrize("estimate", ["k2", "k3"])
def test_what_estimates_of_the_divergence_expect(estimate):
    logits = torch.tensor([0.3, -1.0, 0.7, 0.0], dtype=torch.double, requires_grad=True)
    reference = torch.tensor([0.5, 0.2, -0.4, 0.1], dtype=torch.double).log_softmax(-1)
    forward = (reference.exp() * (reference - logits.log_softmax(-1))).sum()
    reverse = (logits.log_softmax(-1).exp() * (logits.log_softmax(-1) - reference)).sum()
    mean = expected(estimate, logits, reference)
    if estimate == "k3":
        assert mean.item() == pytest.approx(reverse.item())
    [gradient] = torch.autograd.grad(mean, logits)
    [exact] = torch.autograd.grad(reverse if estimate == "k2" else forward, logits)
    torch.testing.assert_close(gradient, exact)


@pytest.mark.parametrize("distance", [3.0, 30.0, 1000.0])
def test_k3_is_clamped_and_its_gradient_stays_finite(distance):
    logprobs = torch.tensor([-distance, distance], requires_grad=True)
    zero = torch.zeros(2)
    terms = TermBatch(logprobs, zero, zero, zero + 1, zero, zero, 2.0, reference_logprobs=zero)
    loss = divergence(terms, "k3")
    loss.backward()
    assert loss.item() <= 10 and logprobs.grad.isfinite().all()
