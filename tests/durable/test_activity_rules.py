"""Activities on queues: what ends an attempt, what is tried again, and what their rows say."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh.durable import Client, RetryPolicy, Worker, activity, errors, workflow

pytestmark = pytest.mark.anyio

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def clean() -> None:
    calls.clear()


@activity.defn
async def slow_at_first(name: str) -> int:
    """Hangs at its first attempt."""
    calls[name] += 1
    if activity.get_context().attempt == 1:
        await asyncio.sleep(60)
    return activity.get_context().attempt


@activity.defn
async def too_late(name: str) -> None:
    calls[name] += 1
    raise errors.DurableTimeoutError("its own")


@activity.defn
async def flaky(name: str) -> tuple[str, int]:
    calls[name] += 1
    if activity.get_context().attempt < 3:
        raise ValueError("not yet")
    return name, activity.get_context().attempt


NOW: dict[str, Any] = {"initial_interval": 0, "maximum_attempts": 2}


@workflow.defn(task_queue="work")
async def timeouts() -> list[Any]:
    ask: Any = workflow.execute_activity
    limit: Any = {"start_to_close_timeout": 0.05}
    acts = workflow.proxy_activities(activities=[slow_at_first], retry=NOW, **limit)
    found: list[Any] = []
    for operation in (
        ask(slow_at_first, "by default", retry=NOW, **limit),
        ask(slow_at_first, "not", retry=NOW, retry_on_timeout=False, **limit),
        ask(slow_at_first, "not by policy", retry=NOW | {"retry_on_timeout": False}, **limit),
        acts.slow_at_first("by proxy"),
        ask(slow_at_first, "silent", retry=NOW, heartbeat_timeout=0.05),
        ask(too_late, "its own", retry=NOW, **limit),
        workflow.step(slow_at_first, "a step", retry=RetryPolicy(**NOW), **limit),
    ):  # fmt: skip
        try:
            found.append(await operation)
        except errors.ActivityTimeoutError as error:
            found.append(error.retry_state)
    return found


@workflow.defn(task_queue="work")
async def three_queues() -> list[Any]:
    policies: Any = [
        {"maximum_attempts": 4, "initial_interval": 0.05, "backoff_coefficient": 2, "jitter": 0},
        {"maximum_attempts": 3, "initial_interval": 0, "backoff_coefficient": 10, "maximum_interval": 120},
        {"maximum_attempts": 5, "initial_interval": 0, "backoff_coefficient": 1, "maximum_interval": 200},
    ]
    return await asyncio.gather(
        *(
            workflow.execute_activity(flaky, queue, task_queue=queue, retry=policy)
            for queue, policy in zip(("payments", "mails", "labels"), policies, strict=True)
        )
    )


ACTIVITIES = [slow_at_first, too_late, flaky]


@asynccontextmanager
async def worker(url: str, queue: str = "work", **options: Any) -> AsyncIterator[Client]:
    options = {"activities": ACTIVITIES} | options
    async with Worker(url, task_queue=queue, **options):
        yield await Client.connect(url)


async def test_an_attempt_that_took_too_long_is_tried_again_unless_somebody_says_otherwise(
    database_url: str,
) -> None:
    """RT-10, RT-24: what the reference's proxy runs is not, nor what raises a timeout error itself; a missing heartbeat always is."""
    async with worker(database_url, workflows=[timeouts]) as client:
        found = await client.execute_workflow(timeouts, id="timeouts")
        assert found == [2, "timeout", "timeout", "timeout", 2, "timeout", 2]
        assert calls == {
            "by default": 2, "not": 1, "not by policy": 1, "by proxy": 1, "silent": 2, "its own": 1, "a step": 2,
        }  # fmt: skip
        async with connected(database_url) as connection:
            spans = await connection.fetch("select ended_at - started_at as took from durable.operation")
        # Two of them took two attempts, and all are known to have begun before they ended.
        assert all(row["took"].total_seconds() >= 0.04 for row in spans if row["took"] is not None)
        assert sum(row["took"] is not None for row in spans) == 7


