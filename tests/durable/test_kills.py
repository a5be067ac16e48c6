"""Processes that are killed while workflows run: another one goes on, and each result is recorded once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import ledger
from hotmesh.durable import Client

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def host(
    url: str, path: Path, *, hang: tuple[str, ...] = (), die: tuple[str, ...] = (), lease: float = 30.0
) -> AsyncIterator[Any]:
    order = {"url": url, "ledger": str(path), "hang": hang, "die": die, "lease": lease}
    program = Path(__file__).with_name("host.py")
    environment = os.environ | {"PYTHONPATH": str(program.parent.parent)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), json.dumps(order), stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def written(path: Path, step: str) -> None:
    async with asyncio.timeout(30):
        while not any(entry["step"] == step for entry in ledger.entries(path)):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)


async def left(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    tables = ("worker_stream", "engine_stream", "timer", "wait")
    found = {table: await connection.fetchval(f"select count(*) from durable.{table}") for table in tables}
    await connection.close()
    return found


@pytest.mark.row("WL-02", "WA-09")
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
