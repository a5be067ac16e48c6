"""Activities that run are told to end, in whichever process; and what their heartbeats say reaches the next attempt."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import ledger
from durable_hosts import host, left, written
from harness import connected, eventually
from hotmesh.durable import Client, Worker, activity, errors, workflow
from hotmesh.errors import PayloadError

pytestmark = pytest.mark.anyio

seen: list[str] = []
release = threading.Event()


@pytest.fixture(autouse=True)
def clean() -> None:
    seen.clear()
    release.clear()


@activity.defn
async def beats(name: str, ends: str = "raises") -> str:
    """Runs until it is cancelled, and then ends in one way or another."""
    seen.append(name)
    try:
        while True:
            activity.heartbeat(name)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        seen.append(f"{name} cancelled")
        if ends == "returns":
            return "late"
        if ends == "fails":
            raise ValueError("while it cleaned up") from None
        raise


@activity.defn
def beats_in_a_thread(name: str) -> str:
    seen.append(name)
    while not activity.get_context().is_cancelled():
        activity.heartbeat(name)
        time.sleep(0.01)
    seen.append(f"{name} cancelled")
    return "late"


@activity.defn
async def later(name: str) -> str:
    seen.append(name)
    raise ValueError("again, in an hour")


@workflow.defn(task_queue="work")
async def asks(activity_name: str, kind: Any, args: list[Any], options: dict[str, Any] | None = None) -> Any:
    """Cancelled from outside while it waits for an activity."""
    try:
        return await workflow.execute_activity(
            activity_name, *args, cancellation_type=kind, **(options or {})
        )
    except asyncio.CancelledError:
        return f"cancelled {workflow.is_cancelled()}"


@workflow.defn(task_queue="work")
async def lets_through(name: str) -> str:
    return await workflow.execute_activity(beats, name, cancellation_type="wait_completed")


@workflow.defn(task_queue="work")
async def at_once() -> list[Any]:
    """Given up in the turn that asks for it; and by a timeout of the workflow's own."""
    found: list[Any] = []
    operation = workflow.start_activity(beats, "never", cancellation_type="wait_completed")
    operation.cancel()
    try:
        await operation
    except asyncio.CancelledError:
        found.append("cancelled")
    try:
        async with asyncio.timeout(0.1):
            await workflow.execute_activity(beats, "in time", cancellation_type="wait_completed")
    except TimeoutError:
        found.append("timeout")
    return found


WORKFLOWS = [asks, lets_through, at_once]
ACTIVITIES: list[Any] = [beats, beats_in_a_thread, later]


