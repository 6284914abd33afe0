"""A tiny policy that learns within minutes on a CPU: a Qwen3 of 0.6M parameters, its tokenizer, its chat template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from firstfault.tasks.base import call_text
from firstfault.tools.arguments import Schema

ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
END, PAD = "<|end|>", "<|pad|>"
VOCABULARY = 384  # tokens, before the frames of calls
TEMPLATE = (
    "{%- if tools %}{{ '<|system|>' }}{% for tool in tools %}{{ tool.function.name }}"
    "({{ tool.function.parameters.properties | join(', ') }}) {% endfor %}{{ '<|end|>' }}{% endif %}"
    "{%- for message in messages %}{{ '<|' + message.role + '|>' + (message.content or '') }}"
    "{%- for call in message.tool_calls or [] %}"
    "{{ '<tool_call>' + ((call.function or call) | tojson) + '</tool_call>' }}"
    "{%- endfor %}{{ '<|end|>' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def call_frames(schema: Schema) -> list[str]:
    """What stands around the argument of a call, for a function of one argument.

    >>> call_frames({"function": {"name": "python", "parameters": {"properties": {"code": {"type": "string"}}}}})
    ['<tool_call>{"name": "python", "arguments": {"code": "', '"}}</tool_call>']
    """
    function = schema["function"]
    arguments = list(function["parameters"]["properties"])
    if len(arguments) != 1:
        return []
    return call_text(function["name"], {arguments[0]: "|"}).split("|")


def tiny_tokenizer(texts: Iterable[str], schemas: Sequence[Schema] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from `texts`; single digits, and the frames of calls as one token at each end."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[PAD, END, *ROLES], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=PAD)
    tokenizer.add_tokens([frame for schema in schemas for frame in call_frames(schema)])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model(vocab_size: int, end: int, seed: int, *, width: int = 128, layers: int = 3) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=vocab_size, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=1, head_dim=32, max_position_embeddings=1024,
        tie_word_embeddings=True, rope_theta=10000.0, eos_token_id=end, pad_token_id=0,
    ))  # fmt: skip