async def test_queues_with_policies_of_their_own(database_url: str) -> None:
    """RT-03, RT-04, RT-05, RT-19, RT-30, RT-32: as columns of the rows, as long as they wait; each is tried as asked."""
    async with worker(database_url, workflows=[three_queues], activities=()) as client:
        handle = await client.start_workflow(three_queues)

        async def policies() -> bool:
            async with connected(database_url) as connection:
                rows = await connection.fetch(
                    """select topic, (retry_policy ->> 'maximum_attempts')::integer,
                              (retry_policy ->> 'backoff_coefficient')::float, (retry_policy ->> 'maximum_interval')::float
                         from durable.worker_stream where topic like '%-activity' order by topic"""
                )
            return [tuple(row) for row in rows] == [
                ("labels-activity", 5, 1, 200), ("mails-activity", 3, 10, 120), ("payments-activity", 4, 2, 120),
            ]  # fmt: skip

        await eventually(policies)
        began = time.monotonic()
        async with (
            worker(database_url, "payments"),
            worker(database_url, "mails"),
            worker(database_url, "labels"),
        ):
            assert await handle.result(timeout=20) == [["payments", 3], ["mails", 3], ["labels", 3]]
        assert time.monotonic() - began >= 0.15
    assert calls == {"payments": 3, "mails": 3, "labels": 3}


async def test_one_that_processes_die_of_is_given_up(database_url: str) -> None:
    """WL-07: its workflow gets an error that says so, and a dead letter is there."""

    @workflow.defn(task_queue="work")
    async def asks() -> Any:
        try:
            return await workflow.execute_activity(flaky, "killer")
        except errors.ActivityError as error:
            cause = error.__cause__
            assert isinstance(cause, errors.ApplicationError)
            return [error.retry_state, cause.type, error.message]

    async with worker(database_url, workflows=[asks], activities=()) as client:
        handle = await client.start_workflow(asks)
        async with connected(database_url) as connection:

            async def died() -> bool:
                # As if so many processes had died of it, the last one with nothing beside it.
                done = await connection.execute(
                    "update durable.worker_stream set delivery = 9, beside = false"
                )
                return bool(done == "UPDATE 1")

            await eventually(died)
            async with worker(database_url):
                state, kind, message = await handle.result(timeout=10)
            assert (state, kind) == ("non_retryable", "MaxRecoveryAttemptsError")
            assert "delivered 9 times" in message
            assert await connection.fetchval("select count(*) from durable.dead_letter") == 1
    assert not calls


async def test_what_takes_long_beside_others_and_longer_than_its_lease(database_url: str) -> None:
    """WL-01, WL-11: it is run once, by one of two workers; one that blocks its thread is in nobody's way."""

    @activity.defn
    async def longer_than_the_lease() -> str:
        calls["long"] += 1
        await asyncio.sleep(2.2)
        return "long"

    @activity.defn
    def blocks() -> str:
        calls["blocks"] += 1
        time.sleep(2.2)
        return "blocked"

    @activity.defn
    async def quick(number: int) -> int:
        return number

    @workflow.defn(task_queue="work")
    async def both() -> list[Any]:
        longer = [workflow.execute_activity(longer_than_the_lease), workflow.execute_activity(blocks)]
        for number in range(10):
            await workflow.execute_activity(quick, number)
        return [all(not one.done() for one in longer), *await asyncio.gather(*longer)]

    options: Any = {"activities": [longer_than_the_lease, blocks, quick], "settings": {"lease": 1.0}}
    async with worker(database_url, workflows=[both], **options) as client, worker(database_url, **options):
        assert await client.execute_workflow(both) == [True, "long", "blocked"]
        async with connected(database_url) as connection:
            assert await connection.fetchval("select count(*) from durable.worker_stream") == 0
    assert calls == {"long": 1, "blocks": 1}