@asynccontextmanager
async def apart(url: str, *, activities: bool = True) -> AsyncIterator[Client]:
    """Workflows in one instance, activities in another."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Worker(url, task_queue="work", workflows=WORKFLOWS))
        if activities:
            await stack.enter_async_context(Worker(url, task_queue="work", activities=ACTIVITIES))
        yield await Client.connect(url, guid=None)


@asynccontextmanager
async def process_that_hangs(url: str, path: Path) -> AsyncIterator[tuple[AsyncExitStack, Client, Any]]:
    """A client, a process whose activity hangs, and where further processes are put."""
    async with AsyncExitStack() as stack:
        client = await Client.connect(url)
        stack.push_async_callback(client.close)
        await stack.enter_async_context(Worker(url, task_queue="crash", workflows=[waits_for_a1]))
        yield (
            stack,
            client,
            await stack.enter_async_context(host(url, path, hang=("a1",), workflows=False)),
        )


async def began(name: str) -> None:
    await eventually(lambda: name in seen)


async def test_a_cancel_reaches_what_runs_elsewhere_and_its_end_is_waited_for(database_url: str) -> None:
    """CX-07: long before its lease is renewed. With `wait_completed` a late result counts, what it raises does not."""
    async with apart(database_url) as client:
        for number, (name, kind, args, result) in enumerate(
            [
                ("beats", "try_cancel", [], "cancelled True"),
                ("beats", "wait_completed", [], "cancelled True"),
                ("beats", "wait_completed", ["fails"], "cancelled True"),
                ("beats", "wait_completed", ["returns"], "late"),
                ("beats_in_a_thread", "wait_completed", [], "late"),
                ("beats_in_a_thread", "try_cancel", [], "cancelled True"),
            ]
        ):
            handle = await client.start_workflow(asks, name, kind, [f"{number}", *args], id=f"{number}")
            await began(f"{number}")
            assert await handle.cancel()
            assert await handle.result(timeout=5) == result
            await eventually(lambda said=f"{number} cancelled": said in seen)  # type: ignore[misc]
        handle = await client.start_workflow(lets_through, "through", id="through")
        await began("through")
        await handle.cancel()
        with pytest.raises(errors.WorkflowCancelledError):
            await handle.result(timeout=5)
        assert await client.execute_workflow(at_once) == ["cancelled", "timeout"]
        assert "never" not in seen
        handle = await client.start_workflow(asks, "beats", "try_cancel", ["ended"], id="ended")
        await began("ended")
        await handle.terminate()
        await began("ended cancelled")
    assert not any((await left(database_url)).values())


async def test_one_that_nobody_has_is_over_at_once_when_it_is_asked_to_end(database_url: str) -> None:
    """Because no worker has taken it, or because it waits for its next attempt."""
    async with apart(database_url, activities=False) as client:
        handle = await client.start_workflow(asks, "beats", "wait_completed", ["never"])
        async with connected(database_url) as connection:

            async def waits() -> bool:
                return bool(await connection.fetchval("select count(*) from durable.worker_stream") == 1)

            await eventually(waits)
            await handle.cancel()
            assert await handle.result(timeout=5) == "cancelled True"
            options = {"retry": {"initial_interval": 3600, "maximum_interval": 3600}}
            handle = await client.start_workflow(asks, "later", "wait_completed", ["later"], options)
            async with Worker(database_url, task_queue="work", activities=ACTIVITIES):

                async def put_off() -> bool:
                    return bool(await connection.fetchval("select attempt from durable.worker_stream") == 1)

                await eventually(put_off)
                await handle.cancel()
                assert await handle.result(timeout=5) == "cancelled True"
    assert seen == ["later"]
    assert not any((await left(database_url)).values())


async def test_what_is_asked_to_end_ends_although_its_process_dies(database_url: str, tmp_path: Path) -> None:
    """The mark is on its row: whoever takes it runs nothing. A process that lives hears of it within a second."""
    path = tmp_path / "ledger"
    path.touch()
    async with process_that_hangs(database_url, path) as (stack, client, first):
        handle = await client.start_workflow(waits_for_a1, id="lives")
        await written(path, "a1")
        since = time.monotonic()
        await handle.cancel()
        assert await handle.result(timeout=10) == "cancelled"
        assert time.monotonic() - since < 3
        await written(path, "a1 cancelled")
        handle = await client.start_workflow(waits_for_a1, id="dies")
        await eventually(lambda: sum(entry["step"] == "a1" for entry in ledger.entries(path)) == 2)
        first.send_signal(19)  # it stands still, so that it hears nothing
        await handle.cancel()
        async with connected(database_url) as connection:

            async def marked() -> bool:
                return bool(await connection.fetchval("select cancelled from durable.worker_stream"))

            await eventually(marked)
        first.kill()
        await stack.enter_async_context(host(database_url, path, workflows=False))
        assert await handle.result(timeout=20) == "cancelled"
    steps = [entry["step"] for entry in ledger.entries(path)]
    assert steps == ["a1", "a1 cancelled", "a1"]
    assert not any((await left(database_url)).values())


async def test_what_heartbeats_say_is_there_for_the_next_attempt(database_url: str, tmp_path: Path) -> None:
    """RT-24: after an attempt that failed, was silent for too long, or whose process was killed."""
    async with apart(database_url) as client:
        options = {"heartbeat_timeout": 0.2, "retry": {"initial_interval": 0, "maximum_attempts": 5}}
        assert await client.execute_workflow(asks, "goes_on", "try_cancel", [], options) == [
            [], ["first", {"rows": 1}], ["first", {"rows": 1}], [3],
        ]  # fmt: skip
        with pytest.raises(errors.WorkflowFailedError, match="details of a heartbeat"):
            await client.execute_workflow(asks, "says_too_much", "try_cancel", [])
    path = tmp_path / "ledger"
    path.touch()
    async with process_that_hangs(database_url, path) as (stack, client, first):
        handle = await client.start_workflow(waits_for_a1)
        async with connected(database_url) as connection:

            async def kept() -> bool:
                return bool(
                    await connection.fetchval("select heartbeat is not null from durable.worker_stream")
                )

            await eventually(kept)
        first.kill()
        await stack.enter_async_context(host(database_url, path, workflows=False))
        assert await handle.result(timeout=20) == 2
    assert [entry["found"] for entry in ledger.entries(path)] == [[], ["a1", {"number": 1}]]


found: list[list[Any]] = []


@activity.defn
async def goes_on() -> list[Any]:
    context = activity.get_context()
    if context.attempt == 1:
        found.clear()
    found.append(list(context.last_heartbeat_details))
    if context.attempt == 1:
        context.heartbeat("zeroth")
        context.heartbeat("first", {"rows": 1})
        await asyncio.sleep(60)
    elif context.attempt == 2:
        raise ValueError("has said nothing")
    elif context.attempt == 3:
        await asyncio.to_thread(activity.heartbeat, 3)
        raise ValueError("has said something else, from a thread")
    return found


@activity.defn
async def says_too_much() -> None:
    try:
        activity.heartbeat("x" * 300_000)
    except PayloadError as error:
        raise errors.FatalError(str(error)) from None


ACTIVITIES += [goes_on, says_too_much]


async def test_what_comes_after_a_workflow_was_terminated_changes_nothing(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CX-17, CX-18, CX-19: no row is left that anybody could take; the late answer is nobody's."""
    async with apart(database_url) as client:
        handle = await client.start_workflow(asks, "stubborn", "try_cancel", [])
        await began("stubborn")
        await handle.terminate()
        assert not any((await left(database_url)).values())
        async with connected(database_url) as connection:
            backdated = await connection.execute(
                "update durable.worker_stream set visible_at = visible_at - interval '1 hour'"
            )
            assert backdated == "UPDATE 0"
            await connection.execute("""select durable.wake('durable', '{"w":["work-activity"],"e":1}')""")
        release.set()
        await began("stubborn ends")
        assert await client.execute_workflow(asks, "beats_once", "try_cancel", []) == "beat"
        assert (await handle.describe()).status.value == "terminated"
    assert seen.count("stubborn") == 1
    assert not [
        record
        for record in caplog.records
        if record.levelname == "ERROR" and "does not end" not in record.message
    ]
    assert not any((await left(database_url)).values())


@activity.defn
def stubborn() -> str:
    seen.append("stubborn")
    release.wait(20)
    seen.append("stubborn ends")
    return "late"


@activity.defn
async def beats_once() -> str:
    return "beat"


ACTIVITIES += [stubborn, beats_once]


@workflow.defn(task_queue="crash")
async def waits_for_a1() -> Any:
    try:
        return await workflow.execute_activity("a1", "a1", 1, cancellation_type="wait_completed")
    except asyncio.CancelledError:
        return "cancelled"
