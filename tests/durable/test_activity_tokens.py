"""Activities that are ended from elsewhere, by their token: once, and never too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import ledger
from durable_hosts import host, left, written
from harness import connected, eventually
from hotmesh import HotMesh
from hotmesh.durable import Client, Worker, activity, errors, workflow
from hotmesh.errors import ConfigError

pytestmark = pytest.mark.anyio

tokens: list[str] = []
found: list[Any] = []


@pytest.fixture(autouse=True)
def clean() -> None:
    tokens.clear()
    found.clear()


@activity.defn
async def gives_up() -> str:
    context = activity.get_context()
    tokens.append(context.task_token)
    found.append(context.last_heartbeat_details)
    try:
        activity.raise_complete_async()
    except Exception:  # noqa: BLE001 - no handler for errors takes it
        return "caught"


@activity.defn
def gives_up_in_a_thread() -> str:
    tokens.append(activity.get_context().task_token)
    activity.raise_complete_async()


@activity.defn
async def goes_on() -> str:
    tokens.append(activity.get_context().task_token)
    try:
        await asyncio.sleep(60)
    finally:
        found.append("cut off")
    return "never"


async def a_step() -> None:
    activity.raise_complete_async()


@workflow.defn(task_queue="work")
async def asks(name: str, options: dict[str, Any], *args: Any) -> Any:
    try:
        return await workflow.execute_activity(name, *args, **options)
    except errors.ActivityError as error:
        return [error.retry_state, error.attempt, error.message]
    except asyncio.CancelledError:
        return "cancelled"


@workflow.defn(task_queue="work")
async def steps() -> None:
    await workflow.step(a_step, retry={"maximum_attempts": 1})


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[tuple[Client, Client]]:
    """A client of its instance, and one of another process, as far as that matters."""
    activities = [gives_up, gives_up_in_a_thread, goes_on]
    async with Worker(url, task_queue="work", workflows=[asks, steps], activities=activities):
        mesh = await HotMesh.init("durable", connection=url, namespace="durable")
        try:
            yield await Client.connect(url), Client(mesh=mesh)
        finally:
            await mesh.stop()


async def token(number: int = 1) -> str:
    await eventually(lambda: len(tokens) >= number)
    return tokens[number - 1]


async def handed_over(url: str) -> None:
    async with connected(url) as connection:

        async def is_so() -> bool:
            return bool(
                await connection.fetchval(
                    "select count(*) from durable.worker_stream where reserved_by = '(token)'"
                )
            )

        await eventually(is_so)


NOW = {"initial_interval": 0, "maximum_attempts": 2}


async def test_an_activity_is_ended_by_its_token_from_elsewhere(database_url: str) -> None:
    """PX-22: once, whether its function has given up its result or still runs; with what could be its result, and errors."""
    async with worker(database_url) as (client, elsewhere):
        for number, name in enumerate(["gives_up", "gives_up_in_a_thread", "goes_on"], 1):
            handle = await client.start_workflow(asks, name, {})
            one = await token(number)
            if name != "goes_on":
                await handed_over(database_url)
            assert await elsewhere.complete_activity(one, {"number": number})
            assert await handle.result(timeout=5) == {"number": number}
            assert not await elsewhere.complete_activity(one, "again")
            assert not await elsewhere.fail_activity(one, "again")
            assert not await elsewhere.heartbeat_activity(one)
        await eventually(lambda: found[-1] == "cut off")
        # Tried again as its call says: the token of an attempt is none of the next one.
        handle = await client.start_workflow(asks, "gives_up", {"retry": NOW})
        first = await token(4)
        assert await elsewhere.heartbeat_activity(first, "half")
        assert await elsewhere.fail_activity(first, ValueError("no luck"))
        second = await token(5)
        assert found[-1] == ("half",)
        assert not await elsewhere.complete_activity(first, "late")
        assert await elsewhere.fail_activity(second, "none at all")
        assert await handle.result(timeout=5) == ["exhausted", 2, "none at all"]
        handle = await client.start_workflow(asks, "gives_up", {}, id="kept")
        await handed_over(database_url)
        await handle.terminate()
        assert not await elsewhere.complete_activity(tokens[-1], "after the end of its workflow")
        for wrong in ("", "x", tokens[-1][:-2] + "AA", "ü"):
            with pytest.raises(ConfigError, match="no token"):
                await elsewhere.complete_activity(wrong)
        with pytest.raises(errors.WorkflowFailedError, match="it has no token"):
            await client.execute_workflow(steps)
    assert not any((await left(database_url)).values())


async def test_the_limits_of_one_that_was_given_up_go_on(database_url: str) -> None:
    """And who has its token hears that it is to end."""
    async with worker(database_url) as (client, elsewhere):
        options: dict[str, Any] = {"heartbeat_timeout": 0.3, "retry": NOW}
        handle = await client.start_workflow(asks, "gives_up", options)
        await handed_over(database_url)
        for _ in range(5):
            await asyncio.sleep(0.1)
            assert await elsewhere.heartbeat_activity(tokens[0])
        assert len(tokens) == 1
        await token(2)  # the first is silent
        assert not await elsewhere.heartbeat_activity(tokens[0])
        assert await elsewhere.complete_activity(tokens[1], "done")
        assert await handle.result(timeout=5) == "done"
        options = {"start_to_close_timeout": 0.2, "retry_on_timeout": False}
        state, attempt, message = await client.execute_workflow(asks, "gives_up", options)
        assert (state, attempt) == ("timeout", 1)
        assert "start_to_close_timeout" in message
        options = {"schedule_to_close_timeout": 0.2}
        assert (await client.execute_workflow(asks, "gives_up", options))[0] == "timeout"
        assert not await elsewhere.complete_activity(tokens[-1], "late")
        handle = await client.start_workflow(asks, "gives_up", {"cancellation_type": "wait_completed"})
        await handed_over(database_url)
        assert await elsewhere.heartbeat_activity(tokens[-1])
        await handle.cancel()

        async def is_told() -> bool:
            return not await elsewhere.heartbeat_activity(tokens[-1])

        await eventually(is_told)
        assert await elsewhere.complete_activity(tokens[-1], "ended")
        assert await handle.result(timeout=5) == "ended"
    assert not any((await left(database_url)).values())


async def test_a_token_is_good_when_the_process_that_gave_it_is_dead(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger"
    path.touch()
    async with Client(database_url) as client:
        async with host(database_url, path, gives_up=("a0",)) as first:
            handle = await client.start_workflow("queued", 1, task_queue="crash")
            await written(path, "a0 given up")
            await handed_over(database_url)
            first.kill()
        async with host(database_url, path):
            one = next(entry["token"] for entry in ledger.entries(path) if entry["step"] == "a0 given up")
            assert await client.complete_activity(one, 42)
            assert await handle.result(timeout=20) == 42
    assert [entry["step"] for entry in ledger.entries(path)] == ["a0", "a0 given up"]
    assert not any((await left(database_url)).values())
