"""Where things that take long to make are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$FIRSTFAULT_CACHE`, or else `~/.cache/firstfault`; it need not exist."""
    return Path(os.environ.get("FIRSTFAULT_CACHE") or Path.home() / ".cache" / "firstfault")