async def test_an_activity_that_no_worker_has_is_said_and_fails(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RT-29: not as long as one of another process has it, nor where nobody serves the queue."""

    @activity.defn
    async def known_elsewhere() -> str:
        return "known"

    @workflow.defn(task_queue="work")
    async def misspelt() -> list[Any]:
        nobody = workflow.start_activity("flaky", "nobody", task_queue="of nobody")
        try:
            await workflow.execute_activity("flakyy", "x")
        except errors.ActivityError as error:
            cause: Any = error.__cause__
            found = [error.retry_state, error.code, cause.type, error.message]
        found.append(await workflow.execute_activity("known_elsewhere"))
        nobody.cancel()
        return found

    grace: Any = {"unknown_activity_grace": 0.4}
    async with worker(database_url, workflows=[misspelt], **grace) as client:
        handle = await client.start_workflow(misspelt)
        async with worker(database_url, activities=[known_elsewhere], **grace):
            state, code, kind, message, known = await handle.result(timeout=10)
    assert (state, code, kind, known) == ("non_retryable", 598, "ActivityNotRegisteredError", "known")
    assert "did you mean flaky?" in message or "there are: known_elsewhere" in message
    assert "activity flakyy waits on queue work, and no worker has it" in caplog.text


async def test_no_more_steps_run_at_once_than_a_worker_may(database_url: str) -> None:
    """Those of another queue of the same instance are not counted."""
    most: Counter[str] = Counter()
    running: Counter[str] = Counter()

    async def counted(queue: str) -> None:
        running[queue] += 1
        most[queue] = max(most[queue], running[queue])
        await asyncio.sleep(0.02)
        running[queue] -= 1

    @workflow.defn
    async def many(queue: str) -> None:
        await asyncio.gather(*(workflow.step(counted, queue) for _ in range(9)))

    async with (
        Worker(database_url, task_queue="few", workflows=[many], max_concurrent_local_activities=3) as few,
        Worker(task_queue="more", workflows=[many], mesh=few.mesh),
    ):
        client = await Client.connect(database_url)
        handles = [await client.start_workflow(many, queue, task_queue=queue) for queue in ("few", "more")]
        for handle in handles:
            await handle.result(timeout=10)
        assert most == {"few": 3, "more": 9}
        most.clear()
        # One that stops takes its limit along: the next one has its own, and not the sum.
        for limit in (4, 2):
            other = Worker(
                task_queue="other", workflows=[many], mesh=few.mesh, max_concurrent_local_activities=limit
            )
            await other.start()
            await (await client.start_workflow(many, "other", task_queue="other")).result(timeout=10)
            await other.stop()
            assert most.pop("other") == limit


async def test_activities_of_a_paused_workflow_wait(database_url: str) -> None:
    """What nobody has, what fails meanwhile, and what a dead process had; one that runs goes on. All of it is there when it is resumed."""

    @activity.defn
    async def fails_at_first(name: str) -> str:
        calls[name] += 1
        if activity.get_context().attempt == 1:
            await go_on.wait()
            raise ValueError("once")
        return name

    @workflow.defn(task_queue="work")
    async def both() -> list[str]:
        retry = RetryPolicy(initial_interval=0)
        return list(
            await asyncio.gather(
                workflow.execute_activity(fails_at_first, "runs", retry=retry),
                workflow.execute_activity(fails_at_first, "waits", retry=retry, task_queue="later"),
            )
        )

    go_on = asyncio.Event()
    async with (
        connected(database_url) as connection,
        worker(database_url, workflows=[both], activities=[fails_at_first]) as client,
    ):

        async def held(count: int) -> None:
            async def found() -> bool:
                query = """select count(*) from durable.worker_stream
                            where paused and reserved_by is null and visible_at > now() + interval '900 years'"""
                return bool(await connection.fetchval(query) == count)

            await eventually(found)

        handle = await client.start_workflow(both)
        await eventually(lambda: calls["runs"] == 1)
        await handle.pause("look at it")
        await held(1)
        go_on.set()
        await held(2)
        # As if a process had died that had taken it before: it is taken, and given back.
        await connection.execute(
            "update durable.worker_stream set reserved_by = 'dead', visible_at = now() where topic = 'work-activity'"
        )
        await connection.execute("""select durable.wake('durable', '{"w":["work-activity"]}')""")
        await held(2)
        async with worker(database_url, "later", activities=[fails_at_first]):
            assert calls == {"runs": 1}
            await handle.resume()
            assert await handle.result(timeout=10) == ["runs", "waits"]
    assert calls == {"runs": 2, "waits": 2}
