"""Keys and values of every prefix that was computed, each once: a radix tree over token sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import Tensor

from firstfault.text import shared_length


class Segment:
    """A run of tokens behind a common prefix.

    `kv` [layers, 2, tokens, kv_heads, D] is None while a forward pass is computing it (`pending`), and once evicted.
    `hidden` [d], the model's last hidden state at the last token, lets a completion start here without a forward pass.
    """

    def __init__(self, tokens: list[int]):
        self.tokens = tokens
        self.kv: Tensor | None = None
        self.hidden: Tensor | None = None
        self.pending = False
        self.last_used = 0
        self.children: dict[int, Segment] = {}

    def split(self, at: int) -> None:
        """Keep the first `at` tokens; the rest becomes the only child."""
        rest = Segment(self.tokens[at:])
        rest.hidden, rest.pending, rest.last_used = self.hidden, self.pending, self.last_used
        rest.children = self.children
        if self.kv is not None:
            rest.kv, self.kv = self.kv[:, :, at:].clone(), self.kv[:, :, :at].clone()
        self.tokens, self.hidden, self.children = self.tokens[:at], None, {rest.tokens[0]: rest}


class PrefixCache:
    """The segments of one policy version, bounded in bytes: the least recently used are evicted.

    Evicted segments stay in the tree without their keys and values, so that computing them again is noticed. Whatever
    uses a segment uses all before it, so what stands behind an evicted segment is evicted too.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        self._root = Segment([])
        self._bytes = 0
        self._clock = itertools.count(1)

    def match(self, tokens: list[int]) -> tuple[list[Segment], bool]:
        """The computed segments that `tokens` begin with, and whether more of them is being computed right now."""
        found: list[Segment] = []
        now = next(self._clock)
        for segment in self._walk(tokens):
            if segment.kv is None:
                return found, segment.pending
            segment.last_used = now
            found.append(segment)
        return found, False

    def reserve(self, tokens: list[int]) -> int:
        """Announce that what is missing of `tokens` will be computed; returns how many of these once were."""
        lost = 0
        at = 0
        segment = self._root
        for segment in self._walk(tokens):
            at += len(segment.tokens)
            if segment.kv is None:
                segment.pending = True
                lost += len(segment.tokens)
        if at < len(tokens):
            new = segment.children[tokens[at]] = Segment(tokens[at:])
            new.pending = True
        return lost

    def store(self, tokens: list[int], kv: Tensor) -> Segment:
        """Keep the keys and values `kv` [layers, 2, >= tokens, kv_heads, D] of `tokens`, as far as they are missing.

        Returns the segment where `tokens` end.
        """
        now = next(self._clock)
        segment, at = self._root, 0
        for segment in self._walk(tokens):
            if segment.kv is None:
                self._fill(segment, kv[:, :, at : at + len(segment.tokens)])
            segment.last_used = now
            at += len(segment.tokens)
        if at < len(tokens):
            parent, segment = segment, Segment(tokens[at:])
            parent.children[tokens[at]] = segment
            self._fill(segment, kv[:, :, at : len(tokens)])
            segment.last_used = now
        self._evict(keep=now)
        return segment

    def _walk(self, tokens: list[int]) -> Iterator[Segment]:
        """The segments that `tokens` run through to their ends; one that they leave half-way is split there."""
        segment, at = self._root, 0
        while at < len(tokens) and (child := segment.children.get(tokens[at])) is not None:
            ahead = tokens[at : at + len(child.tokens)]
            if child.tokens != ahead:
                child.split(shared_length(child.tokens, ahead))
            yield child
            segment, at = child, at + len(child.tokens)

    def _fill(self, segment: Segment, kv: Tensor) -> None:
        segment.kv, segment.pending = kv.clone(), False
        self._bytes += kv.nbytes

    def _evict(self, keep: int) -> None:
        if self._bytes <= self.max_bytes:
            return
        segments = [self._root]
        for segment in segments:
            segments.extend(segment.children.values())
        segments.reverse()  # of equal age, what stands behind goes first
        for segment in sorted(segments, key=lambda s: s.last_used):
            if self._bytes <= 0.8 * self.max_bytes or segment.last_used == keep:  # room for a while, not for one
                break
            if segment.kv is not None:
                self._bytes -= segment.kv.nbytes
                segment.kv = segment.hidden = None
