"""Who is waited for, and who has to wait."""

import asyncio

import pytest

from firstfault.engines.base import Turnstile


def quiet(turnstile: Turnstile) -> bool:
    """Whether the engine may take a pass now."""

    async def main() -> bool:
        try:
            await asyncio.wait_for(turnstile.quiet(), 0.01)
        except TimeoutError:
            return False
        return True

    return asyncio.run(main())


def test_who_is_due_is_waited_for_until_he_closes():
    turnstile = Turnstile()
    assert quiet(turnstile)
    first, second = turnstile.hold(), turnstile.hold()
    first.close()
    assert not quiet(turnstile)
    second.close()
    second.close()
    assert quiet(turnstile)


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_who_was_answered_is_due_after_the_overlap(overlap):
    turnstile = Turnstile(overlap=overlap)
    hold = turnstile.hold()
    turnstile.passes = 7
    with hold.asking():
        assert quiet(turnstile)
        turnstile.passes += 1
    assert hold.due == 8 + overlap
    for _ in range(overlap):
        assert quiet(turnstile) and not turnstile.admits(hold.due)
        turnstile.passes += 1
    assert not quiet(turnstile) and turnstile.admits(hold.due)


def test_a_hold_is_due_as_the_last_of_its_forks_was():
    turnstile = Turnstile(overlap=2)
    parent = turnstile.hold()
    early, late = parent.fork(), parent.fork()
    with early.asking(), late.asking():
        assert quiet(turnstile)  # the parent waits for them, and they wait for the engine
        turnstile.passes += 1
    with late.asking():
        turnstile.passes += 4
    late.close()  # the order in which they close does not matter
    early.close()
    assert parent.due == 5 + 2
    turnstile.passes = 7
    assert not quiet(turnstile)
    parent.close()
    assert quiet(turnstile)


def test_without_determinism_nobody_waits():
    turnstile = Turnstile(deterministic=False, overlap=2)
    assert turnstile.admits(turnstile.hold().due + 5)
    assert quiet(turnstile)
