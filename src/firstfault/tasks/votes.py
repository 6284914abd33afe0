"""What a run votes for, and which votes are the same."""

from __future__ import annotations

from collections.abc import Sequence

from firstfault.estimators import major_at_k, pass_at_k
from firstfault.tasks.base import last_boxed, same_answer


def vote(answer: str | None) -> str | None:
    r"""What a run votes for: the content of its last \boxed{}, else all that it answered; None if there is nothing.

    >>> vote(r"So it is \boxed{42}."), vote(" Paris. "), vote(" "), vote(None)
    ('42', 'Paris.', None, None)
    """
    if answer is None:
        return None
    boxed = last_boxed(answer)
    return (answer if boxed is None else boxed).strip() or None


def ballot(answers: Sequence[str | None]) -> list[str | None]:
    """The answers, each in the words of the first that is the same by `tasks.base.same_answer`.

    >>> ballot(["1,200", "1200.0", None, "Paris", "paris."])
    ['1,200', '1,200', None, 'Paris', 'Paris']
    """
    firsts: dict[str, str] = {}
    for answer in answers:
        if answer is not None and answer not in firsts:
            firsts[answer] = next((known for known in firsts.values() if same_answer(answer, known)), answer)
    return [None if answer is None else firsts[answer] for answer in answers]


def at_k(votes: Sequence[str | None], successes: Sequence[bool], ks: Sequence[int]) -> dict[str, float]:
    """Pass@K and Major@K of the runs of a task, of each of which it is known what it votes for and if it is right.

    >>> at_k(["4", "4.0", "5", None], [True, True, False, False], [1, 3])
    {'pass@1': 0.5, 'pass@3': 1.0, 'major@1': 0.5, 'major@3': 0.75}
    """
    right, answers = sum(successes), ballot(votes)
    return {f"pass@{k}": pass_at_k(len(votes), right, k) for k in ks} | {
        f"major@{k}": major_at_k(answers, successes, k) for k in ks
    }
