"""Searches for the first irrecoverable step of a failed run."""

from __future__ import annotations

import random
from collections.abc import Callable

from firstfault.localize.bisect import Bisect, Filled, Scatter, Tries
from firstfault.localize.posterior import Posterior
from firstfault.localize.search import Search, localize

__all__ = ["SEARCHES", "Bisect", "Filled", "Posterior", "Scatter", "Search", "localize"]

# of a run of so many steps, with so many completions per anchor where the search leaves that open
SEARCHES: dict[str, Callable[[int, Tries, random.Random], Search]] = {
    "printed": lambda steps, tries, draw: Bisect(steps, tries),
    "verified": lambda steps, tries, draw: Bisect(steps, tries, verified=True),
    "filled": lambda steps, tries, draw: Filled(steps),
    "posterior": lambda steps, tries, draw: Posterior(steps),
    "random": lambda steps, tries, draw: Scatter(steps, tries, draw),
}
