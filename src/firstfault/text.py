"""Texts that models, tools and logs wrote, made harmless to whatever reads them next, named and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def encodable(text: str) -> str:
    """Text that UTF-8 can hold: two halves of a surrogate pair become a character, one becomes the replacement.

    >>> encodable("ok"), encodable("\\ud83d\\ude00"), encodable("half \\ud83d")
    ('ok', '😀', 'half �')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def printable(text: str, longest: int = 1200) -> str:
    """Text for a terminal, without characters that it acts on.

    >>> printable("a\\x1b[31mb\\nc"), printable("abcdef", 4)
    ('a�[31mb\\nc', 'abc…')
    """
    text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"


def one_line(text: str, longest: int = 80) -> str:
    """The same in one line.

    >>> one_line("two\\n lines")
    'two lines'
    """
    return printable(" ".join(text.split()), longest)


def kind(value: Any) -> str:
    """What a decoded JSON value is, in words.

    >>> kind(None), kind({}), kind(True), kind(0.5)
    ('null', 'an object', 'true or false', 'a number')
    """
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")


def shared_length(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many characters, or tokens, two texts have in common at the beginning.

    >>> shared_length("prefix", "present"), shared_length([1, 2], [1, 2, 3])
    (3, 2)
    """
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
