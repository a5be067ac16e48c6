"""Cancelling workflows from outside, and parts of them from inside: what reaches the code, and what is left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from hotmesh.core.state.job import Event
from hotmesh.durable import Client, RetryPolicy, Worker, WorkflowStatus, activity, errors, workflow
from hotmesh.errors import ConfigError

pytestmark = pytest.mark.anyio

calls: list[str] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@activity.step
async def note(name: str) -> str:
    calls.append(name)
    return f"receipt of {name}"


@activity.step
async def hang(name: str) -> None:
    calls.append(name)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        calls.append(f"{name} cancelled")
        raise


released = threading.Event()


def blocks(name: str) -> str:
    calls.append(name)
    released.wait(20)
    return name


@asynccontextmanager
async def worker(url: str, *functions: Any) -> AsyncIterator[Client]:
    async with Worker(url, task_queue="cancel", workflows=list(functions)):
        yield await Client.connect(url)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - a step of a workflow makes it true
            await asyncio.sleep(0.005)


async def nothing_is_left(url: str) -> None:
    connection = await asyncpg.connect(url)
    for table in ("worker_stream", "engine_stream", "timer", "wait"):
        assert await connection.fetchval(f"select count(*) from durable.{table}") == 0, table
    assert await connection.fetchval("select count(*) from durable.job where held") == 0
    await connection.close()


@workflow.defn(task_queue="cancel")
async def order(seconds: float) -> str:
    receipt = await note("charge")
    await note("ship")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        async with workflow.cancellation_scope(shielded=True):
            await asyncio.sleep(0.05)
            return await note(f"refund {receipt}")
    return "completed"


@pytest.mark.row("CX-01", "CX-12")
async def test_a_workflow_that_nobody_cancels_completes_beside_one_that_is(database_url: str) -> None:
    """CX-01, CX-12."""
    async with worker(database_url, order) as client:
        one = await client.start_workflow(order, 86_400)
        other = await client.start_workflow(order, 0.2)
        await until(lambda: calls.count("ship") == 2)
        assert await one.cancel()
        assert await other.result(timeout=10) == "completed"
        assert (await one.result(timeout=10)).startswith("receipt of refund")


@pytest.mark.row("CX-02", "CX-04", "CX-08", "CX-22")
async def test_clean_up_in_a_shield_has_the_results_from_before(database_url: str) -> None:
    """CX-02, CX-04, CX-08, CX-22: within two seconds, with the receipt of the charge, and nothing twice."""
    async with worker(database_url, order) as client:
        handle = await client.start_workflow(order, 86_400)
        await until(lambda: "ship" in calls)
        began = time.monotonic()
        assert await handle.cancel("changed my mind")
        assert await handle.result(timeout=10) == "receipt of refund receipt of charge"
        assert time.monotonic() - began < 2
        assert calls == ["charge", "ship", "refund receipt of charge"]
        assert (await handle.describe()).status is WorkflowStatus.COMPLETED
    await nothing_is_left(database_url)


@workflow.defn(task_queue="cancel")
async def waits(name: str) -> None:
    await hang(name)


@pytest.mark.row("CX-03")
async def test_a_cancel_that_is_not_caught(database_url: str) -> None:
    """CX-03: code 598, type CancelledFailure, the reason; the step that ran is cancelled."""
    async with worker(database_url, waits) as client:
        handle = await client.start_workflow(waits, "a")
        await until(lambda: "a" in calls)
        assert await handle.cancel("enough")
        with pytest.raises(errors.WorkflowCancelledError, match="enough") as found:
            await handle.result(timeout=10)
        assert (found.value.code, found.value.type) == (598, "CancelledFailure")
        assert workflow.is_cancellation(found.value)
        await until(lambda: "a cancelled" in calls)
        assert (await handle.describe()).status is WorkflowStatus.CANCELLED
        assert not await handle.cancel()
        with pytest.raises(errors.WorkflowCancelledError, match="enough"):
            await client.get_workflow_handle(handle.workflow_id).result(timeout=10)
    await nothing_is_left(database_url)


@workflow.defn(task_queue="cancel")
async def stubborn(name: str) -> str:
    try:
        await hang(name)
    except asyncio.CancelledError:
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.2)
    return "done all the same"


@pytest.mark.row("CX-06")
async def test_a_cancel_that_is_swallowed_comes_once(database_url: str) -> None:
    """CX-06: the second one changes nothing."""
    async with worker(database_url, stubborn) as client:
        handle = await client.start_workflow(stubborn, "b")
        await until(lambda: "b" in calls)
        assert sorted(await asyncio.gather(handle.cancel(), handle.cancel())) == [False, True]
        await until(lambda: "b cancelled" in calls)
        assert (await handle.describe()).cancel_requested
        assert not await handle.cancel("again")
        assert await handle.result(timeout=10) == "done all the same"
        assert not await handle.cancel()
        with pytest.raises(errors.WorkflowNotFoundError):
            await client.get_workflow_handle("nobody").cancel()
    await nothing_is_left(database_url)


async def test_a_step_in_a_thread_does_not_hold_up_a_cancel(database_url: str) -> None:
    released.clear()

    @workflow.defn(task_queue="cancel")
    async def threaded() -> str:
        return await workflow.step(blocks, "thread")

    async with worker(database_url, threaded) as client:
        handle = await client.start_workflow(threaded)
        await until(lambda: "thread" in calls)
        await handle.cancel()
        with pytest.raises(errors.WorkflowCancelledError, match="Workflow cancelled"):
            await handle.result(timeout=5)
        released.set()
    await nothing_is_left(database_url)


async def test_a_cancel_before_the_first_turn(database_url: str) -> None:
    client = await Client.connect(database_url)
    handle = await client.start_workflow(waits, "never", task_queue="cancel")
    assert await handle.cancel("too early")
    caught = await client.start_workflow(order, 5, task_queue="cancel", start_delay="1 day")
    assert (await caught.describe()).status is WorkflowStatus.PENDING
    assert await caught.cancel()
    async with Worker(database_url, task_queue="cancel", workflows=[waits, order]):
        with pytest.raises(errors.WorkflowCancelledError, match="too early"):
            await handle.result(timeout=10)
        with pytest.raises(errors.WorkflowCancelledError):
            await caught.result(timeout=10)
    await client.close()
    assert not calls
    await nothing_is_left(database_url)


@workflow.defn(
    task_queue="cancel",
    retry=RetryPolicy(initial_interval="1 hour", maximum_interval="1 hour", maximum_attempts=3),
)
async def failing() -> None:
    calls.append("attempt")
    raise ValueError("for ever")


async def test_a_cancel_between_two_attempts(database_url: str) -> None:
    async with worker(database_url, failing) as client:
        handle = await client.start_workflow(failing)
        await until(lambda: calls)
        async with asyncio.timeout(10):
            while (await handle.describe()).attempt == 1:  # noqa: ASYNC110 - an engine changes it
                await asyncio.sleep(0.01)
        await handle.cancel("no use")
        with pytest.raises(errors.WorkflowCancelledError, match="no use") as found:
            await handle.result(timeout=10)
        assert "for ever" in str(found.value.__cause__.__cause__)  # type: ignore[union-attr]
    await nothing_is_left(database_url)


@pytest.mark.row("CX-09")
async def test_only_what_is_not_shielded_is_cancelled(database_url: str) -> None:
    """CX-09."""

    async def branch(name: str, *, shielded: bool) -> str:
        async with workflow.cancellation_scope(shielded=shielded):
            await asyncio.sleep(0.3)
        return name

    @workflow.defn(task_queue="cancel")
    async def two() -> list[str]:
        tasks = [asyncio.create_task(branch(name, shielded=name == "kept")) for name in ("kept", "given up")]
        try:
            await asyncio.shield(asyncio.wait(tasks))
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        return ["cancelled" if isinstance(one, BaseException) else one for one in found] + [
            str(task.cancelled()) for task in tasks
        ]

    async with worker(database_url, two) as client:
        handle = await client.start_workflow(two)
        async with asyncio.timeout(5):
            while not await timers(database_url, 2):  # noqa: ASYNC110 - an engine sets them
                await asyncio.sleep(0.01)
        await handle.cancel()
        # The cancel that was kept off is raised where the shield ends.
        assert await handle.result(timeout=10) == ["cancelled", "cancelled", "True", "True"]


async def timers(url: str, number: int) -> bool:
    connection = await asyncpg.connect(url)
    found = await connection.fetchval("select count(*) from durable.timer")
    await connection.close()
    return bool(found == number)


async def test_a_scope_that_is_cancelled_by_itself(database_url: str) -> None:
    @workflow.defn(task_queue="cancel")
    async def scoped() -> list[Any]:
        async with workflow.cancellation_scope() as scope:
            asyncio.get_running_loop().call_later(0.1, scope.cancel)
            await hang("scoped")
        async with workflow.cancellation_scope() as late:
            late.cancel()
        await note("after")
        return [scope.cancelled_caught, late.cancelled_caught]

    async with worker(database_url, scoped) as client:
        assert await client.execute_workflow(scoped) == [True, False]
    await until(lambda: "scoped cancelled" in calls)
    assert calls[-1] in ("after", "scoped cancelled")
    await nothing_is_left(database_url)


async def test_single_operations_and_groups_are_cancelled(database_url: str) -> None:
    @workflow.defn(task_queue="cancel")
    async def parts() -> list[str]:
        told = []
        step = hang("single")
        await asyncio.sleep(0.05)
        step.cancel()  # type: ignore[attr-defined]
        try:
            await step
        except asyncio.CancelledError:
            told.append("single")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(wait_for(hang("grouped")))
                await asyncio.sleep(0.05)
                raise ValueError("boom")
        except* ValueError:
            told.append("group")
        try:
            async with asyncio.timeout(0.05):
                await hang("timed")
        except TimeoutError:
            told.append("timeout")
        return told

    async def wait_for(operation: Any) -> None:
        await operation

    async with worker(database_url, parts) as client:
        assert await client.execute_workflow(parts) == ["single", "group", "timeout"]
    await until(lambda: {"single cancelled", "grouped cancelled", "timed cancelled"} <= set(calls))
    await nothing_is_left(database_url)


async def test_a_step_that_ends_while_it_is_given_up(database_url: str) -> None:
    """Whichever is first counts, and the workflow goes on either way."""

    @activity.step
    async def short(place: int) -> int:
        await asyncio.sleep(0.001 * (place % 7))
        return place

    @workflow.defn(task_queue="cancel")
    async def racing(place: int) -> str:
        try:
            await asyncio.gather(*(short(place + more) for more in range(5)))
        except asyncio.CancelledError:
            return await note("cancelled")
        return "completed"

    async with worker(database_url, racing) as client:
        handles = [await client.start_workflow(racing, place) for place in range(40)]
        await asyncio.gather(*(handle.cancel() for handle in handles))
        for handle in handles:
            assert await handle.result(timeout=10) in ("completed", "receipt of cancelled")
    await nothing_is_left(database_url)


async def test_an_outcome_of_a_step_that_was_given_up_counts_for_nothing(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It was on its way when the turn that gave the step up was committed."""

    @workflow.defn(task_queue="cancel")
    async def moves_on() -> str:
        try:
            async with asyncio.timeout(0.02):
                await hang("first")
        except TimeoutError:
            await hang("moved on")
        return "never"

    async with worker(database_url, moves_on) as client:
        handle = await client.start_workflow(moves_on)
        await until(lambda: "moved on" in calls)
        event = Event("step", "hang", (0, 2), "success", 200, None)
        (await client._functions())._turns._deliver(handle.workflow_id, str(handle.run_id), event)
        await asyncio.sleep(0.1)
        await handle.cancel()
        with pytest.raises(errors.WorkflowCancelledError):
            await handle.result(timeout=5)
    assert not [record for record in caplog.records if record.name == "hotmesh.engine"]
    await nothing_is_left(database_url)


