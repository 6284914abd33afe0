r"""Judges of short texts: question answering, and multiple choice."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from firstfault.errors import require
from firstfault.tasks.base import plain

Grade = Literal["exact", "f1", "bleu"]

PUNCTUATION = str.maketrans("", "", string.punctuation)
LABEL = r"(?:(?:the )?(?:final |correct |right |best )?(?:answer|choice|option)(?: is)?:?\s*)?"


def normalized(text: str) -> str:
    """In small letters, without punctuation, articles and extra white space, as SQuAD has it.

    >>> normalized("The  U.S. Congress,")
    'us congress'
    """
    text = re.sub(r"\b(a|an|the)\b", " ", plain(text).lower().translate(PUNCTUATION))
    return " ".join(text.split())


def exact_match(given: str, golds: Sequence[str]) -> bool:
    """Whether an answer is one of `golds`, normalized. What has no words but articles has to be the same text.

    >>> exact_match("the Beatles.", ["Beatles", "Fab Four"]), exact_match("The", ["A"]), exact_match("The", ["the"])
    (True, False, True)
    """
    if normalized(given):
        return any(normalized(given) == normalized(gold) for gold in golds)
    return any(plain(given).lower() == plain(gold).lower() for gold in golds if plain(gold))


def f1(given: str, golds: Sequence[str]) -> float:
    """The best harmonic mean of precision and recall of the words, over `golds`; yes and no are right or wrong.

    >>> f1("Barack Hussein Obama", ["Barack Obama"]), f1("no", ["yes"]), f1("yes it is", ["yes"])
    (0.8, 0.0, 0.0)
    """
    return max((_f1(normalized(given), normalized(gold)) for gold in golds), default=0.0)


def _f1(given: str, gold: str) -> float:
    if given != gold and {given, gold} & {"yes", "no", "noanswer"}:
        return 0.0
    a, b = given.split(), gold.split()
    common = (Counter(a) & Counter(b)).total()
    return 2 * common / (len(a) + len(b)) if common else 0.0


def require_sacrebleu() -> None:
    require("sacrebleu", "bleu", "a reward by BLEU")


def bleu(given: str, golds: Sequence[str]) -> float:
    """The best BLEU of the words over `golds`, of orders up to the words of the gold, four at most.

    Orders weigh the same, what is too short pays the brevity penalty, and orders without a match are smoothed
    (sacrebleu's "exp"). This is the length-aware BLEU of PRS (arXiv 2512.07478); the formula is ours.

    >>> [round(bleu(given, ["Barack Obama"]), 2) for given in ("barack obama", "Obama", "Barack H Obama", "Michelle")]
    [1.0, 0.37, 0.41, 0.0]
    """
    return max((_bleu(normalized(given), normalized(gold)) for gold in golds), default=0.0)


def _bleu(given: str, gold: str) -> float:
    from sacrebleu.metrics import BLEU  # an extra, and slow to load

    order = min(4, len(gold.split()))
    if not order:
        return 0.0
    scorer = BLEU(max_ngram_order=order, effective_order=True, tokenize="none")
    return scorer.sentence_score(given, [gold]).score / 100


def graded(given: str, golds: Sequence[str], grade: Grade) -> tuple[bool, float]:
    """Whether an answer is right, and its reward: 1 if so, and else 0, or what `f1` or `bleu` says of it."""
    if exact_match(given, golds):
        return True, 1.0
    return False, {"exact": lambda *_: 0.0, "f1": f1, "bleu": bleu}[grade](given, golds)


def chosen(given: str, choices: Mapping[str, str]) -> str | None:
    """The letter of the choice that an answer names, by its letter, its text, or both; None if it names none or two.

    >>> choices = {"A": "a dog", "B": "two cats"}
    >>> [chosen(text, choices) for text in ("(b)", "B.", "The answer is B", "Two cats", "A dog", "A two cats")]
    ['B', 'B', 'B', 'B', 'A', None]
    """
    given = plain(given).rstrip(".").strip()
    named = [letter for letter, text in choices.items() if _same(given, text)]
    found = re.fullmatch(rf"{LABEL}[(\[]?([A-Za-z])[)\]]?(?:[.:,)]|\s|$)\s*(.*)", given, re.IGNORECASE | re.DOTALL)
    letter = found[1].upper() if found else None
    if letter in choices and (not found[2] or _same(found[2], choices[letter])):
        return letter
    return named[0] if len(named) == 1 else None


def _same(a: str, b: str) -> bool:
    return " ".join(plain(a).lower().split()).rstrip(".") == " ".join(plain(b).lower().split()).rstrip(".")
