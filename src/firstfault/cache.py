"""Where things that take long to make are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$FIRSTFAULT_CACHE`, or else `~/.cache/firstfault`; it need not exist."""
    return Path(os.environ.get("FIRSTFAULT_CACHE") or Path.home() / ".cache" / "firstfault")


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
