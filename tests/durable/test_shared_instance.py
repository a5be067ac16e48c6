"""A worker of an instance that was given stops, and the instance runs on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from durable_hosts import left
from harness import connected, eventually
from hotmesh import HotMesh
from hotmesh.durable import Client, Worker, activity, workflow

pytestmark = pytest.mark.anyio

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def clean() -> None:
    calls.clear()


@activity.defn
async def naps(name: str, seconds: float) -> str:
    calls[name] += 1
    await asyncio.sleep(seconds)
    calls[f"{name} ended"] += 1
    return name


@workflow.defn(task_queue="shared")
async def steps_and_activities(seconds: float) -> list[Any]:
    step, one = workflow.step(naps, "step", seconds), workflow.start_activity(naps, "activity", seconds)
    found = list(await asyncio.gather(step, one))
    await workflow.recv("go")
    return [*found, await workflow.step(naps, "after", 0)]


@workflow.defn(task_queue="other")
async def other() -> str:
    return await workflow.step(naps, "other", 0)


@pytest.mark.parametrize("grace", [10, 0])
async def test_a_worker_of_a_shared_instance_stops_by_itself(database_url: str, grace: float) -> None:
    """What runs finishes within the grace; what does not is for the next worker, here or elsewhere, and nothing is lost."""
    seconds = 0.3 if grace else 30
    mesh = await HotMesh.init("durable", connection=database_url, namespace="durable")
    try:
        options: dict[str, Any] = {"workflows": [steps_and_activities], "activities": [naps]}
        first = Worker(task_queue="shared", mesh=mesh, **options)
        await first.start()
        async with Worker(task_queue="other", workflows=[other], mesh=mesh):
            client = Client(mesh=mesh)
            handle = await client.start_workflow(steps_and_activities, seconds if grace else 0.3, id="first")
            hanging = await client.start_workflow(steps_and_activities, seconds, id="second")
            await eventually(lambda: calls["step"] == 2 and calls["activity"] == 2)
            await first.stop(grace)
            assert calls["step ended"] == calls["activity ended"] == (2 if grace else 0)
            await handle.signal("go")
            await hanging.signal("go")
            # Nothing of it goes on here, and all else does.
            assert await client.execute_workflow(other) == "other"
            async with connected(database_url) as connection:

                async def for_others() -> bool:
                    query = "select count(*) from durable.job where status > 0 and not held"
                    return bool(await connection.fetchval(query) == 2)

                await eventually(for_others)
            assert calls["after"] == 0
            assert await client.start_workflow(steps_and_activities, 0, id="third")
            assert calls["step"] == 2
            again = Worker(task_queue="shared", mesh=mesh, **options)
            await again.start()
            assert await handle.result(timeout=10) == ["step", "activity", "after"]
            if not grace:
                await hanging.terminate()
            else:
                assert await hanging.result(timeout=10) == ["step", "activity", "after"]
            third = client.get_workflow_handle("third")
            await third.signal("go")
            assert await third.result(timeout=10) == ["step", "activity", "after"]
            await again.stop()
            await again.stop()
    finally:
        await mesh.stop()
    assert not any((await left(database_url)).values())
