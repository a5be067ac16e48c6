"""Signals, further answers and interrupts go out together, and each counts by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually
from hotmesh import DatabaseError, HotMesh, JobNotFoundError

pytestmark = pytest.mark.anyio

GRAPH = """
app:
  id: outbox
  version: '1'
  graphs:
    - subscribes: s
      expire: 3600
      activities:
        t: {type: trigger}
        h:
          type: hook
          job:
            maps:
              told: '{$self.hook.data.told}'
      transitions:
        t: [{to: h}]
      hooks:
        go:
          - to: h
            conditions: {match: [{expected: '{$job.data.key}', actual: '{$self.hook.data.id}'}]}
"""

MANY = 60


@pytest.fixture
async def mesh(database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("outbox", connection=database_url) as mesh:
        await mesh.deploy(GRAPH.replace("$job.data.key", "$job.metadata.jid"))
        await mesh.activate("1")
        yield mesh


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database_url) as connection:
        yield connection


async def waiting(mesh: HotMesh, count: int) -> list[str]:
    return await asyncio.gather(*(mesh.pub("s", {}, extended={"id": f"job-{n}"}) for n in range(count)))


async def ended(mesh: HotMesh, job_id: str) -> Any:
    await eventually(lambda: _is_over(mesh, job_id), what=f"the end of {job_id}")
    return (await mesh.get_state("s", job_id))["data"]


async def _is_over(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) == 0


async def test_signals_at_once_share_transactions_and_notify_nobody(
    mesh: HotMesh, connection: asyncpg.Connection
) -> None:
    job_ids = await waiting(mesh, MANY)
    heard: list[str] = []
    channel = await connection.fetchval("select hotmesh.channel('outbox')")
    await connection.add_listener(channel, lambda *heard_: heard.append(str(heard_[3])))

    outcomes = await asyncio.gather(*(mesh.signal("go", {"id": one, "told": one}) for one in job_ids))
    written = await connection.fetch(
        "select xmin::text, count(*) from hotmesh.engine_stream group by 1 union all "
        "select xmin::text, count(*) from hotmesh.job group by 1"
    )

    assert outcomes == ["delivered"] * MANY
    assert [await ended(mesh, one) for one in job_ids] == [{"told": one} for one in job_ids]
    assert len(written) < MANY / 3
    assert not heard
    assert await connection.fetchval("select count(*) from hotmesh.engine_stream") == 0


async def test_a_signal_that_cannot_be_stored_is_raised_to_its_sender_and_harms_no_other(
    mesh: HotMesh, connection: asyncpg.Connection
) -> None:
    await connection.execute("alter table hotmesh.signal add constraint none_of_these check (key <> 'bad')")
    job_ids = await waiting(mesh, 10)
    good = [mesh.signal("go", {"id": one, "told": one}) for one in job_ids]

    bad, *outcomes = await asyncio.gather(mesh.signal("go", {"id": "bad"}), *good, return_exceptions=True)

    assert isinstance(bad, DatabaseError)
    assert outcomes == ["delivered"] * 10
    for one in job_ids:
        assert await ended(mesh, one) == {"told": one}


async def test_of_two_signals_under_one_key_the_waiter_gets_one(mesh: HotMesh) -> None:
    (job_id,) = await waiting(mesh, 1)

    outcomes = await asyncio.gather(
        *(mesh.signal("go", {"id": job_id, "told": n}, pending=False) for n in range(5))
    )

    assert outcomes == ["delivered", *["dropped"] * 4]
    assert await ended(mesh, job_id) == {"told": 0}


async def test_a_wait_in_other_hands_holds_up_its_own_signal_alone(mesh: HotMesh, database_url: str) -> None:
    first, second = await waiting(mesh, 2)
    async with connected(database_url) as other:
        holding = other.transaction()
        await holding.start()
        await other.execute("select from hotmesh.wait where job_id = $1 for update", first)
        held = asyncio.create_task(mesh.signal("go", {"id": first, "told": 1}))
        assert await mesh.signal("go", {"id": second, "told": 2}) == "delivered"
        assert await ended(mesh, second) == {"told": 2}
        assert not held.done()
        await holding.rollback()

    assert await held == "delivered"
    assert await ended(mesh, first) == {"told": 1}


async def test_a_caller_who_has_gone_before_it_was_sent_has_sent_nothing(
    mesh: HotMesh, connection: asyncpg.Connection
) -> None:
    leaving = asyncio.create_task(mesh.signal("go", {"id": "early"}))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await mesh.signal("go", {"id": "other"})

    assert await connection.fetchval("select array_agg(key) from hotmesh.signal") == ["other"]


async def test_an_engine_that_takes_nothing_leaves_its_signals_to_others_at_once(
    mesh: HotMesh, database_url: str, connection: asyncpg.Connection
) -> None:
    (job_id,) = await waiting(mesh, 1)
    async with HotMesh.init("outbox", connection=database_url, readonly=True) as reader:
        heard: list[str] = []
        channel = await connection.fetchval("select hotmesh.channel('outbox')")
        await connection.add_listener(channel, lambda *heard_: heard.append(str(heard_[3])))
        assert await reader.signal("go", {"id": job_id, "told": "by a reader"}) == "delivered"
        assert await ended(mesh, job_id) == {"told": "by a reader"}
        await eventually(lambda: '{"e":1}' in heard, what="the hint")


async def test_interrupts_at_once_end_each_job_and_name_the_missing_one(mesh: HotMesh) -> None:
    job_ids = await waiting(mesh, 10)

    *done, missing = await asyncio.gather(
        *(mesh.interrupt("s", one) for one in (*job_ids, "nobody")), return_exceptions=True
    )

    assert all(isinstance(guid, str) for guid in done)
    assert isinstance(missing, JobNotFoundError)
    assert [await mesh.get_status(one) < 0 for one in job_ids] == [True] * 10
