"""Judging answers, whatever an agent writes."""

import asyncio
import random

import pytest

from firstfault.tasks import Arithmetic
from firstfault.tasks.base import last_boxed, same_answer
from firstfault.tools import Session
from firstfault.tree import Task


def judge(expected: str, answer: str) -> tuple[bool, float]:
    return asyncio.run(Arithmetic().judge(Task("q", expected), answer, Session([])))


BOXES = [
    (r"\boxed{42}", "42"),
    (r"so \boxed{1}, no, \boxed{2}.", "2"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{a{b{c}d}e} f}", "a{b{c}d}e"),
    (r"\boxed {7}", "7"),
    ("\\boxed\n\t{7}", "7"),
    (r"\boxed{}", ""),
    (r"\boxed{ 7 }", " 7 "),
    (r"\fbox{7}", None),
    (r"boxed{7}", None),
    (r"\boxed 7", None),
    (r"\boxed{7", None),
    (r"\boxed{7}, \boxed{8", "7"),  # an unfinished box is none
    (r"\boxed{a \boxed{b}}", "b"),
    (r"\boxed{a \boxed{b}", "b"),
    (r"} {\boxed{7}} }", "7"),
    (r"\boxed{\boxed{7}", "7"),
    (r"\boxed{7}}}", "7"),
    ("\\boxed{日本\n語}", "日本\n語"),
    ("", None),
    ("7", None),
]


@pytest.mark.parametrize(("text", "content"), BOXES)
def test_the_last_complete_box(text, content):
    assert last_boxed(text) == content


def by_definition(text: str) -> str | None:
    """Of the last opening that has a matching brace, what is between them."""
    for start in range(len(text) - 1, -1, -1):
        if text.startswith(r"\boxed{", start):
            depth = 0
            for end in range(start + 6, len(text)):
                depth += (text[end] == "{") - (text[end] == "}")
                if depth == 0:
                    return text[start + 7 : end]
    return None


def test_boxes_in_any_tangle_of_braces():
    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(draw.choices(["{", "}", r"\boxed{", "x"], k=draw.randrange(12)))
        assert last_boxed(text) == by_definition(text), text


SAME = [
    ("42", "42"),
    ("42", "42.0"),
    ("042", "42"),
    ("+42", "42"),
    ("-0", "0"),
    (".5", "0.50"),
    ("5.", "5"),
    ("1,200.0", "1200"),
    ("1,234,567", "1234567"),
    ("-1,200", "-1200"),
    ("1e3", "1000"),
    ("1E+3", "1,000"),
    ("1e9", "1000000000"),
    ("0.1", "0.10"),
    ("  7\n", "7"),
    ("١٢", "12"),  # digits are digits in any script
    ("１２", "12"),
    ("Paris.", "paris"),
    ("New   York", "new\nyork"),
    ("nan", "NaN"),
    ("inf", "Infinity"),
    (r"\frac{1}{2}", r"\frac{1}{2}"),
    ("(1, 2)", "(1, 2)"),
    ("12_3", "12_3"),
    (r"\text{Paris}", "Paris"),
    (r"\mathbf{42}", "42"),
    (r"\$42", "42"),
    ("$42$", "42"),
    ("1{,}200", "1200"),
    (r"1\,200", "1,200"),
    (r"42\%", "42%"),
    ("−5", "-5"),
    ("", ""),
    ("...", "."),
]
DIFFERENT = [
    ("42", "43"),
    ("42", "-42"),
    ("4 2", "42"),
    ("42%", "42"),
    ("1e999999999", "1"),
    ("1e999999999", "1e999999998"),
    ("0.1", "0.10000000000000000001"),
    ("12345678901234567890.1", "12345678901234567890.2"),  # more digits than a float has
    ("1,2", "12"),  # a list of two
    ("1,2,3", "123"),
    ("1,23", "123"),
    ("101_2", "1012"),  # the subscript of a base
    ("1_000", "1000"),
    ("nan", "0"),
    ("nan", "inf"),
    ("inf", "-inf"),
    ("Infinity", "1e999999999"),
    ("snan", "1"),
    ("", "0"),
    (".", "0"),
    (",", "0"),
    ("", "paris"),
    ("²", "2"),
    ("½", "0.5"),
    ("0x10", "16"),
    ("--5", "5"),
    ("1e", "1"),
    ("1e5e5", "1"),
]


@pytest.mark.parametrize(("given", "expected"), SAME)
def test_answers_that_are_the_same(given, expected):
    assert same_answer(given, expected) and same_answer(expected, given)


@pytest.mark.parametrize(("given", "expected"), DIFFERENT)
def test_answers_that_are_not(given, expected):
    assert not same_answer(given, expected) and not same_answer(expected, given)


N = 50_000
HOSTILE = {
    "unclosed boxes": "\\boxed{" * N,
    "nested boxes": "\\boxed{" * N + "}" * N,
    "closing braces": "}" * N,
    "a space without end": "\\boxed" + " " * N,
    "digits": "\\boxed{" + "9" * N + "}",
    "commas": "\\boxed{" + "9," * N + "}",
    "thousands": "\\boxed{" + "999," * N + "999}",
    "signs": "\\boxed{" + "-" * N + "}",
    "a huge exponent": "\\boxed{1e" + "9" * N + "}",
    "a large exponent": "\\boxed{1e999999999999999999}",
    "a tiny number": "\\boxed{1e-999999999999999999}",
    "signalling NaN": "\\boxed{sNaN}",
    "NaN with a payload": "\\boxed{nan123}",
    "no character": "\\boxed{\x00}",
    "half a surrogate pair": "\\boxed{\ud800}",
    "all of Latin-1": "\\boxed{" + "".join(map(chr, range(256))).replace("{", "").replace("}", "") + "}",
    "combining": "\\boxed{" + "1\u0338" * 100 + "}",
    "nothing": "",
}


@pytest.mark.parametrize("expected", ["1", "paris", "NaN", "sNaN", "1e999999999999999999", "-Infinity"])
@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_answer_breaks_the_judge(answer, expected):
    assert judge(expected, answer) in [(False, 0.0), (True, 1.0)]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [(r"The answer is \boxed{1200}.", (True, 1.0)), (r"\boxed{7}", (False, 0.0)), ("1,200", (False, 0.0))],
)
def test_success_is_the_right_answer_in_the_last_box(answer, verdict):
    assert judge("1,200", answer) == verdict
