"""Loading: jobs that are not in memory are read when something happens to them, all that wait at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import Doubler, connected, eventually, one_worker, settled
from hotmesh import HotMesh, Worker
from hotmesh.core.state.job import Event
from hotmesh.postgres import loading
from hotmesh.runtime.engine.engine import Engine
from interception import database_of, intercept

pytestmark = pytest.mark.anyio

APP = "loads"


async def deployed(mesh: HotMesh) -> Engine:
    await mesh.deploy(one_worker(APP))
    await mesh.activate("1")
    assert mesh._member.engine is not None
    return mesh._member.engine


def forget_all(engine: Engine) -> None:
    for cached in list(engine.cache):
        engine.cache.forget(cached)


async def test_jobs_that_were_forgotten_are_loaded_together_and_go_on(database_url: str) -> None:
    double = Doubler()
    async with (
        HotMesh.init(APP, connection=database_url, workers=[Worker("w", double)]) as mesh,
        connected(database_url) as connection,
    ):
        engine = await deployed(mesh)
        calls = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=20)) for x in range(30)]
        await eventually(lambda: len(double.runs) == 30, what="the callbacks")
        loads: list[int] = []

        async def counted(connection: Any, job_ids: Any) -> Any:
            loads.append(len(job_ids))
            return await honest(connection, job_ids)

        honest = intercept(database_of(mesh), loading.load_jobs, counted)
        forget_all(engine)
        double.gate.set()
        outputs = await asyncio.gather(*calls)
        await settled(connection, APP)

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(30)]
    assert sum(loads) == 30
    assert len(loads) <= 3


async def test_what_happens_to_a_job_that_is_gone_is_dropped(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh, connected(database_url) as connection:
        engine = await deployed(mesh)
        job_id = await mesh.pub("one", {"x": 1})
        generation = str(await connection.fetchval("select generation from hotmesh.job"))
        await mesh.scrub(job_id)
        forget_all(engine)

        engine.deliver(job_id, generation, Event("answer", "call", (0, 0), data={"y": 1}))

        await eventually(lambda: not len(engine.cache), what="the end of the event")
        assert await connection.fetchval("select count(*) from hotmesh.job") == 0
