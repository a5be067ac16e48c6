"""Work of a topic and the callbacks that take it, as an app sees them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from harness import connected, eventually, init_within, one_worker, settled
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.limits import MemberLimits

pytestmark = pytest.mark.anyio

APP = "streams"


async def _deployed(url: str) -> None:
    async with HotMesh.init(APP, connection=url, engine={"readonly": True}) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")


@pytest.mark.row(259)
async def test_a_notified_worker_runs_until_it_is_stopped(database_url: str) -> None:
    ran: list[int] = []

    async def note(message: StreamData) -> dict[str, Any]:
        ran.append(message.data["x"])
        return {"y": 1}

    await _deployed(database_url)
    slow = {"poll": 60.0}
    async with (
        HotMesh.init(APP, connection=database_url, settings=slow) as caller,
        HotMesh.init(
            APP, connection=database_url, workers=[Worker("w", note)], engine=False, settings=slow
        ) as worker,
    ):
        for number in (1, 2):
            await caller.pub("one", {"x": number})
        await eventually(lambda: sorted(ran) == [1, 2], within=5)
        await worker.stop()
        await caller.pub("one", {"x": 3})
        async with connected(database_url) as connection:
            rows = await connection.fetch("select reserved_by from hotmesh.worker_stream")
    assert ([row["reserved_by"] for row in rows], sorted(ran)) == ([None], [1, 2])


@pytest.mark.row(274)
async def test_a_slow_worker_keeps_its_work(database_url: str) -> None:
    ran: list[tuple[str, int]] = []

    gate = asyncio.Event()

    def taking(name: str) -> Worker:
        async def callback(message: StreamData) -> dict[str, Any]:
            ran.append((name, message.data["x"]))
            if name == "slow":
                await gate.wait()
            return {"y": name}

        return Worker("w", callback, max_concurrency=1)

    await _deployed(database_url)
    async with HotMesh.init(APP, connection=database_url, workers=[taking("slow")], lease=1) as slow:
        first = asyncio.create_task(slow.pubsub("one", {"x": 1}, timeout=30))
        await eventually(lambda: ran)
        began = time.monotonic()
        async with HotMesh.init(APP, connection=database_url, workers=[taking("quick")], lease=1):
            others = [await slow.pub("one", {"x": number}) for number in (2, 3)]
            await eventually(lambda: len(ran) == 3 and time.monotonic() - began > 2.5, what="two leases")
            assert await slow.get_status(await _job_of(database_url, 1)) == 1
            gate.set()
            assert (await first).data == {"y": "slow"}
            states = [(await slow.get_state("one", job)).data for job in others]
    assert states == [{"y": "quick"}] * 2
    assert sorted(ran, key=lambda item: item[1]) == [("slow", 1), ("quick", 2), ("quick", 3)]


async def _job_of(url: str, x: int) -> str:
    async with connected(url) as connection:
        return str(
            await connection.fetchval("select job_id from hotmesh.job where (input ->> 'x')::integer = $1", x)
        )


@pytest.mark.row(276)
async def test_no_more_is_held_than_runs(database_url: str) -> None:
    limits = MemberLimits(engine=EngineLimits(uncommitted_jobs=20))
    running = most = 0

    async def counted(message: StreamData) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return {"y": 1}

    await _deployed(database_url)
    async with HotMesh.init(APP, connection=database_url, engine={"readonly": True}) as caller:
        await asyncio.gather(*(caller.pub("one", {"x": number}) for number in range(1000)))
    held: list[int] = []
    workers = [Worker("w", counted, max_concurrency=10)]
    async with (
        connected(database_url) as connection,
        init_within(limits, APP, connection=database_url, workers=workers),
    ):

        async def look() -> bool:
            row: Any = await connection.fetchrow(
                "select count(*) filter (where reserved_by is not null and visible_at > now()) as held, "
                "count(*) as total from hotmesh.worker_stream"
            )
            held.append(row["held"])
            return bool(row["total"] == 0)

        await eventually(look, within=20)
        await settled(connection, APP, within=20)
    # Beside the ten that run: what is answered and waits for a commit (20 and the last claim), or is in one.
    assert max(held) <= 150
    assert most <= 10
