"""Workflows with long histories: read in pages, replayed in pieces, and no dearer per operation than short ones."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from hotmesh.durable import Client, Worker, activity, workflow

pytestmark = [pytest.mark.anyio, pytest.mark.live]

LONG = 50_000
MORE = 200


@activity.step
async def note(number: int) -> int:
    return number


@workflow.defn(task_queue="long")
async def counts(until: int) -> int:
    total = 0
    for number in range(until):
        total += await note(number)
    return total


async def _with_history(connection: asyncpg.Connection, client: Client, length: int) -> str:
    """A workflow that has so many operations behind it, and was left by the process that did them."""
    handle = await client.start_workflow(counts, length + MORE)
    await connection.execute(
        "insert into durable.operation (generation, strand, position, seq, kind, name, status, result, ended_at) "
        "select $1, 0, n, (n + 1) * 65536::bigint, 'step', 'note', 'done', to_json(n - 1), clock_timestamp() "
        "from generate_series(1, $2::integer) as n",
        handle.run_id,
        length,
    )
    await connection.execute(
        "update durable.job set seq = $2 + 1 where generation = $1", handle.run_id, length
    )
    return handle.workflow_id


async def _lag(found: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0)
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.002)


async def test_fifty_thousand_operations(database_url: str) -> None:
    """Design §13, a replay of 50,000 operations: it gives way to other things every 1,000 of them."""
    connection = await asyncpg.connect(database_url)
    client = await Client.connect(database_url)
    names = [await _with_history(connection, client, length) for length in (50, LONG)]
    await client.close()
    lags: list[float] = []
    watch = asyncio.create_task(_lag(lags))
    async with Worker(database_url, task_queue="long", workflows=[counts]):
        client = await Client.connect(database_url)
        for name, length in zip(names, (50, LONG), strict=True):
            total = sum(range(length + MORE))
            assert await client.get_workflow_handle(name).result(timeout=30) == total
    watch.cancel()
    # Replayed at once, it would have stood still for all of it.
    assert max(lags) < 0.25, max(lags)
    first, last = [
        await connection.fetchval(
            "select extract(epoch from max(ended_at) - min(ended_at))::float8 from durable.operation "
            "where generation = (select generation from durable.job where job_id = $1) and position > $2 + 20",
            name,
            length,
        )
        for name, length in zip(names, (50, LONG), strict=True)
    ]
    print(
        f"operation 50: {first / MORE * 1e3:.2f} ms, operation {LONG:,}: {last / MORE * 1e3:.2f} ms, lag {max(lags):.3f} s"
    )
    assert last < 2.5 * first
    await connection.close()
