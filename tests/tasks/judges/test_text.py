"""Choices and short answers, each judged as a person would."""

import importlib.util
import math

import pytest

from firstfault.errors import UserError
from firstfault.tasks.judges.text import bleu, chosen, exact_match, f1, graded
from firstfault.training.build import build_tasks

CHOICES = {"A": "Paris", "B": "New York", "C": "a cat", "D": "12 cm"}
CHOSEN = [
    ("B", "B"),
    ("b", "B"),
    ("(B)", "B"),
    ("[B]", "B"),
    ("B.", "B"),
    ("B)", "B"),
    (r"\text{B}", "B"),
    (r"\text{(B)}", "B"),
    ("$B$", "B"),
    ("The answer is B", "B"),
    ("The correct answer is (B).", "B"),
    ("Answer: B", "B"),
    ("Option B", "B"),
    ("choice (b)", "B"),
    ("New York", "B"),
    ("new york.", "B"),
    ("B. New York", "B"),
    ("(B) New York", "B"),
    ("The answer is B: New York", "B"),
    ("A cat", "C"),  # which begins with a letter that is another choice
    (r"12\text{ cm}", "D"),
    ("C) a cat", "C"),
    # none, or not one
    ("", None),
    ("E", None),
    ("AB", None),
    ("A and B", None),
    ("A or B", None),
    ("B, C", None),
    ("B. Paris", None),
    ("London", None),
    ("not B", None),
    ("__import__('os')", None),
    ("B" * 100_000, None),
    (" " * 100_000, None),
    ("The answer is " * 10_000, None),
]


@pytest.mark.parametrize(("given", "letter"), CHOSEN, ids=lambda value: str(value)[:30])
def test_the_choice_that_an_answer_names(given, letter):
    assert chosen(given, CHOICES) == letter


EXACT = [
    ("Barack Obama", ["Barack Obama"], True),
    ("barack obama.", ["Barack Obama"], True),
    ("The Beatles", ["Beatles"], True),
    ("the U.S.", ["US"], True),
    (r"\text{New York}", ["New York"], True),
    ("Rock 'n' Roll", ["rock n roll"], True),
    ("1,000", ["1000"], True),
    ("NYC", ["New York", "NYC"], True),
    ("São Paulo", ["são paulo"], True),
    ("The", ["the"], True),
    ("Obama", ["Barack Obama"], False),
    ("Barack Obama and Joe Biden", ["Barack Obama"], False),
    ("yes", ["no"], False),
    ("", ["Paris"], False),
    ("", [""], False),
    ("The", ["a"], False),
    ("...", ["!!!"], False),
    ("Paris", [], False),
    ("10", ["1.0"], True),  # as SQuAD has it, punctuation is nothing
]


@pytest.mark.parametrize(("given", "golds", "verdict"), EXACT)
def test_exact_match(given, golds, verdict):
    assert exact_match(given, golds) is verdict


F1 = [
    ("Barack Obama", ["Barack Obama"], 1.0),
    ("Obama", ["Barack Obama"], 2 / 3),
    ("Obama Obama", ["Barack Obama"], 1 / 2),
    ("president Barack Obama", ["Obama", "Barack Obama"], 4 / 5),
    ("Paris", ["London"], 0.0),
    ("", ["London"], 0.0),
    ("no", ["yes"], 0.0),
    ("yes indeed", ["yes"], 0.0),
    ("yes", ["Yes."], 1.0),
    ("London", [], 0.0),
]


@pytest.mark.parametrize(("given", "golds", "score"), F1)
def test_f1_of_the_words(given, golds, score):
    assert f1(given, golds) == pytest.approx(score)


BLEU = [
    ("Barack Obama", ["barack obama"], 1.0),
    ("Obama", ["Barack Obama"], math.exp(1 - 2 / 1)),  # too short; it has no pair of words to be judged by
    ("Barack Hussein Obama", ["Barack Obama"], (2 / 3 * 1 / (2 * 2)) ** (1 / 2)),  # no pair matches: smoothed
    ("Obama Barack", ["Barack Obama"], (1 * 1 / 2) ** (1 / 2)),
    ("1815 or so", ["1815"], 1 / 3),  # a gold of one word: words only
    ("Bank of New York", ["Bank of New York City"], math.exp(1 - 5 / 4)),
    ("Michelle", ["Barack Obama"], 0.0),
    ("Obama", ["Barack Obama", "Obama"], 1.0),
    ("", ["London"], 0.0),
    ("London", ["the"], 0.0),
    ("London", [], 0.0),
]


@pytest.mark.parametrize(("given", "golds", "score"), BLEU)
def test_length_aware_bleu_of_the_words(given, golds, score):
    assert bleu(given, golds) == pytest.approx(score)


@pytest.mark.parametrize(("grade", "reward"), [("exact", 0.0), ("f1", 2 / 3), ("bleu", math.exp(-1))])
def test_what_is_not_right_is_graded(grade, reward):
    assert graded("Obama", ["Barack Obama"], grade) == (False, pytest.approx(reward))
    assert graded("The Barack Obama", ["Barack Obama"], grade) == (True, 1.0)


@pytest.mark.parametrize("options", [{"name": "lore"}, {"name": "hotpotqa"}])
def test_bleu_without_sacrebleu_is_refused_with_what_to_install(options, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sacrebleu" else found(name))
    with pytest.raises(UserError, match=r"pip install 'firstfault\[bleu\]'"):
        build_tasks({**options, "reward": "bleu"})
