"""Signals, timers and replays that meet: each signal counts once, whoever is first, and history knows of what is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh.durable import Client, Worker, workflow

pytestmark = pytest.mark.anyio


@workflow.defn(task_queue="races")
async def both(first: str, second: str) -> list[Any]:
    return list(
        await asyncio.gather(workflow.condition(first, 3600), workflow.condition(second, 3600, shared=True))
    )


@workflow.defn(task_queue="races")
async def timed(signal_id: str, timeout: float) -> Any:
    return await workflow.condition(signal_id, timeout)


ALL = [both, timed]


@asynccontextmanager
async def hosted(url: str) -> AsyncIterator[Client]:
    async with Worker(url, task_queue="races", workflows=ALL):
        yield await Client.connect(url)


async def waiting(url: str, count: int) -> None:
    async def found() -> bool:
        async with connected(url) as connection:
            return bool(await connection.fetchval("select count(*) from durable.wait") == count)

    await eventually(found)


async def hand_over(connection: Any, signal_id: str, data: str, later: float = 0.0) -> None:
    """A signal by SQL alone, for the engines to find; after so many seconds."""
    async with connection.transaction():
        await connection.execute(
            "select durable.lock_signal_keys('durable', '{$signal}', array[$1])", signal_id
        )
        await connection.execute(
            "select durable.hand_over_signal('durable', '$signal', $1, $2::text::json, 'success', 200, 600)",
            signal_id,
            data,
        )
        await connection.execute(
            "update durable.engine_stream set visible_at = visible_at + $2 * interval '1 second' where activity_id = $1",
            signal_id,
            later,
        )


@pytest.mark.row("SG-01", "WP-27")
async def test_a_replay_while_a_signal_is_on_its_way(database_url: str) -> None:
    """The wait has no row any more, and its outcome is not recorded yet: it is not asked for again."""
    async with hosted(database_url) as client:
        handle = await client.start_workflow(both, "near", "far")
        await waiting(database_url, 2)
    async with connected(database_url) as connection:
        await hand_over(connection, "far", '"b"', 3600)
        await hand_over(connection, "near", '"a"')
        async with hosted(database_url) as client:
            turned = (
                "select count(*) from durable.operation where name = 'near' "
                "and not exists (select from durable.worker_stream)"
            )
            await eventually(lambda: connection.fetchval(turned))
            assert await connection.fetchval("select open from durable.job") is None, "it is parked"
            assert await connection.fetchval("select count(*) from durable.wait") == 0
            await connection.execute("update durable.engine_stream set visible_at = now()")
            result = await client.get_workflow_handle(handle.workflow_id).result(timeout=20)
            assert result == ["a", "b"]
        for table in ("wait", "timer", "signal", "engine_stream", "worker_stream"):
            assert await connection.fetchval(f"select count(*) from durable.{table}") == 0, table
