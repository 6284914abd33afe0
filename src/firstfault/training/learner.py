"""The learner: turns the terms on trees into updates of the policy. It knows no method."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from firstfault.attention import autocast, hidden_states, use_planned_attention
from firstfault.config import LearnerConfig, OptimizerConfig
from firstfault.errors import UserError
from firstfault.losses import TermBatch
from firstfault.training.metrics import means, measure
from firstfault.training.pack import Packed, pack, unique_tokens
from firstfault.training.score import score
from firstfault.tree import Tree

Loss = Callable[[TermBatch], Tensor]


class Learner:
    """Trains `model` in place; its attention is replaced by ours.

    `temperature` is that of sampling, so that ratios compare like with like. With a `critic_step`, a critic
    is trained, too: a linear head that tells the value of a state from the model's last hidden state, and starts at 0.
    An update moves a value by about `critic_step` at most: the hidden state's parts are about 1, and AdamW moves a
    weight by its learning rate.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer: OptimizerConfig,
        config: LearnerConfig,
        *,
        temperature: float = 1.0,
        critic_step: float | None = None,
    ):
        self.model = use_planned_attention(model)
        self.config = config
        self.max_grad_norm = optimizer.max_grad_norm
        self.temperature = temperature
        self.optimizers = _optimizers(model, optimizer)
        self.critic: torch.nn.Linear | None = None
        if critic_step:
            width = model.config.get_text_config().hidden_size
            self.critic = torch.nn.Linear(width, 1, device=model.device)
            torch.nn.init.zeros_(self.critic.weight)
            torch.nn.init.zeros_(self.critic.bias)
            self.optimizers[-1].add_param_group({"params": list(self.critic.parameters()), "lr": critic_step / width})
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["initial_lr"] = group["lr"]

    def scale_lr(self, scale: float) -> None:
        """Set all learning rates to `scale` times what was configured."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = scale * group["initial_lr"]

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def state(self) -> dict[str, Any]:
        critic = {"critic": self.critic.state_dict()} if self.critic else {}
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers], **critic}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over the optimizers' moments; learning rates and decay stay as configured here."""
        if self.critic:
            self.critic.load_state_dict(state["critic"])
        if len(state["optimizers"]) != len(self.optimizers):
            raise UserError("the checkpoint was written with another optimizer; set optimizer.name as it was.")
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            configured = [dict(group, params=None) for group in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            for group, own in zip(optimizer.param_groups, configured, strict=True):
                group.update(own, params=group["params"])

    def update(
        self, trees: Sequence[Tree], loss: Loss, seed: tuple[int, ...] = (), *, ties: bool = False
    ) -> dict[str, float]:
        """Train on a batch: `epochs` times over its trees in an order drawn from `seed`, an update per mini-batch.

        Trees that carry no credit are left out; mini-batches without any gradient are skipped. With `ties`, the loss
        has a gradient where all advantages of a tree are 0, too.

        Returns:
            Means over action tokens (`entropy`), over terms and their tokens (`kl_*`, `ratio_*`, `clip_*`), over states
            (`value_error`), over updates (`loss`, `gradient_norm`), and counts.
        """
        sums: dict[str, float] = defaultdict(float)
        order = random.Random(str(seed))
        trees = [tree for tree in trees if tree.is_credited]  # the others take no place in a mini-batch
        for _ in range(self.config.epochs):
            shuffled = list(trees)
            order.shuffle(shuffled)
            for mini_batch in mini_batches(shuffled, self.config):
                self._step(mini_batch, loss, ties, sums)
        return means(sums)

    def _step(self, trees: list[Tree], loss: Loss, ties: bool, sums: dict[str, float]) -> None:
        total = total_weight(trees)
        states = sum(node.value_target is not None for tree in trees for node in tree.nodes)
        trees = [tree for tree in trees if ties or tree.has_gradient]  # the others count in the totals only
        if not trees:
            sums["skipped_updates"] += 1
            return
        for batch in micro_batches(trees, self.config.max_tokens):
            packed = pack(batch, self.model.device)
            with autocast(self.model):
                hidden = self.hidden(packed)
                logprobs, entropies = self.logprobs(packed, hidden)
            terms = term_batch(packed, logprobs, total)
            if self.critic:
                targets = [node.value_target for node in packed.state_nodes]
                learns = torch.tensor([target is not None for target in targets], device=hidden.device)
                terms.values = self.critic(hidden[packed.states[learns]].float())[:, 0]
                terms.value_targets = terms.values.new_tensor([target for target in targets if target is not None])
                terms.total_states = states
            value = loss(terms)
            value.backward()
            sums["loss"] += value.item()
            sums["trained_tokens"] += len(packed.tokens)
            measure(terms, packed, entropies, sums)
        critic = self.critic.parameters() if self.critic else ()
        norm = torch.nn.utils.clip_grad_norm_([*self.model.parameters(), *critic], self.max_grad_norm)
        if not norm.isfinite():
            raise UserError(
                f"the gradient is {norm.item()}: training diverged, and the newest checkpoint is from before; go on "
                "from it with a lower learning rate."
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        sums["gradient_norm"] += norm.item()
        sums["updates"] += 1

    @torch.no_grad()
    def refer(self, trees: Sequence[Tree], weights: dict[str, Tensor]) -> None:
        """Write on each step of the trees how likely its action is with other weights of the model."""
        with holding(self.model, weights):
            for batch in micro_batches(trees, self.config.max_tokens):
                packed = pack(batch, self.model.device)
                with autocast(self.model):
                    logprobs, _ = self.logprobs(packed, self.hidden(packed))
                parts = logprobs.float().cpu().split([len(step.action_tokens) for step in packed.steps])
                for step, part in zip(packed.steps, parts, strict=True):
                    step.reference_logprobs = part.tolist()

    @torch.no_grad()
    def value(self, trees: Sequence[Tree]) -> None:
        """Write the critic's value on each node after which runs go on."""
        for batch in micro_batches(trees, self.config.max_tokens):
            packed = pack(batch, self.model.device)
            with autocast(self.model):
                hidden = self.hidden(packed)[packed.states]
            for node, value in zip(packed.state_nodes, self.critic(hidden.float())[:, 0].tolist(), strict=True):
                node.value = value

    def hidden(self, packed: Packed) -> Tensor:
        """Last hidden states [N, d]."""
        return hidden_states(self.model, packed.tokens, packed.plan.positions, packed.plan)

    def logprobs(self, packed: Packed, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [A] of the action tokens, with gradient, and entropies [A] (nats) without."""
        hidden = F.embedding(packed.predicted_by, hidden)
        return score(self.model.get_output_embeddings(), hidden, packed.targets, self.temperature)


@contextmanager
def holding(model: PreTrainedModel, weights: dict[str, Tensor]) -> Iterator[None]:
    """The model with other weights for a while, in the place of its own; nothing is copied."""

    def swap() -> None:
        for name, parameter in model.named_parameters():  # tied ones once
            parameter.data, weights[name] = weights[name], parameter.data

    swap()
    try:
        yield
    finally:
        swap()


def total_weight(trees: Sequence[Tree]) -> float:
    """Of all terms, token by token: what the loss of a mini-batch is divided by."""
    return sum(term.weight * len(node.action_tokens) for tree in trees for node in tree.nodes for term in node.terms)


def term_batch(packed: Packed, logprobs: Tensor, total_weight: float) -> TermBatch:
    return TermBatch(
        logprobs=logprobs[packed.term_token],
        old_logprobs=packed.old_logprobs[packed.term_token],
        advantages=packed.advantages,
        weights=packed.weights,
        clip_low=packed.clip_low,
        clip_high=packed.clip_high,
        total_weight=total_weight,
        runs=packed.term_run,
        trees=packed.term_tree,
        reference_logprobs=packed.reference_logprobs[packed.term_token] if len(packed.reference_logprobs) else None,
    )


def mini_batches(trees: Sequence[Tree], config: LearnerConfig) -> list[Sequence[Tree]]:
    """The trees of each update: `parts` of them, as equal as can be, or else `mini_batch` trees each.

    >>> [len(part) for part in mini_batches([None] * 10, LearnerConfig(mini_batch=4))]
    [4, 4, 2]
    >>> [len(part) for part in mini_batches([None] * 10, LearnerConfig(parts=2))]
    [5, 5]
    """
    if not config.parts:
        return [trees[i : i + config.mini_batch] for i in range(0, len(trees), config.mini_batch)]
    bounds = [len(trees) * part // config.parts for part in range(config.parts + 1)]
    return [trees[low:high] for low, high in pairwise(bounds) if low < high]


def micro_batches(trees: Sequence[Tree], max_tokens: int) -> Iterator[list[Tree]]:
    """Group trees, the largest first, so that no group has more than `max_tokens` unless it is a single tree."""
    batch: list[Tree] = []
    tokens = 0  # of the batch
    for size, tree in sorted(((unique_tokens(tree), tree) for tree in trees), key=lambda pair: pair[0], reverse=True):
        if batch and tokens + size > max_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(tree)
        tokens += size
    if batch:
        yield batch


def _optimizers(model: PreTrainedModel, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    adamw = partial(torch.optim.AdamW, lr=config.lr, weight_decay=config.weight_decay)
    if config.name == "adamw":
        return [adamw(parameters)]
    outer = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    hidden = [p for p in parameters if p.ndim == 2 and id(p) not in outer]
    inside = {id(p) for p in hidden}
    muon = torch.optim.Muon(hidden, lr=config.muon_lr, weight_decay=config.weight_decay)
    return [muon, adamw([p for p in parameters if id(p) not in inside])]
