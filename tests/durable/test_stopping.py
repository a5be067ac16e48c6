"""Workers that are stopped, and a Postgres that is: nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from harness import connected, eventually
from hotmesh.durable import Client, Worker, activity, workflow
from hotmesh.postgres import local

pytestmark = [pytest.mark.anyio, pytest.mark.live]

gates: dict[str, asyncio.Event] = {}
calls: Counter[str] = Counter()


@activity.step
async def gated(name: str) -> str:
    calls[name] += 1
    await gates["now"].wait()
    return name


@workflow.defn(task_queue="stopping")
async def three(name: str) -> list[str]:
    return [await gated(f"{name} {place}") for place in range(3)]


@pytest.fixture(autouse=True)
def fresh() -> None:
    gates["now"] = asyncio.Event()
    calls.clear()


async def test_ten_steps_run_while_a_worker_stops(database_url: str) -> None:
    """WL-10: with the time to finish they do; without it they are for others at once."""
    first = Worker(database_url, task_queue="stopping", workflows=[three])
    await first.start()
    client = await Client.connect(database_url)
    handles = [await client.start_workflow(three, str(n), id=f"stopped {n}") for n in range(10)]
    await eventually(lambda: len(calls) == 10, what="ten steps")
    await first.stop(grace=0.1)
    async with Worker(database_url, task_queue="stopping", workflows=[three]):
        again = await Client.connect(database_url)
        await eventually(lambda: sum(calls.values()) == 20, within=3, what="the ten, elsewhere")
        gates["now"].set()
        for number, handle in enumerate(handles):
            found = await again.get_workflow_handle(handle.workflow_id).result(timeout=20)
            assert found == [f"{number} {place}" for place in range(3)]
    assert Counter(calls.values()) == {2: 10, 1: 20}


async def test_a_restart_of_postgres_in_the_middle_of_a_hundred_workflows(scratch: Path) -> None:
    """WA-11; Postgres restarts: rows; reconnect, look-up by token."""
    server = await asyncio.to_thread(local.ensure_running, scratch, sync=False)
    try:
        async with connected(server.dsn) as connection:
            await connection.execute("alter system set synchronous_commit = on")
            await connection.execute("select pg_reload_conf()")
        async with Worker(
            server.dsn,
            task_queue="stopping",
            workflows=[three],
            settings={"connect_timeout": 30.0, "reconnect_max": 0.2},
        ):
            client = await Client.connect(server.dsn)
            handles = [await client.start_workflow(three, str(n)) for n in range(100)]
            await eventually(lambda: len(calls) == 100, what="a hundred steps")
            stopping = asyncio.create_task(asyncio.to_thread(local.stop, scratch, "immediate"))
            gates["now"].set()
            await stopping
            await asyncio.to_thread(local.ensure_running, scratch)
            for number, handle in enumerate(handles):
                found = await handle.result(timeout=30)
                assert found == [f"{number} {place}" for place in range(3)]
    finally:
        await asyncio.to_thread(local.stop, scratch, "immediate")
    # The process lives: no step is run twice for it.
    assert set(calls.values()) == {1}
