"""The mistakes that a family's demonstrations make, so that a policy taught from them has something to learn."""

from __future__ import annotations

from collections.abc import Mapping
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
        third = max(1, steps // 3)
        return {"anywhere": True, "early": step < third, "late": step >= steps - third}[self.where]

    def vocabulary(self, traps: Mapping[str, Kind | None], step: int, steps: int) -> list[str]:
        """The words that step number `step` (from 0) of a task of `steps` steps is drawn from.

        `traps` has all words of the family, each with its kind of trap. Kinds without a chance have no words in tasks.
        A third that `where` names holds nothing but traps: few steps, as many mistakes.

        >>> words = {"add": None, "gain": "silent", "grow": "recoverable"}
        >>> FlawedTasks().vocabulary(words, 0, 6), FlawedTasks(where="late").vocabulary(words, 0, 6)
        (['add', 'gain'], ['add'])
        >>> FlawedTasks(where="late", recoverable=0.5).vocabulary(words, 5, 6)
        ['gain', 'grow']
        """
        kinds = {kind for kind in traps.values() if kind and getattr(self, kind) and self.may_trap(step, steps)}
        if not kinds or self.where == "anywhere":
            kinds.add(None)
        return [word for word, kind in traps.items() if kind in kinds]

    def falls(self, draw: Random, kind: Kind | None, share: float = 1.0) -> bool:
        """Whether a demonstration falls for a trap of this kind, with `share` of the kind's chance.

        Draws a number even where there is no trap, so that no knob changes the luck of another step.
        """
        return draw.random() < (share * getattr(self, kind) if kind else 0.0)
