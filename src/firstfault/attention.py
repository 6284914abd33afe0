"""Hugging Face models whose attention follows a plan of ours.

transformers lets a model's attention be any registered function. Ours asks a plan: the engine's plan reads keys and
values from forked caches, the learner's plan lets each node of a tree see its ancestors. Everything else of the model
stays as published, and tokens of many sequences lie side by side in one row, so that no layer computes padding.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
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
        UserError: if the model keeps state that a plan can't fork (recurrent or windowed layers), or does not compute
            the same with a plan, for it transforms queries, keys or logits in a way that is not known here.
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
    if model.config._attn_implementation != NAME:
        _try(model)
    return model


class _Causal:
    """Plain attention of one sequence, and what all plans take for granted."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        if not query.shape[-1] == key.shape[-1] == value.shape[-1]:
            raise RuntimeError(f"values of {value.shape[-1]} numbers to keys of {key.shape[-1]}")
        query, key, value = (x.transpose(0, 1)[None] for x in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
        return out[0].transpose(0, 1)


@torch.no_grad()
def _try(model: PreTrainedModel) -> None:
    """Give the model a planned attention, and see that it computes what it did."""
    tokens = torch.arange(8, device=model.device) % model.config.get_text_config().vocab_size
    own = model(input_ids=tokens[None], use_cache=False).logits[0].float()
    model.set_attn_implementation(NAME)
    try:
        ours = logits(model, hidden_states(model, tokens, torch.arange(8, device=model.device), _Causal())).float()
        why = "" if torch.allclose(ours, own, rtol=0.05, atol=0.05 * float(own.std())) else "its logits are others"
    except (RuntimeError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
    if why:
        raise UserError(
            f"{type(model).__name__} can't be used, its attention is not plain ({why[:200]}); use a causal language "
            "model with full attention in every layer, such as Qwen2, Qwen3 or Llama."
        )


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
