"""Binary error localization (BEL), the search of ELPO's Algorithm 1 on one failed run, and its variants."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from firstfault.localize.search import Search, anytime_cost
from firstfault.tree import Verdict

Tries = Callable[[int], int]  # step m -> how many completions to sample after it


class Bisect(Search):
    """A completion that succeeds after `m` steps shows that the run was not lost yet; if all fail, it is taken as lost.

    As printed (`L < R`), the last candidate is taken without a probe of its own. `verified` probes it too (`L <= R`, a
    failure moves R to m - 1), and answers K + 1 when no step is irrecoverable, as in the paper's worked example. All
    completions of an anchor are asked for side by side.
    """

    def __init__(self, steps: int, tries: Tries, *, verified: bool = False):
        super().__init__(steps)
        self.tries = tries
        self.verified = verified
        self.left, self.right = 1, steps
        self._wanted = 0
        self._cut = self._ended = False

    @property
    def is_open(self) -> bool:
        """Whether candidates are left to tell apart."""
        return self.left <= self.right if self.verified else self.left < self.right

    @property
    def middle(self) -> int:
        return (self.left + self.right) // 2

    def ask(self, remaining: int) -> tuple[int, int] | None:
        if not self.is_open or self._ended:
            return None
        self._wanted = self.tries(self.middle)
        return self.middle, min(self._wanted, remaining)

    def tell(self, step: int, outcomes: Sequence[bool], agreed: Sequence[int | None] = ()) -> None:
        super().tell(step, outcomes)
        if not outcomes:  # all were discarded: nothing can be said of this anchor
            self._ended = True
        else:
            if not any(outcomes):  # what the answer rests on
                self._cut = len(outcomes) < self._wanted
            self._move(any(outcomes))

    def _move(self, success: bool) -> None:
        if success:
            self.left = self.middle + 1
        else:
            self.right = self.middle - 1 if self.verified else self.middle

    def verdict(self, leaf: int = -1) -> Verdict:
        finished = bool(self.probes) and not self.is_open and not self._cut
        return Verdict(leaf, self.steps, self.left, finished, self.probes)

    @property
    def cost(self) -> int:
        """The most that it can take from here on.

        >>> twice = lambda step: 2
        >>> Bisect(8, twice).cost, Bisect(8, twice, verified=True).cost, Bisect(1, twice).cost
        (6, 8, 0)
        """

        def cost(left: int, right: int) -> int:
            if (left > right) if self.verified else (left >= right):
                return 0
            middle = (left + right) // 2
            lost = middle - 1 if self.verified else middle
            return self.tries(middle) + max(cost(middle + 1, right), cost(left, lost))

        return cost(self.left, self.right)


class Filled(Bisect):
    """The verified search that uses the whole budget, and leaves an anchor at its first success.

    An anchor may take the rollouts that are left over the rounds that are left, one after the other. Ours: the
    strongest simple baseline for a better search.
    """

    def __init__(self, steps: int):
        super().__init__(steps, lambda step: 1, verified=True)
        self._left_here = 0

    def ask(self, remaining: int) -> tuple[int, int] | None:
        if not self.is_open or self._ended:
            return None
        if not self._left_here:
            rounds = max(1, (self.right - self.left).bit_length())
            self._left_here = max(1, remaining // rounds)
        return self.middle, 1

    def tell(self, step: int, outcomes: Sequence[bool], agreed: Sequence[int | None] = ()) -> None:
        Search.tell(self, step, outcomes)
        if not outcomes:  # discarded
            self._ended = True
            return
        self._left_here -= 1
        if any(outcomes) or not self._left_here:
            self._left_here = 0
            self._move(any(outcomes))

    @property
    def cost(self) -> int:
        return anytime_cost(self.steps, self.probes)


class Scatter(Search):
    """No search: completions after steps at random, as many of these as a binary search probes; it has no answer.

    What ELPO is without its search.
    """

    def __init__(self, steps: int, tries: Tries, draw: random.Random):
        super().__init__(steps)
        self.tries = tries
        self._anchors = draw.sample(range(1, steps + 1), max(0, steps - 1).bit_length())

    def ask(self, remaining: int) -> tuple[int, int] | None:
        if not self._anchors:
            return None
        step = self._anchors.pop()
        return step, min(self.tries(step), remaining)

    def verdict(self, leaf: int = -1) -> Verdict:
        return Verdict(leaf, self.steps, self.steps + 1, False, self.probes)

    @property
    def cost(self) -> int:
        return sum(map(self.tries, self._anchors))
