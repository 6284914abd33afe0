"""Hugging Face models whose attention follows a plan of ours.

transformers lets a model's attention be any registered function. Ours asks a plan: the engine's plan reads keys and
values from forked caches, the learner's plan lets each node of a tree see its ancestors. Everything else of the model
stays as published, and tokens of many sequences lie side by side in one row, so that no layer computes padding.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from firstfault.errors import UserError

NAME = "firstfault"


class AttentionPlan(Protocol):
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """`query` [N, heads, D], `key` and `value` [N, kv_heads, D] of the N tokens of this pass -> [N, heads, D]."""
        ...


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    plan: AttentionPlan | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    if plan is None:
        raise RuntimeError("this model's attention is planned by firstfault; load it again to call it by itself")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out = plan.attend(module.layer_idx, *(x[0].transpose(0, 1) for x in (query, key, value)), scale)  # type: ignore[arg-type]
    return out[None], None


AttentionInterface.register(NAME, _attention)  # and no mask: for attention it does not know, transformers makes none


def use_planned_attention(model: PreTrainedModel) -> PreTrainedModel:
    """Prepare `model` for `hidden_states`.

    Raises:
        UserError: if the model keeps state that a plan can't fork (recurrent or windowed layers), or transforms
            logits in a way that `logits` or a plan does not know.
    """
    config = model.config.get_text_config()
    name = type(model).__name__
    odd_layers = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if odd_layers or (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)):
        raise UserError(
            f"{name} has layers that are not full attention ({', '.join(sorted(odd_layers)) or 'sliding window'}), "
            "whose state can't be shared between the branches of a tree yet; use a model with full attention "
            "in every layer, such as Qwen2, Qwen3 or Llama."
        )
    odd = ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "logits_scaling")
    scaled = [k for k in odd if getattr(config, k, None)]
    head = model.get_output_embeddings()
    if scaled or not model._supports_attention_backend or not isinstance(head, torch.nn.Linear):
        why = f"it sets {scaled[0]}" if scaled else "its attention or output layer can't be replaced"
        raise UserError(
            f"{name} can't be used: {why}; "
            "use a causal language model with transformers' attention interface, such as Qwen2, Qwen3 or Llama."
        )
    model.set_attn_implementation(NAME)
    return model


def autocast(model: PreTrainedModel) -> torch.autocast:
    """fp32 as it stands on a CPU, bfloat16 on a GPU; sampling and training must agree on it."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.device.type == "cuda")


def hidden_states(model: PreTrainedModel, tokens: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
    """Last hidden states [N, d] of tokens [N] at positions [N], attention as planned."""
    out = model.base_model(input_ids=tokens[None], position_ids=positions[None], use_cache=False, plan=plan)
    return out.last_hidden_state[0]


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits [N, V] of hidden states [N, d]."""
    return model.get_output_embeddings()(hidden)
