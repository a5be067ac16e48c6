"""Activities on queues: called, retried, limited in time, given up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from harness import connected, eventually
from hotmesh.durable import Client, RetryPolicy, Worker, activity, errors, workflow

pytestmark = pytest.mark.anyio

calls: Counter[str] = Counter()
ended: list[str] = []
NOW = RetryPolicy(maximum_attempts=3, initial_interval=0, backoff_coefficient=1)


@pytest.fixture(autouse=True)
def clean() -> None:
    calls.clear()
    ended.clear()


@activity.defn
async def double(number: int) -> int:
    calls["double"] += 1
    return number * 2


@activity.defn
def blocking(number: int) -> str:
    return f"{number} {activity.get_context().activity_name} {threading.current_thread() is threading.main_thread()}"


@activity.defn
async def nothing(text: str | None = None) -> str | None:
    return text


@activity.defn
async def fails(until: int, kind: str = "ValueError") -> int:
    calls["fails"] += 1
    attempt = activity.get_context().attempt
    if attempt < until:
        if kind == "fatal":
            raise errors.FatalError("never again")
        raise ValueError(f"attempt {attempt}")
    return attempt


@activity.defn
async def hangs(name: str = "") -> str:
    calls["hangs"] += 1
    try:
        await asyncio.sleep(60)
    finally:
        ended.append(name)
    return "slept"


@activity.defn
async def tells() -> dict[str, Any]:
    context = activity.get_context()
    assert context.scheduled_at is not None
    assert context.deadline is not None
    assert abs((context.scheduled_at - datetime.now(UTC)).total_seconds()) < 30
    return {
        "name": context.activity_name,
        "id": context.workflow_id,
        "workflow": context.workflow_name,
        "queue": context.task_queue,
        "attempt": context.attempt,
        "headers": dict(context.headers),
        "namespace": context.namespace,
        "key": context.idempotency_key == f"{context.run_id}:tells:0.1",
        "left": context.deadline > datetime.now(UTC),
    }


class Numbers(Protocol):
    def double(self, number: int) -> Any: ...


@workflow.defn(task_queue="work")
async def one(number: int) -> int:
    return await workflow.execute_activity(double, number)


@workflow.defn(task_queue="work")
async def five(number: int) -> int:
    acts = workflow.proxy_activities(activities=[double])
    for _ in range(5):
        number = await acts.double(number)
    return number


@workflow.defn(task_queue="work")
async def both() -> list[Any]:
    return list(
        await asyncio.gather(
            workflow.execute_activity(double, 1), workflow.execute_activity(blocking, 2),
            workflow.execute_activity(nothing), workflow.execute_activity(nothing, "hotmesh.codec:x"),
        )
    )  # fmt: skip


@workflow.defn(task_queue="work")
async def remote(queue: str, name: str, *args: Any) -> Any:
    return await getattr(workflow.proxy_activities(task_queue=queue), name)(*args)


@workflow.defn(task_queue="work")
async def retried(until: int, kind: str = "ValueError", **options: Any) -> int:
    return await workflow.execute_activity(fails, until, kind, retry=NOW)


@workflow.defn(task_queue="work")
async def asked(name: str, args: list[Any], options: dict[str, Any]) -> Any:
    return await workflow.execute_activity(name, *args, **options)


@workflow.defn(task_queue="work")
async def gives_up(seconds: float, kind: Any = "try_cancel") -> str:
    operation = workflow.start_activity(hangs, "given up", cancellation_type=kind)
    try:
        async with asyncio.timeout(seconds):
            return await operation
    except TimeoutError:
        await workflow.execute_activity(double, 1)
        return "given up"


HERE = [one, five, both, remote, retried, asked, gives_up]
ACTIVITIES = [double, blocking, nothing, fails, hangs, tells]


@asynccontextmanager
async def worker(url: str, **options: Any) -> AsyncIterator[Client]:
    options = {"workflows": HERE, "activities": ACTIVITIES} | options
    async with Worker(url, task_queue="work", **options):
        yield await Client.connect(url)


async def nothing_is_left(url: str) -> None:
    async with connected(url) as connection:
        for table in ("worker_stream", "engine_stream", "timer", "wait"):
            assert await connection.fetchval(f"select count(*) from durable.{table}") == 0, table


async def test_one_activity_and_five_in_a_row(database_url: str) -> None:
    """CB-16, WP-05, WP-06."""
    async with worker(database_url) as client:
        assert await client.execute_workflow(one, 4) == 8
        assert await client.execute_workflow(five, 1) == 32
    assert calls["double"] == 6
    await nothing_is_left(database_url)


async def test_at_once_in_threads_and_with_values_of_any_kind(database_url: str) -> None:
    """WP-23: results come in the order of the calls."""
    async with worker(database_url) as client:
        assert await client.execute_workflow(both) == [2, "2 blocking False", None, "hotmesh.codec:x"]


async def test_on_another_queue_by_a_name_that_is_not_known_here(database_url: str) -> None:
    """CB-17, CB-18, CB-19: another worker has it, under a name of its own."""
    async with worker(database_url, activities=()) as client:
        handle = await client.start_workflow(remote, "other", "twice", 21)
        async with Worker(database_url, task_queue="other", activities={"twice": double}):
            assert await handle.result(timeout=10) == 42
    await nothing_is_left(database_url)


async def test_what_an_activity_knows_of_itself(database_url: str) -> None:
    async with worker(database_url) as client:
        options = {"headers": {"tenant": "a"}, "start_to_close_timeout": 20}
        assert await client.execute_workflow(asked, "tells", [], options, id="who") == {
            "name": "tells", "id": "who", "workflow": "asked", "queue": "work", "attempt": 1,
            "headers": {"tenant": "a"}, "namespace": "durable", "key": True, "left": True,
        }  # fmt: skip


async def test_it_is_tried_again_by_its_own_policy(database_url: str) -> None:
    """RT-01: success at the third call."""
    async with worker(database_url) as client:
        assert await client.execute_workflow(retried, 3) == 3
    assert calls["fails"] == 3


async def test_used_up_attempts_and_final_errors_keep_their_cause(database_url: str) -> None:
    """RT-09, RT-12, RT-17: the message arrives as it was raised; fatal is not tried again."""
    async with worker(database_url) as client:
        with pytest.raises(errors.WorkflowFailedError, match="attempt 3") as found:
            await client.execute_workflow(retried, 9)
        cause = found.value.__cause__
        assert isinstance(cause, errors.ActivityError)
        assert (cause.activity_name, cause.attempt, cause.retry_state) == ("fails", 3, "exhausted")
        assert isinstance(cause.__cause__, errors.ApplicationError)
        assert (cause.__cause__.type, str(cause.__cause__)) == ("ValueError", "attempt 3")
        calls.clear()
        with pytest.raises(errors.WorkflowFailedError, match="never again") as found:
            await client.execute_workflow(retried, 9, "fatal")
        assert found.value.code == 598
    assert calls["fails"] == 1
    await nothing_is_left(database_url)


async def test_an_error_as_a_value(database_url: str) -> None:
    """RT-11, RT-20, RT-21."""
    options = {"throw_on_error": False, "retry": {"non_retryable_errors": ["ValueError"]}}
    async with worker(database_url) as client:
        told = await client.execute_workflow(asked, "fails", [9], options)
    assert (told["message"], told["type"]) == ("attempt 1", "ValueError")
    assert calls["fails"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start_to_close_timeout": 0.1, "retry_on_timeout": False}, "start_to_close"),
        ({"schedule_to_close_timeout": 0.1}, "schedule_to_close"),
        ({"heartbeat_timeout": 0.1, "retry": {"maximum_attempts": 1}}, "no heartbeat"),
    ],
)
async def test_an_attempt_that_takes_too_long_is_cut_off(
    database_url: str, options: dict[str, Any], said: str
) -> None:
    """RT-13, RT-14, RT-15, RT-16: by a worker of activities alone, too; the function is cancelled."""
    async with (
        worker(database_url, activities=()) as client,
        Worker(database_url, task_queue="work", activities=[hangs], namespace="durable"),
    ):
        with pytest.raises(errors.WorkflowFailedError, match=said) as found:
            await client.execute_workflow(asked, "hangs", ["cut"], options)
        assert isinstance(found.value.__cause__, errors.ActivityTimeoutError)
        assert (found.value.code, ended) == (596, ["cut"])
    assert calls["hangs"] == 1
    await nothing_is_left(database_url)


async def test_one_that_nobody_takes_in_time(database_url: str) -> None:
    async with worker(database_url) as client:
        options = {"schedule_to_start_timeout": 0.1, "task_queue": "nobody"}
        with pytest.raises(errors.WorkflowFailedError, match="taken by a worker") as found:
            await client.execute_workflow(asked, "double", [1], options)
        assert found.value.code == 596
        # One that was taken goes on.
        options = {"schedule_to_start_timeout": 0.05}
        assert await client.execute_workflow(asked, "naps", [0.3], options) == 0.3
    await nothing_is_left(database_url)


@activity.defn
async def naps(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


ACTIVITIES.append(naps)


async def test_one_that_is_given_up_is_cancelled_at_once(database_url: str) -> None:
    """`try_cancel`; the workflow goes on, and the answer of the activity does not count."""
    async with worker(database_url) as client:
        assert await client.execute_workflow(gives_up, 0.1) == "given up"
        await eventually(lambda: ended == ["given up"])
    await nothing_is_left(database_url)


async def test_no_more_run_at_once_than_the_worker_may(database_url: str) -> None:
    """WL-12, WL-09: three of two kinds at once; what waits is done as slots become free."""
    most = running = 0

    @activity.defn
    async def counted(_: int) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    @activity.defn
    async def other(number: int) -> None:
        await counted(number)

    @workflow.defn(task_queue="work")
    async def all_of() -> None:
        await asyncio.gather(*(workflow.execute_activity(counted if n % 2 else other, n) for n in range(20)))

    async with worker(
        database_url, workflows=[all_of], activities=[counted, other], max_concurrent_activities=3
    ) as client:
        await asyncio.wait_for(client.execute_workflow(all_of), 10)
    assert most == 3


async def test_a_thread_is_alive_after_its_activity_ran_into_its_time(database_url: str) -> None:
    """PX-25: the only thread goes on with the next activity."""

    @activity.defn
    def late(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    @workflow.defn(task_queue="work")
    async def twice() -> str:
        for _ in range(3):
            with suppress(errors.ActivityTimeoutError):
                await workflow.execute_activity(
                    late, 0.05, start_to_close_timeout=0.05, retry_on_timeout=False
                )
        return await workflow.execute_activity(late, 0)

    async with worker(
        database_url, workflows=[twice], activities=[late], max_concurrent_activities=1
    ) as client:
        assert await asyncio.wait_for(client.execute_workflow(twice), 10) == "done"
