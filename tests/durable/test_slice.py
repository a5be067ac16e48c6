"""Workflows of local steps, from start to result: what is committed, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hotmesh.durable import Client, RetryPolicy, Worker, WorkflowStatus, activity, errors, workflow

pytestmark = pytest.mark.anyio

calls: list[str] = []


@activity.step
async def double(number: int) -> int:
    calls.append(f"double {number}")
    return number * 2


@workflow.defn(task_queue="numbers")
async def once(number: int) -> int:
    return await double(number)


@workflow.defn(task_queue="numbers")
async def five(number: int) -> int:
    for _ in range(5):
        number = await double(number)
    return number


@workflow.defn(task_queue="numbers")
async def nothing() -> None:
    return None


@workflow.defn(task_queue="numbers")
async def many(count: int) -> list[int]:
    return list(await asyncio.gather(*(double(number) for number in range(count))))


@workflow.defn(task_queue="numbers", retry=RetryPolicy(maximum_attempts=1))
async def fails() -> None:
    raise ValueError("no such thing")


@asynccontextmanager
async def worker(url: str, *functions: Any) -> AsyncIterator[Client]:
    async with Worker(url, task_queue="numbers", workflows=list(functions)):
        yield await Client.connect(url)


async def test_one_step(database_url: str) -> None:
    async with worker(database_url, once) as client:
        handle = await client.start_workflow(once, 4, id="one")
        assert await handle.result(timeout=10) == 8
        assert await handle.status() == 0
        assert (await handle.describe()).status is WorkflowStatus.COMPLETED


async def test_steps_in_a_row_and_at_once(database_url: str) -> None:
    async with worker(database_url, five, many, nothing) as client:
        assert await client.execute_workflow(five, 1) == 32
        assert await client.execute_workflow(many, 100) == [number * 2 for number in range(100)]
        handle = await client.start_workflow(nothing)
        result: object = await asyncio.wait_for(handle.result(), 10)
        assert result is None


async def test_failing(database_url: str) -> None:
    async with worker(database_url, fails) as client:
        handle = await client.start_workflow(fails)
        with pytest.raises(errors.WorkflowFailedError, match="no such thing") as found:
            await handle.result(timeout=10)
        assert found.value.code == 597
