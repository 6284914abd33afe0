"""The mistakes that a family's demonstrations make, so that a policy taught from them has something to learn."""

from __future__ import annotations

from random import Random
from typing import Literal

from pydantic import Field

from firstfault.tasks.base import TaskSource

Kind = Literal["silent", "dead_end", "recoverable"]


class FlawedTasks(TaskSource):
    """A generated family whose demonstrations go wrong at known steps.

    Some words of a family are traps, each of one kind. Where a task has a trap, its demonstration falls for it with
    the chance that its kind has here; a policy that imitates it learns to fall for it as often. The kinds:

    - silent: no output shows it, and no later step repairs it;
    - dead end: it shows, and from there the run goes nowhere;
    - recoverable: an output shows it, and the next step can repair it, as `repaired` of the demonstrations do.
    """

    silent: float = Field(0.6, ge=0, le=1, description="chance to fall for a trap that nothing shows")
    dead_end: float = Field(0.0, ge=0, le=1, description="chance to fall for a trap that leads nowhere")
    recoverable: float = Field(0.0, ge=0, le=1, description="chance to fall for a trap that shows and can be repaired")
    repaired: float = Field(0.3, ge=0, le=1, description="share of the recoverable mistakes that are repaired")
    where: Literal["anywhere", "early", "late"] = Field("anywhere", description="third of a task that may hold traps")

    def may_trap(self, step: int, steps: int) -> bool:
        """Whether step number `step` (from 0) of a task of `steps` steps may hold a trap."""
        third = 3 * step // steps
        return {"anywhere": True, "early": third == 0, "late": third == 2}[self.where]

    def falls(self, draw: Random, kind: Kind) -> bool:
        """Whether a demonstration falls for a trap of this kind."""
        return draw.random() < getattr(self, kind)
