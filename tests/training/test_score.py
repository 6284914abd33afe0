"""Log-probabilities and entropies by chunks, against the textbook."""

import pytest
import torch

from firstfault.training import score as module
from firstfault.training.score import score


def textbook(head, hidden, targets, temperature):
    distribution = torch.log_softmax(head(hidden).float() / temperature, -1)
    entropies = -(distribution.exp() * distribution).sum(-1)
    return distribution.gather(-1, targets[:, None])[:, 0], entropies


def gradients(function, head, hidden, targets, temperature, weights):
    head.zero_grad()
    hidden = hidden.clone().requires_grad_()
    logprobs, entropies = function(head, hidden, targets, temperature)
    (logprobs * weights).sum().backward()
    return [logprobs.detach(), entropies.detach(), hidden.grad, *(p.grad for p in head.parameters())]


@pytest.fixture
def case():
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 100)
    return head, 3 * torch.randn(300, 16), torch.randint(100, (300,)), torch.randn(300)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("logits", [1, 20_000, 10**6])
def test_values_and_gradients_are_the_textbook_s(case, monkeypatch, bias, temperature, logits):
    monkeypatch.setattr(module, "LOGITS", {"cpu": logits})
    head, hidden, targets, weights = case
    if not bias:
        head.bias = None
    ours = gradients(score, head, hidden, targets, temperature, weights)
    expected = gradients(textbook, head, hidden, targets, temperature, weights)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_under_autocast_gradients_are_near_those_in_full_precision(case):
    head, hidden, targets, weights = case

    def halved(*arguments):
        with torch.autocast("cpu", torch.bfloat16):
            return score(*arguments)

    ours = gradients(halved, head, hidden, targets, 1.0, weights)
    expected = gradients(textbook, head, hidden, targets, 1.0, weights)
    assert {tensor.dtype for tensor in ours} == {torch.float32}
    for mine, theirs in zip(ours, expected, strict=True):
        assert (mine - theirs).norm() < 0.01 * theirs.norm()
        assert not torch.equal(mine, theirs)  # it was bfloat16


def test_a_frozen_head_and_no_rows_are_fine(case):
    head, hidden, targets, _ = case
    head.requires_grad_(False)
    hidden = hidden.requires_grad_()
    score(head, hidden, targets)[0].sum().backward()
    assert head.weight.grad is None and hidden.grad.norm() > 0
    assert [x.shape for x in score(head, hidden[:0], targets[:0])] == [(0,), (0,)]


def test_a_distribution_that_is_all_but_certain_has_no_entropy():
    head = torch.nn.Linear(1, 3, bias=False)
    head.weight.data = torch.tensor([[1000.0], [0.0], [-1000.0]])
    logprobs, entropies = score(head, torch.ones(2, 1), torch.tensor([0, 2]))
    assert logprobs.tolist() == [0, -2000] and entropies.tolist() == [0, 0]
