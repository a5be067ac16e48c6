"""Durable functions as the tools show them, and what is left of them when they are over."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh import DBA, ConfigError, HotMesh
from hotmesh.durable import Client, Worker, WorkflowHandle, WorkflowStatus, activity, errors, workflow
from hotmesh.observe.doctor.findings import examine
from hotmesh.observe.doctor.reading import read
from hotmesh.observe.explain.model import Explanation
from hotmesh.observe.observer import observing

pytestmark = pytest.mark.anyio

release = asyncio.Event()


@pytest.fixture(autouse=True)
def of_this_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "release", asyncio.Event())


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


@workflow.defn(task_queue="seen")
async def fails() -> None:
    raise errors.FatalError("no stock")


@workflow.defn(task_queue="seen")
async def quick(name: str) -> str:
    return await note(name)


async def test_one_whose_processes_died_again_and_again_is_found_and_brought_back(database_url: str) -> None:
    async with await Client.connect(database_url) as client:
        handle = await client.start_workflow(quick, "x", id="suspended")
        mesh = client._own
        assert mesh is not None
        async with connected(database_url) as connection:
            # As if a process had held it, and died of it.
            tenure = await connection.fetchval(
                "insert into durable.tenure (app_id, member, until, lapsed) values ('durable', 'dead', now(), true) "
                "returning tenure"
            )
            await connection.execute("delete from durable.worker_stream")
            await connection.execute("update durable.job set held = true, tenure = $1", tenure)
            assert (
                await connection.fetchval("select durable.hand_over_tenure('durable', $1, 9, 0)", tenure) == 1
            )
            await connection.execute("update durable.job set updated_at = now() - interval '2 minutes'")
        told = await explained(mesh, "suspended")
        assert told.unaccounted == 1
        assert "dead" in str(told)
        found = await found_by_doctor(database_url)
        assert "suspended" in found["stuck-job"]
        assert "dead-letters" in found

        [letter] = await mesh.list_dead_letters()
        assert letter.topic == "seen"
        assert "have died" in letter.reason
        await mesh.requeue(letter.id)
        assert not await mesh.list_dead_letters()
        assert reasons(await explained(mesh, "suspended")) == {"": ["work"]}
        assert (await handle.describe()).recoveries == 0
        async with Worker(database_url, task_queue="seen", workflows=[quick]):
            assert await handle.result(timeout=20) == "x"


async def test_what_cannot_be_exported_yet_says_where_it_is_shown(database_url: str) -> None:
    async with await Client.connect(database_url) as client:
        await client.start_workflow(quick, "x", id="q")
        mesh = client._own
        assert mesh is not None
        with pytest.raises(ConfigError, match=r"durable function quick.*hotmesh timeline q --app durable"):
            await mesh.export("q")


async def found_by_doctor(database_url: str) -> dict[str, str]:
    async with observing(database_url, "durable") as observer:
        return {one.code: one.what for one in examine(await read(observer, "durable"))}


async def test_what_runs_or_is_paused_is_not_called_stuck_and_what_is_parked_is_named(
    database_url: str,
) -> None:
    async with Worker(database_url, task_queue="seen", workflows=ALL) as worker:
        client = await Client.connect(database_url)
        await client.start_workflow(hangs, id="hangs")
        resting = await client.start_workflow(waits, "never", id="rests")
        await resting.pause()
        await client.start_workflow(waits, "other", id="changed")

        async def all_wait() -> bool:
            return "other" in reasons(await explained(worker.mesh, "changed"))

        await eventually(all_wait)
        async with connected(database_url) as connection:
            await connection.execute("delete from durable.timer; delete from durable.wait")
            await connection.execute("update durable.job set updated_at = now() - interval '2 minutes'")
            await connection.execute(
                """update durable.job set open = '{"parked":{"reason":"changed","message":"x"}}' where job_id = 'changed'"""
            )
        found = await found_by_doctor(database_url)
        assert "1 job runs" in found["stuck-job"]
        assert "changed" in found["stuck-job"]
        assert found["parked"].endswith(": changed")
        release.set()


async def test_how_a_workflow_has_ended_is_its_state(database_url: str) -> None:
    async with Worker(database_url, task_queue="seen", workflows=[*ALL, fails, quick]):
        client = await Client.connect(database_url)
        handles: dict[str, WorkflowHandle[Any]] = {
            "good": await client.start_workflow(quick, "x", id="good", retention="1 hour"),
            "bad": await client.start_workflow(fails, id="bad", retention="1 hour"),
            "stopped": await client.start_workflow(sleeps, 3600, id="stopped", retention="1 hour"),
            "cancelled": await client.start_workflow(sleeps, 3600, id="cancelled", retention="1 hour"),
        }
        await handles["stopped"].terminate("enough")
        await handles["cancelled"].cancel()
        for handle in handles.values():
            with suppress(errors.WorkflowFailedError):
                await handle.result(timeout=20)
        async with connected(database_url) as connection:
            found = await connection.fetch("select job_id, state from durable.job_status")
        shown: dict[str, str] = {row["job_id"]: row["state"] for row in found}
        assert shown == {
            "good": "complete",
            "bad": "failed",
            "stopped": "interrupted",
            "cancelled": "interrupted",
        }


@pytest.mark.live
async def test_what_durable_functions_do_is_counted(database_url: str) -> None:
    async with Worker(database_url, task_queue="seen", workflows=[*ALL, fails, quick]) as worker:
        client = await Client.connect(database_url)
        assert await client.execute_workflow(quick, "x", id="one") == "x"
        assert await client.execute_workflow(sleeps, 0.01, id="two") is not None
        with suppress(errors.WorkflowFailedError):
            await client.execute_workflow(fails, id="three")
        stopped = await client.start_workflow(hangs, id="four")
        with suppress(errors.WorkflowFailedError):
            await stopped.terminate("enough")
            await stopped.result(timeout=20)
        await client.start_workflow(hangs, id="five")

        async def runs() -> bool:
            return bool((await worker.mesh.metrics())["local_steps_running"] == 1)

        await eventually(runs)
        found = await worker.mesh.metrics()
        release.set()
    assert found["operations_ended"]["step"]["note"] == {"done": 1}
    assert found["operations_ended"]["sleep"][""] == {"done": 1}
    assert found["workflow_turns"]["quick"] == 2
    assert found["flows_ended"]["fails"] == {"failed": 1}
    assert found["flows_ended"]["hangs"] == {"interrupted": 1}
    assert found["workflows_in_memory"] == 1
    assert found["workflows_parked"] == {}
    assert found["workflow_replays"] == 0


async def test_of_twenty_starts_of_one_id_one_begins_it(database_url: str) -> None:
    """MG-12, MG-13: one handle; the others are told which id is in use."""
    async with Worker(database_url, task_queue="seen", workflows=ALL):
        client = await Client.connect(database_url)
        found = await asyncio.gather(
            *(client.start_workflow(waits, "x", id="only") for _ in range(20)), return_exceptions=True
        )
        [handle] = [one for one in found if isinstance(one, WorkflowHandle)]
        refused = [one for one in found if isinstance(one, errors.WorkflowAlreadyStartedError)]
        assert len(refused) == 19
        assert all("only" in str(one) for one in refused)
        await client.signal("x", 7)
        assert await handle.result(timeout=20) == 7


async def test_ten_callers_are_told_one_result_before_during_and_after(database_url: str) -> None:
    """CB-21, CB-22: also twice."""
    async with Worker(database_url, task_queue="seen", workflows=ALL):
        client = await Client.connect(database_url)
        handle = await client.start_workflow(waits, "y", id="shared", retention="1 hour")
        callers = [asyncio.ensure_future(handle.result(timeout=20)) for _ in range(10)]
        await asyncio.sleep(0)
        await client.signal("y", 5)
        assert await asyncio.gather(*callers) == [5] * 10
        assert await handle.result() == 5
        assert await handle.result() == 5
