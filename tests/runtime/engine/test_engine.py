"""The engine as a whole: when workers have to hold back, and what is left when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness import Doubler, connected, eventually, init_within, one_worker, settled
from hotmesh import HotMesh, Worker
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.limits import MemberLimits
from interception import Turnstile

pytestmark = pytest.mark.anyio

APP = "engines"

NARROW = MemberLimits(engine=EngineLimits(uncommitted_jobs=3, second_commit=1_000))
"""Of an engine with one commit at a time, and workers that hold back when three jobs wait for it."""


@pytest.fixture
def double() -> Doubler:
    return Doubler()


@pytest.fixture
async def mesh(database_url: str, double: Doubler) -> AsyncIterator[HotMesh]:
    async with init_within(NARROW, APP, connection=database_url, workers=[Worker("w", double)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        yield mesh


def engine_of(mesh: HotMesh) -> Engine:
    assert mesh._member.engine is not None
    return mesh._member.engine


async def answers_wait(mesh: HotMesh, double: Doubler, turnstile: Turnstile) -> list[asyncio.Task[Any]]:
    """Five jobs whose answers wait while the commit of the start of a sixth is held up."""
    turnstile.open.set()
    calls = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=20)) for x in range(5)]
    await eventually(lambda: len(double.runs) == 5 and not turnstile.waiting, what="five callbacks")
    turnstile.open.clear()
    calls.append(asyncio.create_task(mesh.pubsub("one", {"x": 5}, timeout=20)))
    await eventually(lambda: turnstile.waiting == 1, what="the commit")
    double.gate.set()
    await eventually(lambda: engine_of(mesh).group_commit.waiting == 5, what="five answers")
    return calls


async def test_workers_hold_back_while_many_answers_wait_for_their_commit(
    mesh: HotMesh, double: Doubler
) -> None:
    turnstile = Turnstile(mesh)
    calls = await answers_wait(mesh, double, turnstile)
    assert engine_of(mesh).behind()

    turnstile.open.set()

    await asyncio.gather(*calls)
    assert not engine_of(mesh).behind()


async def test_stopping_waits_until_what_is_in_memory_is_committed(
    mesh: HotMesh, double: Doubler, database_url: str
) -> None:
    turnstile = Turnstile(mesh)
    calls = await answers_wait(mesh, double, turnstile)
    draining = asyncio.create_task(engine_of(mesh).drain())
    await asyncio.sleep(0)
    assert not draining.done()

    turnstile.open.set()

    await draining
    outputs = await asyncio.gather(*calls[:5])
    assert [output.data["y"] for output in outputs] == [0, 2, 4, 6, 8]
    async with connected(database_url) as connection:
        await settled(connection, APP)


async def test_what_an_engine_takes_is_counted(mesh: HotMesh, double: Doubler) -> None:
    double.gate.set()
    await mesh.pubsub("one", {"x": 1}, timeout=10)

    engine = engine_of(mesh)
    assert sum(engine.counts.values()) == 2  # a start, and an answer
    assert engine.error_count == 0
    await eventually(lambda: engine.load == (0, 0, 0))
