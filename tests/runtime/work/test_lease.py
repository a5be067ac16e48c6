"""Leases: renewed by a thread of its own, so that nothing a callback does to the event loop loses its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from harness import eventually
from hotmesh.errors import ConnectionLostError
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.runtime.work.lease import LeaseKeeper
from memory_queue import MemoryQueue, row

pytestmark = pytest.mark.anyio

LEASE = 0.3


@pytest.fixture
def queue(database_url: str) -> MemoryQueue:
    """Its connections are real ones: they belong to the thread that renews."""
    return MemoryQueue(source=ConnectionSource(database_url))


@pytest.fixture
def leases(queue: MemoryQueue) -> Iterator[LeaseKeeper]:
    work: Any = queue
    keeper = LeaseKeeper(work, "member", LEASE)
    keeper.start()
    yield keeper
    keeper.stop()


async def test_work_that_is_held_for_half_its_lease_is_renewed(
    queue: MemoryQueue, leases: LeaseKeeper
) -> None:
    leases.hold(row(1), time.monotonic())

    await eventually(lambda: len(queue.extended) > 1)

    assert queue.extended[0] == [row(1).key]


async def test_work_that_is_soon_done_costs_nothing(queue: MemoryQueue, leases: LeaseKeeper) -> None:
    for number in range(10):
        leases.hold(row(number), time.monotonic())
        await anyio.sleep(LEASE / 10)
        leases.release(row(number).key)

    assert queue.extended == []


async def test_it_is_renewed_while_the_event_loop_stands_still(
    queue: MemoryQueue, leases: LeaseKeeper
) -> None:
    leases.hold(row(1), time.monotonic())

    time.sleep(LEASE * 3)  # noqa: ASYNC251 - that is the point

    assert queue.extended


async def test_an_answer_does_not_count_whose_lease_was_found_lost(
    queue: MemoryQueue, leases: LeaseKeeper
) -> None:
    queue.lost.add(row(1).key)
    leases.hold(row(1), time.monotonic())
    leases.hold(row(2), time.monotonic())

    await eventually(lambda: queue.extended)
    await eventually(lambda: len(queue.extended) > 1, what="a second renewal")

    assert (leases.finish(row(1)), leases.finish(row(2))) == (False, True)


async def test_what_is_lost_can_be_held_again(queue: MemoryQueue, leases: LeaseKeeper) -> None:
    queue.lost.add(row(1).key)
    leases.hold(row(1), time.monotonic())
    await eventually(lambda: queue.extended)
    await eventually(lambda: not leases.finish(row(1)))
    queue.lost.clear()

    leases.hold(row(1), time.monotonic())

    assert leases.finish(row(1))


async def test_it_is_renewed_until_its_answer_is_written(queue: MemoryQueue, leases: LeaseKeeper) -> None:
    leases.hold(row(1), time.monotonic())
    leases.finish(row(1))
    assert leases.is_answered(row(1))
    await eventually(lambda: queue.extended)

    leases.release(row(1).key)

    assert not leases.is_answered(row(1))
    await anyio.sleep(LEASE / 4)  # one may be on its way
    count = len(queue.extended)
    await anyio.sleep(LEASE * 1.5)
    assert len(queue.extended) == count


@pytest.mark.parametrize("error", [ConnectionLostError("gone"), ValueError("odd")], ids=["lost", "odd"])
async def test_a_renewal_that_fails_is_tried_again(
    queue: MemoryQueue, leases: LeaseKeeper, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    queue.failing = [error]

    leases.hold(row(1), time.monotonic())

    await eventually(lambda: queue.extended)
    assert "leases could not be renewed" in [record.event for record in caplog.records]  # type: ignore[attr-defined]


async def test_it_ends_at_once(leases: LeaseKeeper) -> None:
    since = time.monotonic()

    leases.stop()

    assert time.monotonic() - since < 1


def test_what_ends_before_it_started_ends(database_url: str) -> None:
    work: Any = MemoryQueue(source=ConnectionSource(database_url))

    stop: Callable[[], None] = LeaseKeeper(work, "member", LEASE).stop

    stop()
