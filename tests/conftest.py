"""Shared fixtures: small tokenizers with the special tokens, splitting and chat templates of published models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import trl
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATES = Path(trl.__file__).parent / "chat_templates"
# Text whose merges cross the borders between scaffold and outputs: newlines, spaces, quotes, digits.
CORPUS = [
    'The output of the tool is:\n\n22\n"22"\n{"name": "calc", "arguments": {"value": "1 + 1"}}\n\n\n',
    "user\nassistant\n\nsystem ipython functions commentary\n  the end of the turn.\n\n  indented\n",
    "naïve café 😀 the answer is 42, not 4242: 12 + 12 = 24, 123 * 123 = 15129\n",
] * 8
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = {
    "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "marks": ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"],
    "eos": "<|im_end|>",
    "digits": "",  # one digit a token
}
# The tokens of each family: `special` and `marks` are added tokens, the latter not special; `digits` limits their runs.
FAMILIES = {
    "qwen": QWEN,
    "llama3": {
        "special": [
            *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
            *("<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
        ],
        "marks": [],
        "eos": "<|eot_id|>",
        "bos": "<|begin_of_text|>",
        "digits": "{1,3}",
    },
    "glm4": {
        "special": ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
        "marks": [*QWEN["marks"], "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
        "eos": "<|endoftext|>",
        "digits": "{1,3}",
    },
    "gptoss": {
        "special": ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>", "<|endoftext|>"],
        "marks": [],
        "eos": "<|return|>",
        "digits": "{1,3}",
    },
    "gemma4": {
        "special": [
            *("<bos>", "<eos>", "<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>"),
            *("<|tool_response>", "<tool_response|>", '<|"|>', "<|channel>", "<channel|>"),
        ],
        "marks": [],
        "eos": "<eos>",
        "bos": "<bos>",
        "digits": "",
    },
}


@cache
def _trained(family: str) -> PreTrainedTokenizerFast:
    tokens = FAMILIES[family]
    tokenizer = Tokenizer(models.BPE())
    if family == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT % tokens["digits"]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(tokens["special"])
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in tokens["marks"]])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=tokens["eos"], bos_token=tokens.get("bos"), model_max_length=10**9
    )


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`make_tokenizer(family, template)`: a byte-level BPE tokenizer of 600 tokens and its family's added ones.

    `template` is the name of one of TRL's chat templates, a template of its own (with braces in it), or None. Each
    call gives a tokenizer of its own, so that a test may change it.
    """

    def make(family: str = "qwen", template: str | None = "qwen2_5") -> PreTrainedTokenizerFast:
        tokenizer = copy.deepcopy(_trained(family))
        if template is not None:
            is_source = "{" in template
            tokenizer.chat_template = template if is_source else (CHAT_TEMPLATES / f"{template}.jinja").read_text()
        return tokenizer

    return make
