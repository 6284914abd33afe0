"""Models and tokenizers from a folder or the Hub, with a sentence for whatever can go wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from firstfault.errors import UserError
from firstfault.files import hash_of
from firstfault.run_folder import RunFolder

logging.disable_progress_bar()  # a bar per file of weights would tear ours apart


def pick_device(setting: str = "auto") -> str:
    """Where a model computes, cpu or cuda; `auto` is a CUDA GPU where there is one (others lack float64).

    Raises:
        UserError: if it should be a CUDA GPU, and there is none.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise UserError("device = cuda, but this torch finds no CUDA GPU; install one that does, or set device = cpu.")
    return "cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu"


def use_threads(threads: int) -> None:
    """Compute in so many threads, on which the last bits depend; 0 leaves it to torch."""
    if threads:
        torch.set_num_threads(threads)


def load_policy(name: str, device: torch.device | str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer. Weights are fp32: on a GPU, passes run in bfloat16 over them."""
    folder = Path(name)
    if (folder / "checkpoints").is_dir() and not (folder / "config.json").exists():
        _, newest = RunFolder(folder).last_checkpoint() or (0, RunFolder(folder).checkpoint(0))
        raise UserError(f"{name} is the folder of a run; give one of its checkpoints, such as {newest}.")
    if not folder.exists() and (folder.is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise UserError(f"there is no folder {name}; give one written by save_pretrained, or an id of the Hub.")
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # tokenizers raises bare ones, and torch whatever a broken file leads it to
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"the model {name!r} can't be loaded ({reason[:200]}); give a folder written by save_pretrained, the id "
            "of a causal language model on the Hugging Face Hub, or tiny."
        ) from error
    return model.to(device).eval(), tokenizer


def weights(folder: str) -> list[Path]:
    """The files of a model's weights; none where it is no folder."""
    return sorted(file for kind in ("*.safetensors", "*.bin") for file in Path(folder).glob(kind))


def version(name: str) -> str:
    """A model's name, and of a folder also a hash of its weights."""
    hashes = [hash_of(file) for file in weights(name)]
    return f"{name} (weights {hashlib.sha256(str(hashes).encode()).hexdigest()[:8]})" if hashes else name
