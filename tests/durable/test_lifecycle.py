"""The life of workflows from outside: when they begin, how long they may take, paused and resumed, terminated."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from hotmesh.durable import Client, RetryPolicy, Worker, WorkflowStatus, activity, errors, workflow
from hotmesh.errors import ConfigError, PayloadError
from hotmesh.mesh import HotMesh

pytestmark = pytest.mark.anyio

calls: list[str] = []
gates: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def afresh() -> None:
    calls.clear()
    gates[:] = [asyncio.Event()]


@activity.step
async def note(name: str) -> str:
    calls.append(name)
    return name


@activity.step
async def hold(name: str) -> str:
    calls.append(name)
    try:
        await gates[0].wait()
    except asyncio.CancelledError:
        calls.append(f"{name} cancelled")
        raise
    return name


@workflow.defn(task_queue="life")
async def holds(name: str) -> str:
    await hold(name)
    return await note(f"{name} again")


@workflow.defn(task_queue="life")
async def lone(name: str) -> str:
    return name


@workflow.defn(task_queue="life")
async def sleeper(seconds: float) -> float:
    before = workflow.now()
    await asyncio.sleep(seconds)
    return (workflow.now() - before).total_seconds()


@workflow.defn(
    task_queue="life",
    run_timeout="0.3 seconds",
    retry=RetryPolicy(initial_interval="50ms", backoff_coefficient=1, maximum_attempts=0, jitter=0),
)
async def failing() -> None:
    calls.append("attempt")
    raise ValueError("again and again")


@workflow.defn(task_queue="life")
async def begins() -> str:
    return workflow.now().isoformat()


ALL = [begins, holds, lone, sleeper, failing]


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[Client]:
    async with Worker(url, task_queue="life", workflows=ALL):
        yield await Client.connect(url)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - a step of a workflow makes it true
            await asyncio.sleep(0.005)


async def until_counted(connection: Any, table: str, number: int) -> None:
    async with asyncio.timeout(10):
        while await connection.fetchval(f"select count(*) from durable.{table}") != number:  # noqa: ASYNC110 - by an engine
            await asyncio.sleep(0.01)


async def nothing_is_left(url: str) -> None:
    connection = await asyncpg.connect(url)
    for table in ("worker_stream", "engine_stream", "timer", "wait"):
        assert await connection.fetchval(f"select count(*) from durable.{table}") == 0, table
    assert await connection.fetchval("select count(*) from durable.job where held") == 0
    await connection.close()


# -- when it begins, and how long it may take -----------------------------------------------------------------


async def test_a_start_that_is_delayed(database_url: str) -> None:
    async with worker(database_url) as client:
        began = time.monotonic()
        handle = await client.start_workflow(sleeper, 0.1, start_delay=0.3)
        found = await handle.describe()
        assert found.status is WorkflowStatus.PENDING
        assert await handle.result(timeout=10) >= 0.1
        assert time.monotonic() - began >= 0.4
        # Its clock begins with its first turn.
        clock = await client.start_workflow(begins, start_delay=0.1)
        began_at = datetime.fromisoformat(await clock.result(timeout=10))
        assert began_at - (await clock.describe()).started_at >= timedelta(seconds=0.1)
        sooner = await client.start_workflow(lone, "sooner", start_delay="1 day")
        await sooner.resume()
        assert await sooner.result(timeout=5) == "sooner"
    await nothing_is_left(database_url)


@pytest.mark.row("RT-25")
async def test_timeouts_of_the_whole(database_url: str) -> None:
    """RT-25: status timed_out, the waiter raises, the step is cancelled; retries do not begin the time anew."""
    async with worker(database_url) as client:
        handle = await client.start_workflow(holds, "a", execution_timeout=0.2)
        with pytest.raises(errors.WorkflowTimeoutError, match="its execution_timeout") as found:
            await handle.result(timeout=10)
        assert found.value.code == 596
        assert (await handle.describe()).status is WorkflowStatus.TIMED_OUT
        await until(lambda: "a cancelled" in calls)
        with pytest.raises(errors.WorkflowTimeoutError, match="its run_timeout"):
            await client.execute_workflow(failing)
        assert 2 <= calls.count("attempt") <= 7
        assert (
            await client.execute_workflow(lone, "in time", execution_timeout=60, run_timeout=30) == "in time"
        )
        with pytest.raises(errors.WorkflowTimeoutError, match="execution_timeout"):
            await client.execute_workflow(sleeper, 60, execution_timeout=0.1, start_delay=0.1)
    await nothing_is_left(database_url)


async def test_a_timeout_without_any_host(database_url: str) -> None:
    async with await Client.connect(database_url) as client:
        handle = await client.start_workflow(lone, "nobody hosts it", run_timeout=0.1)
        with pytest.raises(errors.WorkflowTimeoutError, match="run_timeout"):
            await handle.result(timeout=10)
    await nothing_is_left(database_url)


async def test_what_a_start_is_refused_for(database_url: str) -> None:
    async with await Client.connect(database_url) as client:
        with pytest.raises(ConfigError, match=r"run_timeout of start_workflow \(20 s, one run\) is longer"):
            await client.start_workflow(lone, "x", run_timeout=20, execution_timeout=10)
        with pytest.raises(ConfigError, match="cannot terminate the workflow that has the id"):
            await client.start_workflow(
                lone, "x", id="x", id_conflict_policy="terminate_existing", id_reuse_policy="reject"
            )
        with pytest.raises(PayloadError, match=r"memo of start_workflow .* at \$\.who"):
            await client.start_workflow(lone, "x", memo={"who": object()})
        with pytest.raises(ConfigError, match=r"run_timeout of @workflow\.defn"):
            workflow.defn(run_timeout=20, execution_timeout=10)(lone)


async def test_memo_and_search_and_the_ids_of_runs(database_url: str) -> None:
    async with worker(database_url) as client:
        first = await client.start_workflow(
            lone, "1", id="same", memo={"by": ["ann"]}, search={"sku": "lamp"}, entity="thing"
        )
        assert await first.result(timeout=10) == "1"
        second = await client.start_workflow(lone, "2", id="same")
        assert await second.result(timeout=10) == "2"
        assert (await first.result(), await client.get_workflow_handle("same").result()) == ("1", "2")
        found = await first.describe()
        assert (found.workflow_id, found.memo, found.entity) == (
            f"same~{first.run_id}",
            {"by": ["ann"]},
            "thing",
        )
        with pytest.raises(errors.WorkflowAlreadyStartedError):
            await client.start_workflow(lone, "3", id="same", id_reuse_policy="allow_failed_only")
        with contextlib.suppress(errors.WorkflowFailedError):
            await client.execute_workflow(holds, "b", id="same", execution_timeout=0.1)
        third = await client.start_workflow(lone, "3", id="same", id_reuse_policy="allow_failed_only")
        assert await third.result(timeout=10) == "3"
        connection = await asyncpg.connect(database_url)
        stored = await connection.fetchval(
            "select search from durable.job where generation = $1", first.run_id
        )
        await connection.close()
        assert "lamp" in stored
        # The label names the queue only where nothing else does.
        labelled = await client.start_workflow("lone", "4", entity="life")
        assert await labelled.result(timeout=10) == "4"


async def test_many_starts_of_one_id_at_once(database_url: str) -> None:
    async with worker(database_url) as client:
        handles = await asyncio.gather(
            *(
                client.start_workflow(holds, "c", id="one", id_conflict_policy="use_existing")
                for _ in range(20)
            )
        )
        assert sum(handle.was_started for handle in handles) == 1
        assert len({handle.run_id for handle in handles}) == 1
        others = await asyncio.gather(
            *(
                client.start_workflow(holds, "c", id="one", id_conflict_policy="terminate_existing")
                for _ in range(5)
            )
        )
        live = [handle for handle in others if (await handle.describe()).status is WorkflowStatus.RUNNING]
        assert len(live) == 1
        gates[0].set()
        assert await live[0].result(timeout=10) == "c again"
    await nothing_is_left(database_url)


# -- pause and resume -----------------------------------------------------------------------------------------


async def test_a_paused_workflow_goes_on_with_what_has_happened(database_url: str) -> None:
    async with worker(database_url) as client:
        handle = await client.start_workflow(holds, "d")
        await until(lambda: "d" in calls)
        await handle.pause("a look at it")
        await handle.pause("another reason")
        found = await handle.describe()
        assert (found.status, found.pause_reason) == (WorkflowStatus.PAUSED, "a look at it")
        assert found.paused_since is not None
        gates[0].set()
        connection = await asyncpg.connect(database_url)
        await until_counted(connection, "operation", 1)
        assert await connection.fetchval("select held from durable.job") is False
        await connection.close()
        assert calls == ["d"]
        await handle.resume()
        assert await handle.result(timeout=10) == "d again"
        assert calls == ["d", "d again"]
        for closed in (handle.pause, handle.resume):
            with pytest.raises(errors.WorkflowClosedError):
                await closed()
    await nothing_is_left(database_url)


async def test_what_ends_a_paused_workflow(database_url: str) -> None:
    async with worker(database_url) as client:
        handles = [
            await client.start_workflow(sleeper, 60, execution_timeout=limit) for limit in (60, 0.4, 60)
        ]
        for handle in handles:
            await handle.pause()
        assert await handles[2].cancel("while paused")
        await handles[0].terminate("enough")
        with pytest.raises(errors.WorkflowTerminatedError, match="enough"):
            await handles[0].result(timeout=10)
        with pytest.raises(errors.WorkflowTimeoutError):
            await handles[1].result(timeout=10)
        found = await handles[2].describe()
        assert (found.status, found.cancel_requested) == (WorkflowStatus.PAUSED, True)
        await handles[2].resume()
        with pytest.raises(errors.WorkflowCancelledError, match="while paused"):
            await handles[2].result(timeout=10)
    await nothing_is_left(database_url)


async def test_a_workflow_is_paused_before_there_is_a_host_and_resumed_by_the_mesh(database_url: str) -> None:
    async with await Client.connect(database_url) as client:
        handle = await client.start_workflow(lone, "e", id="e")
        await handle.pause()
    async with Worker(database_url, task_queue="life", workflows=ALL) as host:
        connection = await asyncpg.connect(database_url)
        await until_counted(connection, "worker_stream", 0)
        await connection.close()
        assert (await handle.describe()).status is WorkflowStatus.PAUSED
        await host.mesh.resume("e")
        assert await handle.result(timeout=10) == "e"
    await nothing_is_left(database_url)


# -- terminate ------------------------------------------------------------------------------------------------


async def test_an_end_is_heard_of_where_it_comes_about_whoever_has_started_it(database_url: str) -> None:
    async with worker(database_url) as here:
        mesh = await HotMesh.init("durable", connection=database_url, namespace="durable")
        for n in range(12):
            started = await Client(mesh=mesh).start_workflow(sleeper, 0.01, id=f"{n}")
            async with asyncio.timeout(3):
                await here.get_workflow_handle(started.workflow_id).result()
        await mesh.stop()


@pytest.mark.row("CX-11", "CX-13", "CX-14", "CX-15", "CX-24")
async def test_terminating(database_url: str) -> None:
    """CX-11 (with a step), CX-13, CX-14, CX-15, CX-24."""
    async with worker(database_url) as client:
        handle = await client.start_workflow(holds, "f", id="f")
        await until(lambda: "f" in calls)
        waiting = asyncio.create_task(handle.result(timeout=10))
        await handle.terminate("no more")
        with pytest.raises(errors.WorkflowTerminatedError, match="no more") as found:
            await waiting
        assert (found.value.code, found.value.job_id) == (410, "f")
        assert await handle.status() < -1_000_000
        await until(lambda: "f cancelled" in calls)
        with pytest.raises(errors.WorkflowClosedError, match="already completed"):
            await handle.terminate()
        await handle.terminate(suppress=True)
        silent = await client.start_workflow(holds, "g")
        await silent.terminate(throw=False)
        nothing: object = await silent.result(timeout=10)
        assert nothing is None
        assert (await silent.describe()).status is WorkflowStatus.TERMINATED
        done = await client.start_workflow(lone, "h")
        assert await done.result(timeout=10) == "h"
        with pytest.raises(errors.WorkflowClosedError, match="already completed"):
            await done.terminate()
        assert (await done.describe()).status is WorkflowStatus.COMPLETED
    await nothing_is_left(database_url)


async def test_a_message_for_a_workflow_that_has_ended_is_taken_away(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CX-24: also one that was on its way when the workflow ended; of a signal that is said."""
    async with worker(database_url) as client:
        handle = await client.start_workflow(lone, "over")
        assert await handle.result(timeout=10) == "over"
        connection = await asyncpg.connect(database_url)
        for kind in ("interrupt", "cancel", "pause", "resume", "signal"):
            await connection.execute(
                "insert into durable.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension, status,"
                " code, data, visible_at, created_at) select app_id, job_id, generation, $1, $1, '', '{}', 'success', 200, '{}',"
                " now(), now() from durable.job",
                kind,
            )
        await until_counted(connection, "engine_stream", 0)
        assert await connection.fetchval("select count(*) from durable.worker_stream") == 0
        await connection.close()
        assert (await handle.describe()).status is WorkflowStatus.COMPLETED
        assert await client.get_workflow_handle(handle.workflow_id).result(timeout=10) == "over"
    late = [record for record in caplog.records if getattr(record, "event", "") == "signal-too-late"]
    assert [record.job_id for record in late] == [handle.workflow_id]  # type: ignore[attr-defined]


async def test_what_comes_too_late_changes_nothing(database_url: str) -> None:
    """CX-24: each ends once, whatever meets its end, and all agree on how."""
    async with worker(database_url) as client:

        async def end(place: int) -> tuple[str, str]:
            handle = await client.start_workflow(holds if place % 2 else lone, "i")
            meddle = (handle.terminate, handle.cancel, handle.pause)[place % 3]
            with contextlib.suppress(errors.WorkflowClosedError):
                await meddle("now")
            with contextlib.suppress(errors.WorkflowClosedError):
                await handle.resume()
            try:
                await handle.result(timeout=10)
                told = "completed"
            except errors.WorkflowTerminatedError:
                told = "terminated"
            except errors.WorkflowCancelledError:
                told = "cancelled"
            return told, (await handle.describe()).status.value

        gates[0].set()
        for told, is_ in await asyncio.gather(*(end(place) for place in range(60))):
            assert told == is_
    await nothing_is_left(database_url)
