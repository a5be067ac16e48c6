"""Processes that are killed while workflows run: another one goes on, and each result is recorded once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

import ledger
from durable_hosts import host, left, written
from hotmesh.durable import Client

pytestmark = pytest.mark.anyio


@pytest.mark.row("WL-02")
async def test_a_process_that_is_killed_in_a_step_is_replaced_within_five_seconds(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger"
    path.touch()
    client = await Client.connect(database_url)
    async with host(database_url, path, hang=("s2",)) as first:
        handle = await client.start_workflow("chain", 4, task_queue="crash")
        await written(path, "s2")
        async with host(database_url, path):
            first.kill()
            killed = time.monotonic()
            assert await handle.result(timeout=30) == 4
            assert time.monotonic() - killed < 5
    done = Counter(entry["step"] for entry in ledger.entries(path))
    assert done == {"s0": 1, "s1": 1, "s2": 2, "s3": 1}
    keys = {entry["key"] for entry in ledger.entries(path) if entry["step"] == "s2"}
    assert len(keys) == 1
    assert not any((await left(database_url)).values())
    await client.close()


async def test_a_process_that_kills_itself_in_the_middle_of_many_steps(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger"
    path.touch()
    client = await Client.connect(database_url)
    async with host(database_url, path, die=("s20",)) as first:
        handles = [await client.start_workflow("fan", 40, task_queue="crash") for _ in range(5)]
        await first.wait()
        async with host(database_url, path):
            for handle in handles:
                assert await handle.result(timeout=30) == list(range(1, 41))
    assert not any((await left(database_url)).values())
    await client.close()


@pytest.mark.row("WL-03")
async def test_a_process_that_stands_still_beyond_its_lease_is_shut_out(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger"
    path.touch()
    client = await Client.connect(database_url)
    async with host(database_url, path, hang=("s1",), lease=2.0) as first:
        handle = await client.start_workflow("chain", 3, task_queue="crash")
        await written(path, "s1")
        first.send_signal(signal.SIGSTOP)
        async with host(database_url, path, lease=2.0):
            assert await handle.result(timeout=30) == 3
        first.send_signal(signal.SIGCONT)
        await asyncio.sleep(1)
        assert (await handle.describe()).status.value == "completed"
    assert not any((await left(database_url)).values())
    await client.close()


@pytest.mark.row("SG-14", "WA-08")
async def test_a_process_that_is_killed_while_signals_are_sent(database_url: str, tmp_path: Path) -> None:
    """None is lost, none counts twice, each has its place: by an engine that hosts nothing, too, which records them."""
    path = tmp_path / "ledger"
    path.touch()
    count = 40
    client = await Client.connect(database_url)
    async with host(database_url, path) as first:
        handles = [
            await client.start_workflow(name, count, task_queue="crash") for name in ("receives", "Collects")
        ]
        waits = await client.start_workflow("conditions", count, "by id", task_queue="crash")
        for number in range(count):
            if number == count // 2:
                first.kill()
            await asyncio.gather(
                *(handle.signal("number", number) for handle in handles), client.signal("by id", number)
            )
        async with host(database_url, path):
            for handle in (*handles, waits):
                assert await handle.result(timeout=60) == list(range(count)), handle.workflow_id
    assert not any((await left(database_url)).values())
    await client.close()
