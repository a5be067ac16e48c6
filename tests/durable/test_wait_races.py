"""Signals, timers and replays that meet: each signal counts once, whoever is first, and history knows of what is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from durable_hosts import waiting
from harness import connected, eventually
from hotmesh.durable import Client, Worker, activity, errors, workflow
from hotmesh.durable.work_items import EscalationEntry

pytestmark = pytest.mark.anyio


@workflow.defn(task_queue="races")
async def both(first: str, second: str) -> list[Any]:
    return list(
        await asyncio.gather(workflow.condition(first, 3600), workflow.condition(second, 3600, shared=True))
    )


@workflow.defn(task_queue="races")
async def timed(signal_id: str, timeout: float) -> Any:
    return await workflow.condition(signal_id, timeout)


ALL = [both, timed]


@asynccontextmanager
async def hosted(url: str) -> AsyncIterator[Client]:
    async with Worker(url, task_queue="races", workflows=ALL):
        yield await Client.connect(url)


async def hand_over(connection: Any, signal_id: str, data: str, later: float = 0.0) -> None:
    """A signal by SQL alone, for the engines to find; after so many seconds."""
    async with connection.transaction():
        await connection.execute(
            "select durable.lock_signal_keys('durable', '{$signal}', array[$1])", signal_id
        )
        await connection.execute(
            "select durable.hand_over_signal('durable', '$signal', $1, $2::text::json, 'success', 200, 600)",
            signal_id,
            data,
        )
        await connection.execute(
            "update durable.engine_stream set visible_at = visible_at + $2 * interval '1 second' where activity_id = $1",
            signal_id,
            later,
        )


@pytest.mark.row("SG-01", "WP-27")
async def test_a_replay_while_a_signal_is_on_its_way(database_url: str) -> None:
    """The wait has no row any more, and its outcome is not recorded yet: it is not asked for again."""
    async with hosted(database_url) as client:
        handle = await client.start_workflow(both, "near", "far")
        await waiting(database_url, 2)
    async with connected(database_url) as connection:
        await hand_over(connection, "far", '"b"', 3600)
        await hand_over(connection, "near", '"a"')
        async with hosted(database_url) as client:
            turned = (
                "select count(*) from durable.operation where name = 'near' "
                "and not exists (select from durable.worker_stream)"
            )
            await eventually(lambda: connection.fetchval(turned))
            assert await connection.fetchval("select open from durable.job") is None, "it is parked"
            assert await connection.fetchval("select count(*) from durable.wait") == 0
            await connection.execute("update durable.engine_stream set visible_at = now()")
            result = await client.get_workflow_handle(handle.workflow_id).result(timeout=20)
            assert result == ["a", "b"]
        for table in ("wait", "timer", "signal", "engine_stream", "worker_stream"):
            assert await connection.fetchval(f"select count(*) from durable.{table}") == 0, table


@workflow.defn(task_queue="races")
async def asks(name: str, timeout: float | None = None) -> Any:
    return await workflow.condition(
        f"ok {name}",
        timeout,
        escalation={
            "role": "boss",
            "type": "approval",
            "subtype": "order",
            "priority": 2,
            "metadata": {"n": name},
        },
    )


@activity.step
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow.defn(task_queue="races")
async def asks_and_greets(name: str) -> list[Any]:
    item = workflow.condition(f"ok {name}", escalation={"role": "boss", "type": "approval"})
    return list(await asyncio.gather(item, greet(name)))


ALL += [asks, asks_and_greets]


async def pending(client: Client, name: str) -> EscalationEntry:
    async def found() -> EscalationEntry | None:
        return await client.escalations.get_by_signal_key(f"ok {name}")

    await eventually(found)
    entry = await found()
    assert entry is not None
    return entry


@pytest.mark.row("ES-01", "ES-02", "ES-03", "ES-11", "CT-05", "CT-10", "WP-30", "WA-01")
async def test_a_work_item_that_is_resolved(database_url: str) -> None:
    async with hosted(database_url) as client:
        first = await client.start_workflow(asks, "a", 3600, id="asks a")
        second = await client.start_workflow(asks_and_greets, "b")
        entry = await pending(client, "a")
        assert (entry.status, entry.role, entry.type, entry.subtype) == (
            "pending",
            "boss",
            "approval",
            "order",
        )
        assert (entry.priority, entry.metadata, entry.workflow_id) == (2, {"n": "a"}, "asks a")
        assert (entry.task_queue, entry.workflow_type) == ("races", "asks")
        other = await pending(client, "b")
        assert [item.id for item in await client.escalations.list(role="boss", status="pending")] == [
            entry.id,
            other.id,
        ]
        assert [item.id for item in await client.escalations.list(subtype="order")] == [entry.id]
        done = (await client.escalations.resolve(entry.id, {"by": "ann"})).raise_for_reason()
        assert (done.status, done.resolver_payload) == ("resolved", {"by": "ann"})
        assert await first.result(timeout=20) == {"by": "ann"}
        again = await client.escalations.resolve(entry.id, {"by": "bob"})
        assert (again.ok, again.reason) == (False, "already-resolved")
        with pytest.raises(errors.EscalationError, match="already-resolved"):
            again.raise_for_reason()
        await client.escalations.resolve(other.id)
        assert await second.result(timeout=20) == [{}, "Hello, b!"]
        assert (await client.escalations.resolve("0" * 32)).reason == "not-found"
    async with connected(database_url) as connection:
        for table in ("wait", "timer", "signal", "engine_stream", "worker_stream"):
            assert await connection.fetchval(f"select count(*) from durable.{table}") == 0, table


@pytest.mark.row("ES-41", "WA-02", "WA-04", "WA-06")
async def test_work_items_that_are_cancelled_at_once(database_url: str) -> None:
    async with hosted(database_url) as client:
        names = [f"c{number}" for number in range(6)]
        handles = [await client.start_workflow(asks, name, 3600) for name in names]
        entries = [await pending(client, name) for name in names]
        settled = await asyncio.gather(*(client.escalations.cancel(entry.id) for entry in entries))
        assert all(one.ok for one in settled)
        assert [await handle.result(timeout=20) for handle in handles] == [None] * 6
        assert len(await client.escalations.list(status="cancelled")) == 6


@pytest.mark.row("CT-04", "CT-07", "ES-40")
async def test_work_items_whose_time_is_over_or_whose_workflow_is_ended(database_url: str) -> None:
    async with hosted(database_url) as client:
        assert await client.execute_workflow(asks, "d", 0.1) is False
        entry = await pending(client, "d")
        late = await client.escalations.resolve(entry.id, {})
        assert (entry.status, late.ok, late.reason) == ("expired", False, "already-expired")
        handle = await client.start_workflow(asks, "e", 3600)
        entry = await pending(client, "e")
        await handle.terminate()
        assert (await client.escalations.resolve(entry.id, {})).reason == "already-cancelled"


@pytest.mark.row("CT-12")
async def test_a_timer_against_who_resolves(database_url: str) -> None:
    """Whoever is first: the row and the workflow agree."""
    async with hosted(database_url) as client:

        async def race(number: int) -> tuple[Any, str]:
            name = f"race {number}"
            handle = await client.start_workflow(asks, name, 0.15 + number * 0.002)
            entry = await pending(client, name)
            await asyncio.sleep(0.1)
            await client.escalations.resolve(entry.id, {"number": number})
            return await handle.result(timeout=30), (await pending(client, name)).status

        found = await asyncio.gather(*(race(number) for number in range(40)))
    for number, (result, status) in enumerate(found):
        assert (result, status) in (({"number": number}, "resolved"), (False, "expired"))
