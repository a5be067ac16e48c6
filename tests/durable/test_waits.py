"""Everything that waits: sleep, signals to ids and to workflows, handlers, time limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from durable_hosts import waiting
from harness import connected, eventually
from hotmesh.durable import Client, Worker, WorkflowStatus, activity, errors, workflow

pytestmark = pytest.mark.anyio


@dataclass
class Decision:
    ok: bool
    by: str = ""


@activity.step
async def note(name: str) -> str:
    return f"noted {name}"


@workflow.defn(task_queue="waits")
async def naps(seconds: float) -> float:
    return await workflow.sleep(seconds)


@workflow.defn(task_queue="waits")
async def waits_for(signal_id: str, timeout: float | None = None) -> Any:
    return await workflow.condition(signal_id, timeout)


@workflow.defn(task_queue="waits")
async def decides(signal_id: str) -> str:
    await note("before")
    found = await workflow.wait_signal(signal_id, "1 hour", result_type=Decision)
    assert found.payload is not None
    return f"{found.status} {found.payload.ok} {found.payload.by}"


@workflow.defn(task_queue="waits")
async def two(first: str, second: str) -> list[Any]:
    return list(await asyncio.gather(workflow.condition(first, 0.3), workflow.condition(second)))


@workflow.defn(task_queue="waits")
async def tries(signal_id: str) -> str:
    try:
        await workflow.condition(signal_id, 60)
    except errors.SignalIdInUseError as error:
        await note("in use")
        return str(error)
    return "signalled"


@workflow.defn(task_queue="waits")
async def receives(count: int) -> list[Any]:
    return [await workflow.recv("number") for _ in range(count)]


@workflow.defn(task_queue="waits")
async def receives_late() -> list[Any]:
    await workflow.recv("go")
    return [await workflow.recv("number"), await workflow.condition("number")]


@workflow.defn(task_queue="waits")
class Basket:
    def __init__(self) -> None:
        self.items: list[str] = []
        self.noted: list[str] = []
        self.closed = False

    @workflow.run
    async def run(self, least: int) -> list[str]:
        await workflow.wait_condition(lambda: self.closed and len(self.noted) >= least, "1 hour")
        return [*self.items, *sorted(self.noted)]

    @workflow.signal
    async def add(self, item: Decision) -> None:
        self.items.append(item.by)
        self.noted.append(await note(item.by))

    @workflow.signal(name="close")
    def shut(self) -> None:
        self.closed = True


@workflow.defn(task_queue="waits")
async def sends(workflow_id: str, signal_id: str) -> str:
    workflow.signal(signal_id, {"from": "sends"})
    workflow.signal_workflow(workflow_id, "number", 7)
    await note("sent")
    await workflow.sleep(0.05)
    return "sent"


@workflow.defn(task_queue="waits")
async def in_turn(signal_id: str) -> list[Any]:
    return [await workflow.condition(signal_id) for _ in range(10)]


ALL = [naps, waits_for, decides, two, tries, receives, receives_late, Basket, sends, in_turn]


@asynccontextmanager
async def hosted(url: str) -> AsyncIterator[Client]:
    async with Worker(url, task_queue="waits", workflows=ALL):
        yield await Client.connect(url)


async def open_rows(url: str) -> dict[str, int]:
    async with connected(url) as connection:
        found = {}
        for table in ("wait", "timer", "signal", "engine_stream", "worker_stream"):
            count = await connection.fetchval(f"select count(*) from durable.{table}")
            if count:
                found[table] = count
        return found


@pytest.mark.row("WP-07", "WP-09", "WP-10")
async def test_sleep_returns_its_seconds(database_url: str) -> None:
    async with hosted(database_url) as client:
        assert await client.execute_workflow(naps, 0.2) == 0.2
        assert await client.execute_workflow(naps, 0) == 0
        assert await client.execute_workflow(naps, -1) == -1


@pytest.mark.row("WP-15", "SG-01", "CT-03")
async def test_a_signal_to_an_id_has_its_payload(database_url: str) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(waits_for, "approve 1")
        await waiting(database_url, 1)
        await client.signal("approve 1", {"by": ["ann", None, 1.5]})
        assert await handle.result() == {"by": ["ann", None, 1.5]}
        assert await open_rows(database_url) == {}


@pytest.mark.row("SG-02", "SG-09", "SG-17")
async def test_signals_that_come_early_are_kept_in_order(database_url: str) -> None:
    async with hosted(database_url) as client:
        for number in range(10):
            await client.signal("soon", number)
        assert await client.execute_workflow(in_turn, "soon") == list(range(10))
        assert await open_rows(database_url) == {}


@pytest.mark.row("SG-08")
async def test_a_signal_whose_time_is_over_is_not_delivered(database_url: str) -> None:
    async with hosted(database_url) as client:
        await client.signal("brief", 1, expire="1 hour")
        async with connected(database_url) as connection:
            await connection.execute("update durable.signal set expires_at = now() - interval '1 second'")
        assert await client.execute_workflow(waits_for, "brief", 0.1) is False


@pytest.mark.row("CT-01", "CT-09", "WP-38")
async def test_a_signal_before_the_time_is_over(database_url: str) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(waits_for, "in time", 3600)
        await waiting(database_url, 1)
        await client.signal("in time", "yes")
        assert await handle.result() == "yes"
        assert await open_rows(database_url) == {}


@pytest.mark.row("CT-02", "CT-08")
async def test_the_time_of_one_wait_is_over_and_the_other_goes_on(database_url: str) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(two, "first", "second")
        await waiting(database_url, 2)
        await waiting(database_url, 1)
        await client.signal("first", "too late")
        await client.signal("second", "well")
        assert await handle.result() == [False, "well"]


@pytest.mark.row("CT-13", "WP-16")
async def test_a_payload_is_read_by_its_type(database_url: str) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(decides, "typed")
        await waiting(database_url, 1)
        await client.signal("typed", Decision(ok=False, by="ann"))
        assert await handle.result() == "received False ann"


@pytest.mark.row("SG-11")
async def test_another_one_that_waits_for_the_same_id(database_url: str) -> None:
    async with hosted(database_url) as client:
        first = await client.start_workflow(tries, "one")
        await waiting(database_url, 1)
        assert "choose an id" in await client.execute_workflow(tries, "one")
        await client.signal("one")
        assert await first.result() == "signalled"


@pytest.mark.row("SG-10", "SG-12", "SG-13")
async def test_signals_to_a_workflow_are_its_own(database_url: str) -> None:
    async with hosted(database_url) as client:
        handles = [await client.start_workflow(receives, 3) for _ in range(2)]
        for number in range(3):
            for index, handle in enumerate(handles):
                await handle.signal("number", [index, number])
        for index, handle in enumerate(handles):
            assert await handle.result() == [[index, number] for number in range(3)]
            with pytest.raises(errors.WorkflowClosedError):
                await handle.signal("number", 4)
        with pytest.raises(errors.WorkflowNotFoundError):
            await client.get_workflow_handle("nobody").signal("number")
        assert await open_rows(database_url) == {}


async def test_signals_are_kept_until_the_workflow_asks_for_them(database_url: str) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(receives_late)
        for number in range(2):
            await handle.signal("number", number)
        await handle.signal("go")
        assert await handle.result() == [0, 1]


async def test_handlers_take_signals_in_order(database_url: str) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(Basket, 5)
        names = [f"item {number}" for number in range(5)]
        for name in names:
            await handle.signal("add", Decision(True, name))
        await handle.signal("close")
        assert await handle.result() == [*names, *(f"noted {name}" for name in names)]


@pytest.mark.row("SG-05", "SG-07")
async def test_workflows_signal_each_other_once(database_url: str) -> None:
    async with hosted(database_url) as client:
        receiver = await client.start_workflow(receives, 1, id="receiver")
        waiter = await client.start_workflow(waits_for, "hello")
        assert await client.execute_workflow(sends, "receiver", "hello") == "sent"
        assert await receiver.result() == [7]
        assert await waiter.result() == {"from": "sends"}
        assert await open_rows(database_url) == {}


async def test_signals_for_a_workflow_whose_host_is_elsewhere(database_url: str) -> None:
    async with hosted(database_url) as client:
        handle = await client.start_workflow(receives, 3, id="moves")
        await handle.signal("number", 1)
    async with await Client.connect(database_url) as client:
        # Nobody hosts it: it is recorded, and a turn asked for.
        await client.get_workflow_handle("moves").signal("number", 2)

        async def recorded() -> bool:
            async with connected(database_url) as connection:
                return bool(await connection.fetchval("select count(*) = 0 from durable.engine_stream"))

        await eventually(recorded)
    async with hosted(database_url) as client:
        handle = client.get_workflow_handle("moves")
        await handle.signal("number", 3)
        assert await handle.result() == [1, 2, 3]
        assert (await handle.describe()).status is WorkflowStatus.COMPLETED
