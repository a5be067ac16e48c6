"""A queue of notifications that is full costs latency, and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually, one_worker, settled
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.postgres import local

pytestmark = pytest.mark.anyio

APP = "full"


@pytest.fixture(scope="module")
def small_queue_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose queue of notifications holds half a megabyte."""
    directory: Path = tmp_path_factory.mktemp("small-queue") / "data"
    server = local.ensure_running(data_dir=directory)
    try:
        if int(server.version.split(".")[0]) < 17:
            pytest.skip("the size of the queue can be set from Postgres 17 on")
        asyncio.run(_set(server.dsn))
        local.stop(data_dir=directory)
        yield local.ensure_running(data_dir=directory).dsn
    finally:
        local.stop(data_dir=directory)


async def _set(url: str) -> None:
    async with connected(url) as connection:
        await connection.execute("alter system set max_notify_queue_pages = 64")


@asynccontextmanager
async def full_queue(url: str) -> AsyncIterator[None]:
    """A session that listens stands still in a transaction, and others notify until nothing more goes in."""
    async with connected(url) as listener, connected(url) as sender:
        await listener.execute("listen something")
        await listener.execute("begin; select 1")
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await _fill(sender)
        yield


async def _fill(sender: asyncpg.Connection) -> None:
    for number in range(1_000):
        await sender.execute("select pg_notify('other', $1)", f"{number:07900}")


async def test_work_goes_on_beside_a_full_queue_and_no_callback_runs_twice(small_queue_url: str) -> None:
    runs: Counter[int] = Counter()

    async def double(message: StreamData) -> dict[str, Any]:
        runs[message.data["x"]] += 1
        return {"y": message.data["x"] * 2}

    async with (
        HotMesh.init(APP, connection=small_queue_url, lease=3) as mesh,
        HotMesh.init(
            APP, connection=small_queue_url, engine=False, lease=3, workers=[Worker("w", double)]
        ) as worker,
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        await mesh.pubsub("one", {"x": -1}, timeout=10)
        async with full_queue(small_queue_url):
            outputs = await asyncio.gather(*(mesh.pubsub("one", {"x": x}, timeout=20) for x in range(40)))
            async with connected(small_queue_url) as connection:
                await settled(connection, APP)
        outputs.append(await mesh.pubsub("one", {"x": 40}, timeout=10))
        assert not mesh.stopped
        assert not worker.stopped

    assert [output.data for output in outputs] == [{"y": 2 * x} for x in range(41)]
    assert set(runs.values()) == {1}


async def test_results_for_other_processes_wait_until_the_queue_has_room(small_queue_url: str) -> None:
    async def double(message: StreamData) -> dict[str, Any]:
        return {"y": message.data["x"] * 2}

    told: list[Any] = []

    async def tell(_topic: str, output: Any) -> None:
        told.append(output.data["y"])

    async with (
        HotMesh.init(APP, connection=small_queue_url, workers=[Worker("w", double)]) as mesh,
        HotMesh.init(APP, connection=small_queue_url, engine=False) as other,
    ):
        await mesh.deploy(one_worker(APP).replace("version: '1'", "version: '2'"))
        await mesh.activate("2")
        await other.sub("one.done", tell)
        async with full_queue(small_queue_url):
            await mesh.pubsub("one", {"x": 1}, timeout=20)
            await asyncio.sleep(0.5)
            assert told == []
        await eventually(lambda: told == [2], within=15, what="the result")
