"""A process that loses its tenure while a commit is on its way: only what must not be written is refused, and it goes on hosting."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import asyncpg
import pytest

from harness import eventually, one_worker
from hotmesh import StreamData
from hotmesh import Worker as GraphWorker
from hotmesh.durable import Client, Worker, workflow
from hotmesh.postgres import commits
from interception import database_of, intercept

pytestmark = [pytest.mark.anyio, pytest.mark.live]

gate = asyncio.Event()
runs: Counter[str] = Counter()


async def gated(name: str) -> str:
    runs[name] += 1
    await gate.wait()
    return name


async def after(name: str) -> str:
    runs[f"{name} after"] += 1
    return name


async def hang(name: str) -> None:
    runs[name] += 1
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        runs[f"{name} cancelled"] += 1
        raise


@workflow.defn(task_queue="tenure")
async def goes_on(name: str) -> str:
    await workflow.step(gated, name)
    return await workflow.step(after, name)


@workflow.defn(task_queue="tenure")
async def ends(name: str) -> str:
    return await workflow.step(gated, name)


@workflow.defn(task_queue="tenure")
async def beside(name: str) -> str:
    await asyncio.gather(workflow.step(gated, name), workflow.step(hang, f"{name} hangs"))
    return name


@workflow.defn(task_queue="tenure")
async def sleeps(name: str) -> str:
    await workflow.step(gated, name)
    await asyncio.sleep(0.01)
    return name


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


async def test_a_tenure_that_lapsed_refuses_what_would_be_held_and_nothing_else(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Design §3: with held steps: MS003; the process then opens another tenure and commits again."""
    gate.clear()
    runs.clear()
    batches: list[int] = []
    async with Worker(database_url, task_queue="tenure", workflows=[goes_on, ends, beside, sleeps]) as worker:
        mesh = worker.mesh
        await mesh.deploy(one_worker("durable"))
        await mesh.activate("1")
        mesh.add_worker(GraphWorker("w", double))
        connection = await asyncpg.connect(database_url)
        first = await connection.fetchval("select max(tenure) from durable.tenure")

        async def commit(link: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
            batches.append(len(batch.arguments("", "", 0, 0, 0, None)))
            if len(batches) == 1:
                await connection.execute("update durable.tenure set lapsed = true")
            return await honest(link, batch, *arguments, **options)

        client = await Client.connect(database_url)
        handles = {
            f"{function.__name__} {number}": await client.start_workflow(
                function, f"{function.__name__} {number}"
            )
            for function in (goes_on, ends, sleeps)
            for number in range(3)
        }
        stuck = await client.start_workflow(beside, "beside")
        await eventually(lambda: len(runs) == 11, what="all steps")
        honest = intercept(database_of(mesh), commits.commit, commit)
        with caplog.at_level(logging.WARNING, "hotmesh"):
            gate.set()
            answers = asyncio.gather(
                *(mesh.pubsub("one", {"x": x}, timeout=10) for x in range(5)),
                *(handle.result(timeout=20) for handle in handles.values()),
            )
            started = [await client.start_workflow(ends, f"late {number}") for number in range(3)]
            found: list[Any] = list(await answers)
            assert [await handle.result(timeout=10) for handle in started] == [f"late {n}" for n in range(3)]
        assert [output.data for output in found[:5]] == [{"y": x * 2} for x in range(5)]
        assert found[5:] == list(handles)
        for number in range(3):
            # What would be held goes to whoever may hold it: this process, with another tenure. It may get it before the
            # hand-over does; then nothing is run again. What ends, or waits for a row only, needs no tenure; but outcomes that
            # were still in memory when it was lost are let go, too.
            for name in ("ends", "sleeps", "goes_on"):
                assert runs[f"{name} {number}"] in (1, 2)
            assert runs[f"goes_on {number} after"] == 1
            assert runs[f"late {number}"] == 1
        await eventually(lambda: runs["beside hangs"] == 2, what="the step that was let go, anew")
        assert runs["beside hangs cancelled"] == 1
        told = [record for record in caplog.records if getattr(record, "event", None) == "tenure-lost"]
        assert len(told) == 1
        await stuck.terminate()
        assert await connection.fetchval("select min(tenure) from durable.tenure where not lapsed") > first
        assert not await connection.fetchval("select count(*) from durable.job where held and status > 0")
        assert not await connection.fetchval("select count(*) from durable.dead_letter")
        await connection.close()
