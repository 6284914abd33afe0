"""Models and tokenizers from a folder or the Hub, with a sentence for whatever can go wrong."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from firstfault.errors import UserError

logging.disable_progress_bar()  # a bar per file of weights would tear ours apart


def load_policy(name: str, device: torch.device | str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer. Weights are fp32: on a GPU, passes run in bfloat16 over them."""
    folder = Path(name)
    if (folder / "checkpoints").is_dir() and not (folder / "config.json").exists():
        raise UserError(f"{name} is the folder of a run; give one of its checkpoints, such as {_newest(folder)}.")
    if not folder.exists() and (folder.is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise UserError(f"there is no folder {name}; give one written by save_pretrained, or an id of the Hub.")
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"the model {name!r} can't be loaded ({reason[:200]}); give a folder written by save_pretrained, the id "
            "of a causal language model on the Hugging Face Hub, or tiny."
        ) from error
    return model.to(device).eval(), tokenizer


def _newest(run: Path) -> Path:
    whole = [path for path in (run / "checkpoints").iterdir() if path.suffix != ".part"]
    return max(whole, default=run / "checkpoints" / "step-0000")


def version(name: str) -> str:
    """A model's name, and of a folder also the time and size of its weights: what changes when they do."""
    files = sorted(Path(name).glob("*.safetensors"))
    return " ".join([name, *(f"{file.stat().st_mtime_ns}-{file.stat().st_size}" for file in files)])
