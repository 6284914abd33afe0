"""Texts that models, tools and logs wrote, made harmless to whatever reads them next."""

from __future__ import annotations


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
