"""The radix tree of keys and values. In these tests the key of a token is its number, the value its position."""

import random

import pytest
import torch

from firstfault.engines.prefix import PrefixCache, Segment

TOKEN = 8  # bytes of one token: key and value, one float each


def kv_of(tokens: list[int]) -> torch.Tensor:
    """Keys and values [1 layer, 2, tokens, 1 head, 1] with room behind, as in a decoding slot."""
    rows = torch.tensor([[*tokens, -1.0], [*range(len(tokens)), -1.0]])
    return rows[None, :, :, None, None]


def store(cache: PrefixCache, tokens: list[int]) -> Segment:
    segment = cache.store(tokens, kv_of(tokens))
    segment.hidden = torch.tensor(tokens)
    return segment


def matched(cache: PrefixCache, tokens: list[int]) -> int:
    """How many of `tokens` are held, after a look at what is held of them."""
    segments, _ = cache.match(tokens)
    held = [token for segment in segments for token in segment.tokens]
    assert held == tokens[: len(held)]
    if segments:
        assert torch.equal(torch.cat([s.kv for s in segments], dim=2), kv_of(tokens)[:, :, : len(held)])
    return len(held)


def everything(cache: PrefixCache) -> dict[tuple[int, ...], Segment]:
    """All segments by the tokens from the beginning to their end."""
    found, stack = {}, [((), cache._root)]
    while stack:
        prefix, segment = stack.pop()
        for first, child in segment.children.items():
            assert child.tokens[0] == first
            found[(*prefix, *child.tokens)] = child
            stack.append(((*prefix, *child.tokens), child))
    return found


STORED = [[1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 4, 6, 7], [8]]


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ([1, 2, 3, 4], 4),
        ([1, 2, 3, 4, 6, 7, 9], 6),  # goes on behind the end
        ([1, 2, 3, 9], 3),  # leaves in the middle of a segment
        ([1, 2, 3], 3),  # ends in the middle of a segment
        ([1, 9], 1),
        ([8], 1),
        ([9], 0),
        ([], 0),
    ],
)
def test_the_longest_known_prefix_is_found(asked, held):
    cache = PrefixCache(10**6)
    for tokens in STORED:
        store(cache, tokens)
    assert matched(cache, asked) == held
    assert matched(cache, asked) == held  # looking changes nothing
    assert [matched(cache, tokens) for tokens in STORED] == [4, 3, 6, 1]


def test_a_split_keeps_the_hidden_state_at_the_end_only():
    cache = PrefixCache(10**6)
    store(cache, [1, 2, 3])
    (whole,), _ = cache.match([1, 2, 3])
    assert whole.hidden.tolist() == [1, 2, 3]
    (front,), _ = cache.match([1, 2])
    assert front.hidden is None  # nobody computed what follows token 2
    front, back = cache.match([1, 2, 3])[0]
    assert (front.tokens, back.tokens, back.hidden.tolist()) == ([1, 2], [3], [1, 2, 3])
    assert cache._bytes == 3 * TOKEN


def test_what_is_being_computed_is_announced_to_those_who_share_it():
    cache = PrefixCache(10**6)
    store(cache, [1, 2])
    assert cache.reserve([1, 2, 3, 4, 5]) == 0
    assert cache.match([1, 2, 3, 4, 5])[1]
    assert cache.match([1, 2, 3, 9])[1]  # 3 is on its way
    assert not cache.match([1, 2, 9])[1]
    assert not cache.match([1, 2])[1]
    assert matched(cache, [1, 2, 3, 4, 5]) == 2
    store(cache, [1, 2, 3, 4, 5])
    assert cache.match([1, 2, 3, 9])[1] is False
    assert matched(cache, [1, 2, 3, 9]) == 3


def test_what_is_stored_twice_is_kept_once():
    cache = PrefixCache(10**6)
    for _ in range(2):
        store(cache, [1, 2, 3])
        store(cache, [1, 2, 4])
    assert cache._bytes == 4 * TOKEN


def test_the_least_recently_used_goes_first():
    cache = PrefixCache(5 * TOKEN)
    store(cache, [1, 2])
    store(cache, [3, 4])
    cache.match([1, 2])
    store(cache, [5, 6])  # 6 tokens: one has to go until there is room for a fifth of the whole
    assert [matched(cache, tokens) for tokens in ([1, 2], [3, 4], [5, 6])] == [2, 0, 2]


