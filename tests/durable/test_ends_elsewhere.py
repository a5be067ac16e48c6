"""Workflows that are ended from one process while another one runs them, stands still or is killed: one outcome, and all agree."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import ledger
from durable_hosts import host, left, written
from hotmesh.durable import Client, WorkflowHandle, WorkflowStatus, errors

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "ledger"
    found.touch()
    return found


async def outcome(handle: WorkflowHandle[Any]) -> str:
    try:
        await handle.result(timeout=30)
    except errors.WorkflowTerminatedError:
        return "terminated"
    except errors.WorkflowCancelledError:
        return "cancelled"
    return "completed"


async def unfinished(url: str) -> int:
    connection = await asyncpg.connect(url)
    found = await connection.fetchval("select count(*) from durable.job where held or status > 0")
    await connection.close()
    return int(found)


async def test_terminating_what_another_process_runs(database_url: str, path: Path) -> None:
    """Its step is cancelled there, nothing is left, and nothing of it comes back."""
    client = await Client.connect(database_url)
    async with host(database_url, path, hang=("s1",)):
        handle = await client.start_workflow("chain", 3, task_queue="crash")
        await written(path, "s1")
        began = time.monotonic()
        await handle.terminate("enough")
        assert await outcome(handle) == "terminated"
        assert time.monotonic() - began < 2
        await written(path, "s1 cancelled")
        assert time.monotonic() - began < 5
        # Its process goes on with others.
        assert await client.execute_workflow("chain", 1, task_queue="crash") == 1
    assert Counter(entry["step"] for entry in ledger.entries(path)) == {"s0": 2, "s1": 1, "s1 cancelled": 1}
    assert not any((await left(database_url)).values())
    assert not await unfinished(database_url)
    await client.close()


async def test_terminating_what_stands_still_or_is_dead(database_url: str, path: Path) -> None:
    """At once, without the process that holds it; what that one comes with later counts for nothing."""
    client = await Client.connect(database_url)
    async with host(database_url, path, hang=("s1",)) as first:
        handle = await client.start_workflow("chain", 3, task_queue="crash")
        await written(path, "s1")
        first.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        await handle.terminate()
        assert await outcome(handle) == "terminated"
        assert time.monotonic() - began < 2
        first.send_signal(signal.SIGCONT)
        await written(path, "s1 cancelled")
        assert (await handle.describe()).status is WorkflowStatus.TERMINATED
        other = await client.start_workflow("chain", 3, task_queue="crash")
        async with asyncio.timeout(30):
            while sum(entry["step"] == "s1" for entry in ledger.entries(path)) < 2:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
    # Its host is killed by now.
    began = time.monotonic()
    await other.terminate()
    assert await outcome(other) == "terminated"
    assert time.monotonic() - began < 2
    assert not any((await left(database_url)).values())
    assert not await unfinished(database_url)
    await client.close()


@pytest.mark.row("CX-10", "CX-23")
async def test_a_process_that_is_killed_in_the_middle_of_cleaning_up(database_url: str, path: Path) -> None:
    """CX-10, CX-23: replayed, the cancel comes at the same place; each step of the clean-up has its effect once."""
    client = await Client.connect(database_url)
    async with host(database_url, path, die=("undo s1",)) as first:
        handle = await client.start_workflow("careful", 3, 3600, task_queue="crash")
        await written(path, "s2")
        async with host(database_url, path) as second:
            second.send_signal(signal.SIGSTOP)  # so that the first one takes the turn
            assert await handle.cancel("not any more")
            await asyncio.wait_for(first.wait(), 30)
            second.send_signal(signal.SIGCONT)
            assert await handle.result(timeout=30) == ["undone s0", "undone s1", "undone s2"]
    done = Counter(entry["step"] for entry in ledger.entries(path))
    assert done == {"s0": 1, "s1": 1, "s2": 1, "undo s2": 1, "undo s1": 2, "undo s0": 1}
    assert len({entry["key"] for entry in ledger.entries(path) if entry["step"] == "undo s1"}) == 1
    assert not any((await left(database_url)).values())
    await client.close()


async def test_a_cancel_of_what_was_running_in_a_process_that_is_killed(
    database_url: str, path: Path
) -> None:
    client = await Client.connect(database_url)
    async with host(database_url, path, hang=("s1",)) as first:
        handle = await client.start_workflow("chain", 3, task_queue="crash")
        await written(path, "s1")
        first.send_signal(signal.SIGSTOP)
        assert await handle.cancel("no process listens")
        first.kill()
        async with host(database_url, path, hang=("s1",)):
            with pytest.raises(errors.WorkflowCancelledError, match="no process listens"):
                await handle.result(timeout=30)
    assert not any((await left(database_url)).values())
    assert not await unfinished(database_url)
    await client.close()


async def test_ends_that_meet_each_other_in_several_processes(database_url: str, path: Path) -> None:
    """Cancels and terminates against turns, completions, and the death of a host: all who ask hear the same."""
    chance = random.Random(5)
    client, other = await Client.connect(database_url), Client(database_url)
    async with host(database_url, path) as first, host(database_url, path):

        async def one(place: int) -> None:
            handle = await client.start_workflow("careful", 2, chance.random() * 0.2, task_queue="crash")
            await asyncio.sleep(chance.random() * 0.3)
            there = other.get_workflow_handle(handle.workflow_id)
            if place % 3:
                cancelled = await there.cancel()
            if place % 3 != 1:
                await handle.terminate(suppress=True)
            if place == 20:
                first.kill()
            heard = await asyncio.gather(outcome(handle), outcome(there), outcome(handle))
            status = (await there.describe()).status.value
            assert {*heard, status} == {status}
            if place % 3 == 1 and not cancelled:
                assert (await handle.result())[0] == "s0"

        await asyncio.gather(*(one(place) for place in range(40)))
    assert not any((await left(database_url)).values())
    assert not await unfinished(database_url)
    connection = await asyncpg.connect(database_url)
    twice = await connection.fetchval(
        "select count(*) from (select from durable.operation group by generation, seq having count(*) > 1) as o"
    )
    await connection.close()
    assert twice == 0
    await client.close()
    await other.close()
