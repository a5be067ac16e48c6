"""A job that an engine gives up ends as any other: it expires, and all who wait for it are told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from harness import connected, eventually, one_worker, owed
from hotmesh import DBA, HotMesh, JobError, StreamData, Worker
from hotmesh.core.advance import advance as core
from hotmesh.runtime.definitions import program as program_module

pytestmark = pytest.mark.anyio

APP = "burial"


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


async def test_a_job_that_is_given_up_is_told_expires_is_pruned_and_can_be_requeued(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, broken = core.advance, True

    def advance(plan: Any, job: Any, *arguments: Any, **options: Any) -> Any:
        if broken and job.job_id == "poison":
            raise RuntimeError("a defect")
        return honest(plan, job, *arguments, **options)

    monkeypatch.setattr(program_module, "advance", advance)
    told: list[str] = []

    async def tell(_topic: str, output: Any) -> None:
        told.append(output.metadata["jid"])

    async with (
        HotMesh.init(APP, connection=database_url, settings={"poison_threshold": 1}) as mesh,
        HotMesh.init(APP, connection=database_url, engine=False, workers=[Worker("w", double)]) as other,
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        await other.sub("one.done", tell)
        monkeypatch.setattr(mesh._member.engine, "answered", lambda _: None)
        began = time.monotonic()
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("one", {"x": 1}, extended={"id": "poison"}, timeout=20)
        assert time.monotonic() - began < 4, "told at once, and not when the job was read again"
        assert caught.value.code == 598
        await eventually(lambda: told == ["poison"], what="the news for a subscriber elsewhere")
        kept = await connection.fetchval(
            "select extract(epoch from expires_at - ended_at) from hotmesh.job where job_id = 'poison'"
        )
        assert kept == 3600
        assert await owed(connection, APP) == {}

        (letter,) = await mesh.list_dead_letters()
        assert "a defect" in letter.reason
        broken = False
        await mesh.requeue(letter.id)
        await eventually(lambda: told == ["poison"] * 2, what="its end")
        assert (await mesh.get_state("one", "poison")).data == {"y": 2}

        broken = True
        with pytest.raises(JobError):
            await mesh.pubsub("one", {"x": 1}, extended={"id": "poison"}, timeout=20)
        await connection.execute(
            "update hotmesh.job set created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour'"
        )
        assert (await DBA.prune(APP, database_url, expire=1)).jobs == 1


async def test_a_given_up_id_is_free_once_it_has_expired(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, broken = core.advance, True

    def advance(*arguments: Any, **options: Any) -> Any:
        if broken:
            raise RuntimeError("a defect")
        return honest(*arguments, **options)

    monkeypatch.setattr(program_module, "advance", advance)
    graph = one_worker(APP).replace("expire: 3600", "expire: 1")
    async with (
        HotMesh.init(APP, connection=database_url, settings={"poison_threshold": 1}) as mesh,
        HotMesh.init(APP, connection=database_url, engine=False, workers=[Worker("w", double)]),
    ):
        await mesh.deploy(graph)
        await mesh.activate("1")
        monkeypatch.setattr(mesh._member.engine, "answered", lambda _: None)
        with pytest.raises(JobError):
            await mesh.pubsub("one", {"x": 1}, extended={"id": "poison"}, timeout=20)
        broken = False
        await asyncio.sleep(1.1)
        assert (await mesh.pubsub("one", {"x": 2}, extended={"id": "poison"}, timeout=20)).data == {"y": 4}
