"""Waits beside each other, many at once, and handlers that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import connected
from hotmesh.durable import Client, Worker, activity, workflow

pytestmark = pytest.mark.anyio


@activity.step
async def greet(number: int) -> str:
    return f"Hello, {number}!"


@workflow.defn(task_queue="more")
async def mixed() -> list[Any]:
    return list(await asyncio.gather(greet(1), greet(2), greet(3), workflow.sleep("300ms")))


@workflow.defn(task_queue="more")
async def waits_and_greets(signal_id: str) -> list[Any]:
    first = list(await asyncio.gather(workflow.condition(signal_id), greet(1)))
    return [*first, *await asyncio.gather(greet(2), greet(3))]


@workflow.defn(task_queue="more")
async def many(count: int) -> list[Any]:
    return list(await asyncio.gather(*(workflow.condition(f"many {number}") for number in range(count))))


@workflow.defn(task_queue="more")
async def naps(seconds: float) -> float:
    return await workflow.sleep(seconds)


@workflow.defn(task_queue="more")
async def wait_for(signal_id: str) -> Any:
    return await workflow.condition(signal_id)


@workflow.defn(task_queue="more")
async def tell(signal_id: str) -> None:
    workflow.signal(signal_id, signal_id)


@workflow.defn(task_queue="more")
async def ticks(count: int) -> int:
    for _ in range(count):
        await asyncio.sleep(0.01)
    return count


@workflow.defn(task_queue="more")
class Careless:
    def __init__(self) -> None:
        self.seen: list[int] = []

    @workflow.run
    async def run(self) -> list[int]:
        await workflow.wait_condition(lambda: 4 in self.seen, timeout="1 hour")
        return self.seen

    @workflow.signal
    async def number(self, number: int) -> None:
        await greet(number)
        if number == 2:
            raise ValueError("two is not to be had")
        self.seen.append(number)

    @workflow.signal
    def plain(self, number: int) -> None:
        raise ValueError("nor is this")


ALL = [mixed, waits_and_greets, many, naps, wait_for, tell, ticks, Careless]


@asynccontextmanager
async def hosted(url: str) -> AsyncIterator[Client]:
    async with Worker(url, task_queue="more", workflows=ALL):
        yield await Client.connect(url)


@pytest.mark.row("WP-17", "WP-18", "WP-24", "WP-28")
async def test_waits_beside_steps(database_url: str) -> None:
    async with hosted(database_url) as client:
        greetings = ["Hello, 1!", "Hello, 2!", "Hello, 3!"]
        assert await client.execute_workflow(mixed) == [*greetings, 0.3]
        handle = await client.start_workflow(waits_and_greets, "both")
        await client.signal("both", ["payload", None])
        assert await handle.result(timeout=20) == [["payload", None], *greetings]


@pytest.mark.row("SG-02", "WP-27")
async def test_25_waits_whose_signals_are_all_there(database_url: str) -> None:
    """Each has its own payload, in order, with the first turn."""
    async with hosted(database_url) as client:
        await asyncio.gather(*(client.signal(f"many {number}", number) for number in range(25)))
        handle = await client.start_workflow(many, 25)
        assert await handle.result(timeout=20) == list(range(25))


@pytest.mark.row("SG-03")
async def test_100_that_wait_and_100_that_signal_them(database_url: str) -> None:
    async with hosted(database_url) as client:
        ids = [f"pair {number}" for number in range(100)]
        starts = [client.start_workflow(function, one) for one in ids for function in (wait_for, tell)]
        handles = await asyncio.gather(*starts)
        results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        assert results[::2] == ids
        async with connected(database_url) as connection:
            for table in ("wait", "timer", "signal", "engine_stream"):
                assert await connection.fetchval(f"select count(*) from durable.{table}") == 0, table


@pytest.mark.row("SG-18")
async def test_a_payload_of_a_megabyte(database_url: str) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(wait_for, "large")
        await client.signal("large", "x" * 1_000_000)
        assert len(await handle.result(timeout=20)) == 1_000_000


@pytest.mark.row("WP-50", "WP-57")
async def test_timers_are_never_early_and_not_late(database_url: str) -> None:
    async with hosted(database_url) as client:
        lengths = [0.1, 0.2, 0.4, *[0.3] * 30]
        handles = await asyncio.gather(*(client.start_workflow(naps, one) for one in lengths))
        assert [await handle.result(timeout=20) for handle in handles] == lengths
        late = []
        async with connected(database_url) as connection:
            for handle, length in zip(handles, lengths, strict=True):
                took = await connection.fetchval(
                    "select ended_at - created_at from durable.job where generation = $1", handle.run_id
                )
                late.append(took.total_seconds() - length)
        assert min(late) >= 0
        assert sorted(late)[len(late) // 2] < 0.5, late
        assert await client.execute_workflow(ticks, 3) == 3


async def test_a_handler_that_fails_does_not_end_its_workflow(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(Careless)
        await handle.signal("plain", 1)
        await handle.signal("number", "no number")
        for number in range(1, 5):
            await handle.signal("number", number)
        assert sorted(await handle.result(timeout=20)) == [1, 3, 4]
    told = [record.getMessage() for record in caplog.records if record.name == "hotmesh.workflow"]
    assert any("'plain'" in words for words in told), told
    assert sum("'number'" in words for words in told) == 2, told
