"""Reservations of which nobody knows whether they were made: asked after until they are found, or have lapsed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from harness import eventually
from hotmesh.errors import ConnectionLostError
from memory_queue import Room, a_worker

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def looking(room: Room) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(room.lost_reservations.run)
        await anyio.wait_all_tasks_blocked()
        yield
        tasks.cancel_scope.cancel()


async def test_as_long_as_nothing_is_lost_nobody_looks() -> None:
    room = Room(a_worker())
    async with looking(room):
        await anyio.sleep(0.06)

    assert room.queue.given_back == []


async def test_what_is_lost_is_looked_for_again_and_again_and_then_forgotten() -> None:
    room = Room(a_worker(), lease=0.2)
    async with looking(room):
        room.lost_reservations.add(7)
        await anyio.sleep(0.6)

    # At once, after 0.05 s and after 0.25 s; by then it has lapsed.
    assert room.queue.given_back == [[7], [7], [7]]


async def test_what_is_found_is_announced() -> None:
    room = Room(a_worker())
    room.queue.found = 2
    async with looking(room):
        room.lost_reservations.add(7)
        await anyio.wait_all_tasks_blocked()

    assert len(room.announced) == 1


async def test_a_further_one_is_looked_for_at_once() -> None:
    room = Room(a_worker())
    async with looking(room):
        room.lost_reservations.add(7)
        await anyio.wait_all_tasks_blocked()
        room.lost_reservations.add(8)
        await anyio.wait_all_tasks_blocked()

    assert room.queue.given_back == [[7], [7, 8]]


async def test_a_look_that_fails_is_repeated() -> None:
    room = Room(a_worker())
    room.queue.failing = [ConnectionLostError("gone")]
    async with looking(room):
        room.lost_reservations.add(7)
        await eventually(lambda: room.queue.given_back == [[7], [7]])


async def test_where_nothing_is_served_there_is_nothing_to_find() -> None:
    room = Room()
    async with looking(room):
        room.lost_reservations.add(7)
        await anyio.wait_all_tasks_blocked()

    assert room.queue.given_back == []
