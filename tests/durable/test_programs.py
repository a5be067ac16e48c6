"""Many steps at once, and lanes of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from hotmesh.durable import Client, Worker, activity, workflow

pytestmark = pytest.mark.anyio

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@activity.step
async def work(name: str, seconds: float = 0.0) -> str:
    calls[name] += 1
    await asyncio.sleep(seconds)
    return name


@workflow.defn(task_queue="programs")
async def at_once(count: int, seconds: float) -> list[str]:
    return list(await asyncio.gather(*(work(f"{count}-{n}", seconds) for n in range(count))))


@workflow.defn(task_queue="programs")
async def three_lanes() -> list[list[str]]:
    async def lane(name: str, length: int) -> list[str]:
        return [await work(f"{name}{place}") for place in range(length)]

    return list(await asyncio.gather(lane("a", 3), lane("b", 1), lane("c", 2)))


ALL: list[Any] = [at_once, three_lanes]


async def test_lanes(database_url: str) -> None:
    """WP-55"""
    async with Worker(database_url, task_queue="programs", workflows=ALL):
        client = await Client.connect(database_url)
        assert await client.execute_workflow(three_lanes) == [["a0", "a1", "a2"], ["b0"], ["c0", "c1"]]
    assert calls == dict.fromkeys(("a0", "a1", "a2", "b0", "c0", "c1"), 1)


@pytest.mark.live
async def test_many_steps(database_url: str) -> None:
    """WP-53: each function is called once, and value i is at place i."""
    async with Worker(database_url, task_queue="programs", workflows=ALL):
        client = await Client.connect(database_url)
        for seconds in (0.0, 0.005, 0.05, 0.3):
            calls.clear()
            sizes = (2, 3, 4, 5, 8, 20, 100)
            found = await asyncio.gather(*(client.execute_workflow(at_once, n, seconds) for n in sizes))
            assert found == [[f"{size}-{n}" for n in range(size)] for size in sizes]
            assert set(calls.values()) == {1}
            assert len(calls) == sum(sizes)
