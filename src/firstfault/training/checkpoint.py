"""Checkpoints: a model that `from_pretrained` reads, with the state of the learner beside."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from firstfault.errors import UserError
from firstfault.files import saving

STATE = "training_state.pt"


def save_checkpoint(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any]
) -> None:
    """Write a checkpoint that is there whole or not at all; there must be none yet."""
    partial = path.with_suffix(".part")
    with saving(path):
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        torch.save(dict(state), partial / STATE)
        partial.rename(path)


def load_state(checkpoint: Path) -> dict[str, Any]:
    try:
        return torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{checkpoint / STATE} can't be read ({str(error).splitlines()[0]}); remove {checkpoint} to go on from an "
            "earlier checkpoint."
        ) from error
