"""Processes that host workflows, for tests: started, watched, and looked after when they are gone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

import ledger
from harness import connected, eventually


@asynccontextmanager
async def host(
    url: str,
    path: Path,
    *,
    hang: tuple[str, ...] = (),
    die: tuple[str, ...] = (),
    gives_up: tuple[str, ...] = (),
    lease: float = 30.0,
    workflows: bool = True,
) -> AsyncIterator[Any]:
    order: dict[str, Any] = {"url": url, "ledger": str(path), "hang": hang, "die": die, "lease": lease}
    order |= {"workflows": workflows, "gives_up": gives_up}
    program = Path(__file__).parent / "durable" / "host.py"
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


async def waiting(url: str, count: int) -> None:
    """Until so many waits are registered."""

    async def found() -> bool:
        async with connected(url) as connection:
            return bool(await connection.fetchval("select count(*) from durable.wait") == count)

    await eventually(found)
