"""How alike two short answers are, as question answering measures it (Rajpurkar et al. 2016, SQuAD)."""

from __future__ import annotations

import re
import string
from collections import Counter

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, English articles and surplus white space.

    >>> normalize_answer(" The  Old-Mill, Upper Tarn. ")
    'oldmill upper tarn'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def f1_score(given: str, expected: str) -> float:
    """The harmonic mean of precision and recall over the words of the normalized answers; 0 to 1.

    Of two answers without a word, it is 1; of one, 0.

    >>> f1_score("the Old Mira", "Young Mira"), f1_score("Mira", "mira."), f1_score("", "Mira")
    (0.5, 1.0, 0.0)
    """
    a, b = normalize_answer(given).split(), normalize_answer(expected).split()
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if a or b else 1.0
