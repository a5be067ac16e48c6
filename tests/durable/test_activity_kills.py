"""Processes that are killed while activities run, or after their effects: each result is recorded once."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from host import queued

import ledger
from durable_hosts import host, left, written
from hotmesh.durable import Client, Worker

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("apart", [False, True])
async def test_a_process_that_is_killed_in_an_activity(
    database_url: str, tmp_path: Path, apart: bool
) -> None:
    """It is run again, with the same key, and recorded once; in the process of its workflow, and in one of activities only."""
    path = tmp_path / "ledger"
    path.touch()
    client = await Client.connect(database_url)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(host(database_url, path, hang=("a1",), workflows=not apart))
        if apart:
            await stack.enter_async_context(Worker(database_url, task_queue="crash", workflows=[queued]))
        handle = await client.start_workflow("queued", 4, task_queue="crash")
        await written(path, "a1")
        await stack.enter_async_context(host(database_url, path, workflows=not apart))
        first.kill()
        assert await handle.result(timeout=30) == 4
    done = Counter(entry["step"] for entry in ledger.entries(path))
    assert done == {"a0": 1, "a1": 2, "a2": 1, "a3": 1}
    assert len({entry["key"] for entry in ledger.entries(path) if entry["step"] == "a1"}) == 1
    assert not any((await left(database_url)).values())
    await client.close()


async def test_a_process_that_dies_after_the_effect_of_an_activity(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.touch()
    client = await Client.connect(database_url)
    async with host(database_url, path, die=("a2",)) as first:
        handles = [await client.start_workflow("queued", 4, task_queue="crash") for _ in range(3)]
        await first.wait()
        async with host(database_url, path):
            for handle in handles:
                assert await handle.result(timeout=30) == 4
    assert not any((await left(database_url)).values())
    await client.close()
