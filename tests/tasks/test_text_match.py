"""Short answers compared as question answering compares them."""

import pytest

from firstfault.tasks.text_match import f1_score, normalize_answer


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles", "beatles"),
        ("  a\tmill \n by an  inn ", "mill by inn"),
        ("St. John's", "st johns"),
        ("theory of another", "theory of another"),  # articles are words of their own
        ("1,200", "1200"),
        ("ÉCOLE", "école"),
        ("the", ""),
        ("?!", ""),
        ("", ""),
    ],
)
def test_answers_are_normalized(text, normal):
    assert normalize_answer(text) == normal
    assert normalize_answer(normal) == normal


@pytest.mark.parametrize(
    ("given", "expected", "score"),
    [
        ("the Old Mill", "old mill!", 1.0),
        ("Old Mill", "New Mill", 0.5),
        ("Mill", "Old Mill", 2 / 3),
        ("Mill Mill", "Mill", 2 / 3),  # a word counts as often as both have it
        ("mill mill inn", "mill mill mill", 2 / 3),
        ("Inn", "Mill", 0.0),
        ("", "Mill", 0.0),
        ("the", "Mill", 0.0),
        ("the", "?", 1.0),
    ],
)
def test_f1_of_the_words(given, expected, score):
    assert f1_score(given, expected) == f1_score(expected, given) == pytest.approx(score)
