"""Failing, ids, changed code and blocking code: what becomes of workflows then."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from hotmesh.durable import Client, RetryPolicy, Worker, WorkflowStatus, activity, errors, workflow

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(initial_interval="50ms", backoff_coefficient=1, maximum_attempts=5, jitter=0)
calls: dict[str, int] = {}


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


def count(name: str) -> int:
    calls[name] = calls.get(name, 0) + 1
    return calls[name]


@activity.step
async def note(name: str) -> int:
    return count(name)


@activity.step(retry=QUICK)
async def third_time(name: str) -> int:
    if count(name) < 3:
        raise OSError("not yet")
    return calls[name]


@activity.step(retry=QUICK)
async def never(name: str) -> int:
    count(name)
    raise errors.FatalError("out of stock")


@workflow.defn(task_queue="turns", retry=QUICK)
async def again(until: int) -> int:
    await note("before")
    if count("again") < until:
        raise ValueError("recurring")
    await note("after")
    return calls["again"]


@workflow.defn(task_queue="turns")
async def patient(name: str) -> int:
    return await third_time(name)


@workflow.defn(task_queue="turns")
async def hopeless(name: str) -> int:
    return await never(name)


@workflow.defn(task_queue="turns")
async def lone(name: str) -> str:
    return name


@workflow.defn(task_queue="turns")
async def unstorable() -> Any:
    return object()


@workflow.defn(task_queue="turns")
async def timed() -> list[Any]:
    before = workflow.now()
    await asyncio.sleep(0.2)
    after = workflow.now()
    return [(after - before).total_seconds() >= 0.2, str(workflow.uuid4()), workflow.random()]


@workflow.defn(task_queue="turns")
async def impatient(name: str) -> str:
    try:
        async with asyncio.timeout(0.2):
            await hang(name)
    except TimeoutError:
        return "late"
    return "in time"


@activity.step
async def hang(name: str) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        count(f"{name} cancelled")
        raise


ALL = [again, patient, hopeless, lone, unstorable, timed, impatient]


@pytest.mark.live
@pytest.mark.row("RT-06", "RT-07", "RT-28")
async def test_a_function_that_fails_is_run_again_and_its_steps_are_not(database_url: str) -> None:
    async with Worker(database_url, task_queue="turns", workflows=ALL):
        client = await Client.connect(database_url)
        assert await client.execute_workflow(again, 3) == 3
    assert calls == {"before": 1, "again": 3, "after": 1}


@pytest.mark.live
@pytest.mark.row("RT-08")
async def test_attempts_that_are_used_up(database_url: str) -> None:
    async with Worker(database_url, task_queue="turns", workflows=ALL):
        client = await Client.connect(database_url)
        with pytest.raises(errors.WorkflowFailedError, match="recurring") as found:
            await client.execute_workflow(again, 100)
    assert found.value.code == 597
    assert calls["again"] == 5


async def test_a_step_that_fails_is_tried_again(database_url: str) -> None:
    async with Worker(database_url, task_queue="turns", workflows=ALL):
        client = await Client.connect(database_url)
        assert await client.execute_workflow(patient, "a") == 3


@pytest.mark.row("RT-09", "RT-17")
async def test_a_fatal_error_is_final_and_its_chain_arrives(database_url: str) -> None:
    async with Worker(database_url, task_queue="turns", workflows=ALL):
        client = await Client.connect(database_url)
        with pytest.raises(errors.WorkflowFailedError) as found:
            await client.execute_workflow(hopeless, "b")
    assert calls == {"b": 1}
    error = found.value.__cause__
    assert isinstance(error, errors.ActivityError)
    assert error.activity_name == "never"
    assert str(error.__cause__) == "out of stock"


@pytest.mark.row("RT-26")
async def test_a_result_that_cannot_be_stored(database_url: str) -> None:
    async with Worker(database_url, task_queue="turns", workflows=ALL):
        client = await Client.connect(database_url)
        with pytest.raises(errors.WorkflowFailedError, match="result"):
            await client.execute_workflow(unstorable)


async def test_ids(database_url: str) -> None:
    async with Worker(database_url, task_queue="turns", workflows=ALL):
        client = await Client.connect(database_url)
        waiting = await client.start_workflow(impatient, "c", id="mine")
        with pytest.raises(errors.WorkflowAlreadyStartedError):
            await client.start_workflow(lone, "x", id="mine")
        same = await client.start_workflow(impatient, "c", id="mine", id_conflict_policy="use_existing")
        assert not same.was_started
        assert same.run_id == waiting.run_id
        other = await client.start_workflow(lone, "y", id="mine", id_conflict_policy="terminate_existing")
        assert await other.result(timeout=10) == "y"
        # The handle is of its own run, which has made room for the other one.
        with pytest.raises(errors.WorkflowTerminatedError, match="another start"):
            await waiting.result(timeout=10)
        with pytest.raises(errors.WorkflowAlreadyStartedError):
            await client.start_workflow(lone, "z", id="mine", id_reuse_policy="reject")
        again_ = await client.start_workflow(lone, "z", id="mine")
        assert await again_.result(timeout=10) == "z"


@pytest.mark.row("CB-31")
async def test_unknown_ids(database_url: str) -> None:
    client = await Client.connect(database_url)
    handle = client.get_workflow_handle("nobody")
    for asked in (handle.result, handle.status, handle.describe, handle.terminate):
        with pytest.raises(errors.WorkflowNotFoundError):
            await asked()
    await client.close()


@pytest.mark.row("WP-37", "WP-50", "WP-49")
async def test_time(database_url: str) -> None:
    async with Worker(database_url, task_queue="turns", workflows=ALL):
        client = await Client.connect(database_url)
        assert (await client.execute_workflow(timed))[0]
        assert await client.execute_workflow(impatient, "d") == "late"
        await asyncio.sleep(0)
    assert calls == {"d cancelled": 1}


@pytest.mark.row("CB-02", "CB-03")
async def test_a_start_before_there_is_a_worker(database_url: str) -> None:
    client = await Client.connect(database_url)
    handle = await client.start_workflow(lone, "early")
    async with Worker(database_url, task_queue="turns", workflows=ALL):
        assert await handle.result(timeout=10) == "early"
    await client.close()


def changed(order: tuple[str, str]) -> Any:
    @workflow.defn(name="changing", task_queue="turns")
    async def changing() -> str:
        for name in order:
            await workflow.step(note, name, name=name)
        await workflow.step(hold, name="hold")
        return "done"

    return changing


gate = asyncio.Event()
reached = asyncio.Event()


async def hold() -> None:
    reached.set()
    await gate.wait()


@pytest.mark.row("WP-52")
async def test_changed_code_parks_a_workflow_and_code_that_fits_goes_on(database_url: str) -> None:
    gate.clear()
    old, new = changed(("a", "b")), changed(("b", "a"))
    worker = Worker(database_url, task_queue="turns", workflows=[old])
    await worker.start()
    client = await Client.connect(database_url)
    handle = await client.start_workflow(old, id="changing")
    await asyncio.wait_for(reached.wait(), 10)
    await worker.stop(grace=0.1)
    async with Worker(database_url, task_queue="turns", workflows=[new]):
        parked = None
        while parked is None:
            parked = (await handle.describe()).parked
            await asyncio.sleep(0.02)
        assert (parked.position, parked.expected, parked.actual) == (1, "step 'a'", "step 'b'")
        assert (await handle.describe()).status is WorkflowStatus.RUNNING
    gate.set()
    async with Worker(database_url, task_queue="turns", workflows=[old]):
        assert await handle.result(timeout=30) == "done"
    assert calls == {"a": 1, "b": 1}
    await client.close()


async def test_n_steps_are_n_plus_one_commits(database_url: str) -> None:
    async with Worker(database_url, task_queue="turns", workflows=[steps]):
        client = await Client.connect(database_url)
        await client.execute_workflow(steps, 1)
        connection = await asyncpg.connect(database_url)
        handle = await client.start_workflow(steps, 7)
        await handle.result(timeout=10)
        seq = await connection.fetchval("select seq from durable.job where generation = $1", handle.run_id)
        assert seq == 8
        rows = await connection.fetch(
            "select status from durable.operation where generation = $1", handle.run_id
        )
        assert [row["status"] for row in rows] == ["done"] * 7
        await connection.close()


@workflow.defn(task_queue="turns")
async def steps(number: int) -> None:
    for _ in range(number):
        await note("step")