def test_of_one_path_the_end_goes_first():
    cache = PrefixCache(5 * TOKEN)
    store(cache, [1, 2, 3])
    cache.match([1])  # cuts the path in [1] and [2, 3], and uses the first alone
    store(cache, [4, 5, 6])
    assert [matched(cache, tokens) for tokens in ([1, 2, 3], [4, 5, 6])] == [1, 3]


def test_what_was_just_stored_stays_however_large():
    cache = PrefixCache(2 * TOKEN)
    store(cache, [1, 2])
    store(cache, [3, 4, 5, 6])
    assert [matched(cache, tokens) for tokens in ([1, 2], [3, 4, 5, 6])] == [0, 4]
    assert cache._bytes == 4 * TOKEN


def test_computing_again_is_noticed():
    cache = PrefixCache(4 * TOKEN)
    store(cache, [1, 2, 3])
    store(cache, [4, 5, 6])
    assert cache.match([1, 2, 3, 7]) == ([], False)
    assert cache.reserve([1, 2, 9]) == 2  # 9 is new
    store(cache, [1, 2, 9])
    assert matched(cache, [1, 2, 3]) == 2
    assert cache.reserve([1, 2, 3]) == 1


def test_clear_forgets_what_was_computed():
    cache = PrefixCache(10**6)
    store(cache, [1, 2, 3])
    cache.clear()
    assert cache.match([1, 2, 3]) == ([], False)
    assert cache.reserve([1, 2, 3]) == 0
    assert cache._bytes == 0


@pytest.mark.parametrize("room", [10**6, 40, 12])
@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_a_plain_set_of_prefixes(room, seed):
    """Passes of an engine with random prompts over few tokens, against one dictionary entry per prefix."""
    draw = random.Random(seed)
    cache = PrefixCache(room * TOKEN)
    used: dict[tuple[int, ...], int] = {}  # prefixes that are held, and when they were last used
    ever: set[tuple[int, ...]] = set()  # that were computed once
    ends: set[tuple[int, ...]] = set()  # that are held with the hidden state of their last token
    evicted = 0
    for now in range(150):
        pending: set[tuple[int, ...]] = set()
        admitted = []
        for tokens in [[draw.randrange(3) for _ in range(draw.randrange(1, 9))] for _ in range(draw.randrange(1, 4))]:
            prefixes = [tuple(tokens[: n + 1]) for n in range(len(tokens))]
            held = sum(prefix in used for prefix in prefixes)
            is_computing = held < len(tokens) and prefixes[held] in pending
            assert matched(cache, tokens) == held
            segments, computing = cache.match(tokens)
            assert computing == is_computing
            if held == len(tokens):
                hidden = segments[-1].hidden
                assert (hidden is not None) == (tuple(tokens) in ends)
                assert hidden is None or hidden.tolist() == tokens
            used.update(dict.fromkeys(prefixes[:held], 2 * now))
            if not computing:
                lost = [prefix for prefix in prefixes[held:] if prefix in ever]
                assert cache.reserve(tokens) == len(lost)
                pending.update(prefixes[held:])
                admitted.append(tokens)
        for order, tokens in enumerate(admitted):
            prefixes = [tuple(tokens[: n + 1]) for n in range(len(tokens))]
            store(cache, tokens)
            used.update(dict.fromkeys(prefixes, 2 * now + 1 + order / 10))
            ever.update(prefixes)
            ends.add(tuple(tokens))

            segments = everything(cache)
            kept = {end[: n + 1] for end, s in segments.items() if s.kv is not None
                    for n in range(len(end) - len(s.tokens), len(end))}  # fmt: skip
            assert kept <= used.keys()
            assert cache._bytes == len(kept) * TOKEN
            gone = used.keys() - kept
            evicted += len(gone)
            if len(used) <= room:
                assert not gone
            else:
                assert len(kept) <= 0.8 * room or kept == set(prefixes)
                assert max(map(used.get, gone), default=0) <= min(map(used.get, kept))
            assert all(prefix[:-1] in kept for prefix in kept if len(prefix) > 1)  # behind an evicted one, none is held
            used = {prefix: used[prefix] for prefix in kept}
            ends &= kept
    assert (evicted > 0) == (room < 10**6)
