r"""Whether two answers to a maths problem are the same: the source of this file runs in the sandbox (see `math.py`).

math-verify parses LaTeX and compares with sympy. What it reads otherwise than a person is put right before: the
spelling of numbers (`1 1/2`, `1\,000`, `1.2e3`, `½`, `x²`), degrees, words after a number, bases, sets against tuples.
"""

import logging
import re
import unicodedata

from math_verify import parse, verify

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns of having no time-out: the sandbox has one

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
PERCENT = r"\s*\\?%$"
# Words that change the number they follow; all others are units, or what is counted.
COUNTING = r"hundreds?|thousands?|millions?|billions?|trillions?|dozens?|hundredths?|thousandths?|halves|half|thirds?|"
COUNTING += (
    r"quarters?|fourths?|fifths?|sixths?|tenths?|percent|pi|and|or|to|times|over|plus|minus|squared|cubed|of|mod"
)


def same(given: str, gold: str) -> bool:
    """Whether `given` answers a question whose answer is `gold`, both in LaTeX or as plain text."""
    a, b = normalized(given), normalized(gold)
    if _plain(a) == _plain(b):
        return bool(_plain(a))
    for trait in (_kind, _base):
        if None not in (trait(a), trait(b)) and trait(a) != trait(b):
            return False
    bare = [re.sub(PERCENT, "", x) for x in (a, b)]
    is_one_a_percentage = (bare[0] == a) != (bare[1] == b)
    return _same_value(a, b) or (is_one_a_percentage and _same_value(*bare))


def _same_value(a: str, b: str) -> bool:
    a, b = (_without_unit(x) if not re.search("[A-Za-z]", y) else x for x, y in ((a, b), (b, a)))
    parsed = [parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (b, a)]
    return verify(*parsed, timeout_seconds=None, allow_set_relation_comp=True)


def normalized(text: str) -> str:
    r"""The same answer in a spelling that math-verify reads as a person does.

    >>> normalized("1½"), normalized("1.2e-3 m²"), normalized(r"1\,000."), normalized("90°")
    ('\\frac{3}{2}', '1.2\\times 10^{-3} m^{2}', '1000', '90^\\circ')
    """
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda found: "^{" + found[0].translate(SUPERSCRIPTS) + "}", text)
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").replace("\u2212", "-").replace("°", r"^\circ ")
    text = re.sub(r"\\varnothing|∅", r"\\emptyset", re.sub(r"\\!\s*", "", text).strip().strip("$").strip())
    text = text.removesuffix(".").rstrip()
    text = re.sub(r"(?<=\d)(?:\{,\}|\\[,;: ])(?=\d{3}(?!\d))", "", text)
    if re.fullmatch(r"[-+]?\d{1,3}(?: \d{3})+", text):
        text = text.replace(" ", "")
    text = re.sub(r"(?<=\d)[eE]([-+]?\d+)\b", r"\\times 10^{\1}", text)
    mixed = re.fullmatch(r"(-?)(\d+)\s+(\d+)\s*/\s*(\d+)", text)
    if mixed:
        sign, whole, above, below = mixed[1], *map(int, mixed.groups()[1:])
        return f"{sign}\\frac{{{whole * below + above}}}{{{below}}}"
    return text


def _without_unit(text: str) -> str:
    """A number without the unit, or what is counted, that is written after it."""
    counted = re.fullmatch(r"([-+]?\\?\$?[\d.,]+(?:\s*/\s*\d+)?)\s+(?:[A-Za-z]{2,}(?:\^\{?\d\}?)?[\s/]*)+", text)
    return counted[1] if counted and not re.search(rf"\b(?:{COUNTING})\b", text, re.IGNORECASE) else text


def _plain(text: str) -> str:
    """A text without fonts, sizes and white space, in small letters."""
    text = re.sub(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(r"\\left|\\right|\\[,;: ]|\s", "", text).strip("$").rstrip(".").casefold()


def _kind(text: str) -> str | None:
    """A set of elements, or a tuple or interval; None for all else. math-verify takes {1,2} for (1,2)."""
    plain = _plain(text)
    return "set" if re.fullmatch(r"\\\{.*\\\}", plain) else "tuple" if re.fullmatch(r"[(\[].*,.*[)\]]", plain) else None


def _base(text: str) -> str | None:
    """The base of a number as in 101_2, which math-verify leaves out."""
    found = re.fullmatch(r"[0-9A-Z]+_\{?(\d+)\}?", _plain(text).upper())
    return found and found[1]
