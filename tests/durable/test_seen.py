"""Durable functions as the tools show them, and what is left of them when they are over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh import DBA, HotMesh
from hotmesh.durable import Client, Worker, WorkflowStatus, activity, workflow
from hotmesh.observe.explain.model import Explanation

pytestmark = pytest.mark.anyio

release = asyncio.Event()


@activity.step
async def note(name: str) -> str:
    return name


@activity.step
async def hang() -> None:
    await release.wait()


@workflow.defn(task_queue="seen")
async def waits(signal_id: str) -> Any:
    await note("before")
    return await workflow.condition(signal_id, "1 hour")


@workflow.defn(task_queue="seen")
async def hangs() -> str:
    await hang()
    return "over"


@workflow.defn(task_queue="seen", execution_timeout="1 day")
async def sleeps(seconds: float) -> float:
    return await workflow.sleep(seconds)


ALL = [waits, hangs, sleeps]


async def explained(mesh: HotMesh, job_id: str) -> Explanation:
    return await mesh.explain(job_id)


def reasons(told: Explanation) -> dict[str, list[str]]:
    return {branch.activity_id: sorted(reason.kind for reason in branch.reasons) for branch in told.branches}


async def test_what_a_workflow_waits_for_is_explained(database_url: str) -> None:
    release.clear()
    async with Worker(database_url, task_queue="seen", workflows=ALL) as worker:
        client = await Client.connect(database_url)
        await client.start_workflow(waits, "approve", id="waits")
        await client.start_workflow(sleeps, 3600, id="sleeps")
        await client.start_workflow(hangs, id="hangs")

        async def noted() -> bool:
            return "approve" in reasons(await explained(worker.mesh, "waits"))

        await eventually(noted)
        told = await explained(worker.mesh, "waits")
        assert reasons(told) == {"approve": ["signal", "timer"]}
        assert told.queue == "seen"
        assert not told.notes
        assert told.unaccounted == 0
        assert "workflow waits waits on queue seen" in str(told)
        assert "approve (operation 2) waits for" in str(told)
        assert reasons(await explained(worker.mesh, "sleeps")) == {
            "sleep": ["timer"],
            "$execution": ["timer"],
        }
        hanging = await explained(worker.mesh, "hangs")
        assert reasons(hanging) == {"": ["step"]}
        assert hanging.branches[0].reasons[0].held_by == worker.mesh.guid_

        await client.get_workflow_handle("sleeps").pause()

        async def paused() -> bool:
            return (await client.get_workflow_handle("sleeps").describe()).status is WorkflowStatus.PAUSED

        await eventually(paused)
        assert any("resume" in note for note in (await explained(worker.mesh, "sleeps")).notes)
        release.set()


async def test_a_queue_that_nobody_hosts_is_named(database_url: str) -> None:
    async with await Client.connect(database_url) as client:
        await client.start_workflow(waits, "x", id="alone")
        mesh = client._own
        assert mesh is not None
        told = await explained(mesh, "alone")
        assert reasons(told) == {"": ["work"]}
        assert "seen" in told.branches[0].reasons[0].unblock


async def test_operations_are_in_the_timeline_and_go_with_their_workflow(database_url: str) -> None:
    async with Worker(database_url, task_queue="seen", workflows=ALL):
        client = await Client.connect(database_url)
        await client.start_workflow(waits, "a", id="a", retention="1 hour")
        await client.signal("a", 1)
        assert await client.get_workflow_handle("a").result() == 1
        async with connected(database_url) as connection:
            shown = await connection.fetch(
                "select activity_id, type from durable.job_timeline where job_id = 'a' and activity_id is not null "
                "order by address"
            )
            assert [tuple(row) for row in shown] == [("note", "step"), ("a", "wait")]
            await connection.execute("select durable.strip_jobs('durable', null, false, 100)")
            assert await connection.fetchval("select count(*) from durable.operation") == 0
            assert await client.get_workflow_handle("a").result() == 1

            await client.execute_workflow(sleeps, 0, id="b")
            await connection.execute(
                "update durable.job set expires_at = now() - interval '1 day' where job_id = 'b'"
            )
            await DBA.prune(app_id="durable", connection=database_url, namespace="durable", expire=0)
            rows = {
                table: await connection.fetchval(
                    f"select count(*) from durable.{table} where generation in "
                    "(select generation from durable.job where job_id = 'b')"
                )
                for table in ("operation", "timer", "wait")
            }
            assert rows == {"operation": 0, "timer": 0, "wait": 0}