async def test_scopes_say_what_is_wrong(database_url: str) -> None:
    with pytest.raises(errors.NotInWorkflowError, match="cancellation_scope"):
        async with workflow.cancellation_scope():
            pass
    with pytest.raises(ConfigError, match="shielded"):
        workflow.cancellation_scope(shielded=True).cancel()


async def test_non_cancellable_and_is_cancellation(database_url: str) -> None:
    async def clean_up() -> str:
        return await note("cleaned")

    @workflow.defn(task_queue="cancel")
    async def careful() -> str:
        try:
            await hang("careful")
        except workflow.CancelledFailure:
            return await workflow.CancellationScope.non_cancellable(clean_up)
        return "never"

    async with worker(database_url, careful) as client:
        handle = await client.start_workflow(careful)
        await until(lambda: "careful" in calls)
        await handle.cancel()
        assert await handle.result(timeout=10) == "receipt of cleaned"


@pytest.mark.row("CX-05", "CX-16")
async def test_what_a_workflow_waited_for_goes_with_it(database_url: str) -> None:
    """CX-05, CX-16: the work item is cancelled, by a cancel and by a termination; its timers and waits go."""

    @workflow.defn(task_queue="cancel")
    async def asks(name: str) -> str:
        try:
            await workflow.condition(name, "1 day", escalation={"role": "boss", "description": name})
        except asyncio.CancelledError:
            return await note("unwound")
        return "approved"

    async with worker(database_url, asks) as client:
        connection = await asyncpg.connect(database_url)
        cancelled = await client.start_workflow(asks, "a")
        terminated = await client.start_workflow(asks, "b")
        async with asyncio.timeout(10):
            while await connection.fetchval("select count(*) from durable.escalation") < 2:  # noqa: ASYNC110 - by an engine
                await asyncio.sleep(0.01)
        assert await cancelled.cancel()
        await terminated.terminate()
        assert await cancelled.result(timeout=10) == "receipt of unwound"
        rows = await connection.fetch("select status from durable.escalation")
        assert [row["status"] for row in rows] == ["cancelled", "cancelled"]
        await connection.close()
    await nothing_is_left(database_url)
