"""Shared fixtures: tiny models, and small tokenizers with the special tokens, splitting and chat templates of published
models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
import trl
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

torch.set_num_threads(1)  # more would spin wherever the machine has something else to do

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


ARCHITECTURES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),  # biases on queries, keys and values
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),  # norms on queries and keys
    "llama": (LlamaConfig, LlamaForCausalLM),
}


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """`make_model(architecture, **config)`: 2 layers of width 32, 4 query heads on 2 key heads, float32.

    Equal arguments give equal weights, in a model of its own. They are large enough that every token changes what
    follows visibly: a wrong position or mask can't hide in rounding.
    """

    def make(architecture: str = "qwen3", seed: int = 0, **config: object) -> PreTrainedModel:
        config_class, model_class = ARCHITECTURES[architecture]
        options = {
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
            "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
        }  # fmt: skip
        model = model_class(config_class(**options | config)).eval()
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0, 0.3, generator=noise)
                else:  # norms and biases, around what they start at
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
        return model

    return make


# Its reward is what no policy lacks both ways, however untaught: so there is something to learn, and to search for.
PARITY = """
from firstfault.tasks import Arithmetic


class Parity(Arithmetic):
    async def judge(self, task, answer, session):
        success = len(answer) % 2 == 0
        return success, float(success)
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of tiny policies, instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("FIRSTFAULT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_policy(cache: Path) -> Path:
    """The folder of a policy of one layer, taught for a second: it calls its tool, and is no good."""
    from firstfault.config import ColdStartConfig
    from firstfault.tasks import Arithmetic
    from firstfault.training.cold_start import cold_start

    config = ColdStartConfig(steps=80, batch=16, width=32, layers=1)
    return cold_start(Arithmetic(operations_min=1, operations_max=2), config)


@pytest.fixture(scope="session")
def flags(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`firstfault train` with these takes a tenth of a second an iteration."""
    source = tmp_path_factory.mktemp("tasks") / "parity.py"
    source.write_text(PARITY)
    return [
        *("--model", str(tiny_policy), "--tasks", f"{source}:Parity", "--threads", "1"),
        *("--tasks.operations-min", "1", "--tasks.operations-max", "2"),
        *("--batch", "4", "--learner.mini-batch", "2", "--optimizer.lr", "1e-3", "--steps", "2"),
        *("--agent.max-new-tokens", "32", "--agent.max-steps", "4", "--agent.max-context", "256"),
        *("--evaluation.problems", "2", "--evaluation.samples", "1"),
    ]
