"""Text and numbers as people read them, safe to put into XML. All that a model or a tool wrote passes through here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import escape as html_escape
from unicodedata import east_asian_width

from firstfault.tree import Node

# Characters that XML 1.0 forbids, lone surrogates, and the marks that reorder the text around them.
_UNSHOWABLE = re.compile(
    "[^\t\n\r\u0020-\u007e\u0085\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]"
)


def clean(text: str) -> str:
    """Characters that a page can't show become the replacement character."""
    return _UNSHOWABLE.sub("\ufffd", text)


def escape(text: str) -> str:
    """Text for an XML element or attribute.

    >>> escape('<b a="1">\\x00')
    '&lt;b a=&quot;1&quot;&gt;\ufffd'
    """
    return html_escape(clean(text), quote=True)


def columns(text: str) -> int:
    """Width in characters of a fixed-width font, where a Chinese or Japanese character takes two."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, width: int) -> str:
    """One line of at most `width` columns.

    >>> shorten("a  long\\nline", 7), shorten("日本語", 5)
    ('a long…', '日本…')
    """
    # Only so much can fit: the rest of a long output isn't looked at.
    text = " ".join(text[: 8 * width + 64].split())
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[:-1]
    return text.rstrip() + "…"


def middle_out(text: str, limit: int) -> str:
    """The beginning and the end of a long text, and how much is missing between them."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters left out …]\n{text[-tail:]}"


def number(value: float) -> str:
    """A number in few characters.

    >>> number(256), number(23_456), number(999_700), number(0.21), number(0.0001), number(-3.14159)
    ('256', '23.5k', '1M', '0.21', '1e-4', '-3.14')
    """
    size = abs(value)
    if not size < 1e15:
        return str(value) if not math.isfinite(size) else f"{value:.1e}"
    for scale, suffix, least in ((1e12, "T", 0.9995e12), (1e9, "G", 0.9995e9), (1e6, "M", 0.9995e6), (1e3, "k", 1e4)):
        if size >= least:
            return f"{value / scale:.3g}{suffix}"
    if size >= 100:
        return f"{value:.0f}"
    if 0 < size < 1e-3:
        return re.sub(r"(\.0)?e-0*", "e-", f"{value:.1e}")
    return f"{value:.3g}"


def state_value(node: Node) -> str:
    """The value of the state after a step, and of how many completions it is a mean; nothing after the end of a run.

    >>> state_value(Node(None, 0, 0, value=0.25, value_samples=8)), state_value(Node(None, 0, 0, value=0.25))
    ('0.25 of 8 completions', '0.25')
    """
    if node.value is None or node.is_leaf:
        return ""
    return number(node.value) + (f" of {node.value_samples} completions" if node.value_samples else "")


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(42), duration(372), duration(9000)
    ('42 s', '6 min 12 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def with_interval(value: Mapping[str, float | None], sign: str = "") -> str:
    """A mean with its interval, where it has one.

    >>> with_interval({"mean": 0.5, "low": 0.25, "high": 0.75}), with_interval({"mean": 0.5, "low": None}, sign="+")
    ('0.500 [0.250, 0.750]', '+0.500')
    """
    mean = format(value["mean"], f"{sign}.3f")
    return mean if value["low"] is None else f"{mean} [{value['low']:.3f}, {value['high']:.3f}]"
