"""Hints that many members hear: who looks at once, and who takes turns with the others."""

from __future__ import annotations

import pytest

from hotmesh.runtime.wake import EAGER, SMALL_CROWD, TURN, Wake

pytestmark = pytest.mark.anyio


def looked_in_vain(crowd: int, *, longest: float = 3.0, times: int = EAGER) -> Wake:
    """One of a crowd, who has looked for what others had taken."""
    wake = Wake(longest)
    wake.crowd = crowd
    for _ in range(times):
        wake.hint()
        wake.looked(found=False)
    wake.clear()
    return wake


async def test_few_members_always_look_at_once() -> None:
    for crowd in range(1, SMALL_CROWD + 1):
        wake = looked_in_vain(crowd, times=100)
        wake.hint()
        assert wake.is_set()
        assert wake.hesitant(0.5) == 0.5


async def test_who_finds_something_looks_at_once() -> None:
    for _ in range(20):
        wake = looked_in_vain(150)
        wake.looked(found=True)
        wake.hint()
        assert wake.is_set()


async def test_looks_without_a_reason_make_nobody_hesitate() -> None:
    wake = Wake(3.0)
    wake.crowd = 150
    for _ in range(100):
        wake.looked(found=False)
    wake.hint()
    assert wake.is_set()


async def test_many_who_look_in_vain_take_turns_and_the_first_of_them_looks_nearly_at_once() -> None:
    crowd = 150
    span = (crowd - SMALL_CROWD) * TURN
    wakes = [looked_in_vain(crowd) for _ in range(crowd)]
    for wake in wakes:
        wake._looked_at -= 60  # the last hint was long ago
    pauses = [wake.hesitant(0.0) for wake in wakes]

    # A few at most at the same time: all but one in 10**6 runs have fewer than 20 that look at once.
    assert sum(pause == 0 for pause in pauses) < 20
    assert min(pauses) < 0.1
    assert max(pauses) <= span


async def test_nobody_hesitates_longer_than_it_polls() -> None:
    wakes = [looked_in_vain(10_000, longest=1.0) for _ in range(50)]
    for wake in wakes:
        wake._looked_at -= 60
    assert max(wake.hesitant(0.0) for wake in wakes) <= 1.0


async def test_many_hints_do_not_bring_a_look_nearer() -> None:
    wakes = [looked_in_vain(150) for _ in range(50)]
    first = [wake.hesitant(0.0) for wake in wakes]
    for wake in wakes:
        for _ in range(100):
            wake.hint()
    last = [wake.hesitant(0.0) for wake in wakes]
    assert last == pytest.approx(first, abs=0.2)
    assert sum(wake.is_set() for wake in wakes) == sum(pause == 0 for pause in first)


async def test_who_looks_all_the_time_rests_for_half_of_the_span_at_least() -> None:
    span = (150 - SMALL_CROWD) * TURN
    for _ in range(50):
        pause = looked_in_vain(150).hesitant(0.0)
        assert pause == 0 or pause > 0.45 * span
