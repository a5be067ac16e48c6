"""Code that is changed beside workflows that began before: `patched`, `deprecate_patch`, `version`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh.durable import Client, Worker, activity, workflow
from hotmesh.durable_errors import NotInWorkflowError
from hotmesh.errors import ConfigError

pytestmark = pytest.mark.anyio

QUEUE = "patches"


@activity.step
async def note(word: str) -> str:
    return word


@asynccontextmanager
async def hosting(url: str, *workflows: Any) -> AsyncIterator[Client]:
    async with Worker(url, task_queue=QUEUE, workflows=list(workflows)), Client(url) as client:
        yield client


async def test_what_is_new_goes_by_all_changes(database_url: str) -> None:
    """PV-01, PV-02, PV-03, PV-06: at the beginning, after a step, twice; and a deprecated one says nothing."""

    @workflow.defn(task_queue=QUEUE)
    async def order() -> list[Any]:
        found: list[Any] = [await workflow.patched("first"), bool(workflow.patched("second"))]
        await note("a")
        found.append(await workflow.patched("third"))
        workflow.deprecate_patch("old")
        await note("b")
        found.append(await workflow.version("price", 0, 3))
        return [*found, await workflow.patched("first")]

    async with hosting(database_url, order) as client:
        assert await client.execute_workflow(order) == [True, True, True, 3, True]


async def test_a_workflow_from_before_a_change_goes_the_old_way_and_a_new_one_the_new(
    database_url: str,
) -> None:
    """PV-05: beside an operation that is open, and behind what has been replayed; both end as their code was when they began."""

    @workflow.defn(name="order", task_queue=QUEUE)
    async def old() -> list[str]:
        return [await note("old"), str(await workflow.recv("go")), await note("end")]

    @workflow.defn(name="order", task_queue=QUEUE)
    async def new() -> list[str]:
        first = await note("new" if await workflow.patched("early") else "old")
        if await workflow.patched("check"):
            first = await note(f"{first} checked")
        went = str(await workflow.recv("go"))
        # Here no workflow has been before the change.
        late = await workflow.patched("late")
        again = await workflow.patched("early")
        return [first, went, await note("end"), f"late {late}", f"early {again}"]

    async with hosting(database_url, old) as client, connected(database_url) as connection:
        before = await client.start_workflow(old, id="before")

        async def waits() -> Any:
            return await connection.fetchval("select count(*) from durable.wait")

        await eventually(waits)
    async with hosting(database_url, new) as client:
        after = await client.start_workflow(new, id="after")
        for one in (before, after):
            await client.get_workflow_handle(one.workflow_id).signal("go", "yes")
        assert await client.get_workflow_handle("before").result(timeout=20) == [
            "old", "yes", "end", "late True", "early False",
        ]  # fmt: skip
        assert await after.result(timeout=20) == ["new checked", "yes", "end", "late True", "early True"]


async def test_an_answer_stays_over_attempts_and_the_end_of_the_change(database_url: str) -> None:
    """PV-07: a function that fails and is run again has it still; `deprecate_patch` takes histories with the note and without."""

    failed: list[bool] = []

    @workflow.defn(task_queue=QUEUE, retry={"maximum_attempts": 3, "initial_interval": "10ms"})
    async def retried() -> list[Any]:
        found = [await workflow.patched("p"), int(workflow.version("v", 0, 2))]
        if not failed:
            failed.append(True)
            raise ValueError("again")
        return [*found, await note("done")]

    @workflow.defn(name="changed", task_queue=QUEUE)
    async def noted() -> str:
        assert await workflow.patched("p")
        return str(await workflow.recv("go"))

    @workflow.defn(name="changed", task_queue=QUEUE)
    async def plain() -> str:
        return str(await workflow.recv("go"))

    @workflow.defn(name="changed", task_queue=QUEUE)
    async def deprecated() -> str:
        workflow.deprecate_patch("p")
        return str(await workflow.recv("go"))

    async with hosting(database_url, retried, noted) as client:
        assert await client.execute_workflow(retried) == [True, 2, "done"]
        await client.start_workflow(noted, id="noted")
    async with hosting(database_url, plain) as client:
        await client.start_workflow(plain, id="plain")
    async with hosting(database_url, deprecated) as client:
        for name in ("noted", "plain"):
            handle = client.get_workflow_handle(name)
            await handle.signal("go", name)
            assert await handle.result(timeout=20) == name


async def test_a_version_that_the_code_has_no_more_is_parked_and_goes_on_with_code_that_has_it(
    database_url: str,
) -> None:
    def priced(lowest: int, highest: int) -> Any:
        @workflow.defn(name="priced", task_queue=QUEUE)
        async def run() -> int:
            found = await workflow.version("price", lowest, highest)
            await workflow.recv("go")
            return found

        return run

    async with hosting(database_url, priced(0, 1)) as client:
        await client.start_workflow("priced", id="one", task_queue=QUEUE)
    async with hosting(database_url, priced(2, 3)) as client:
        handle = client.get_workflow_handle("one")
        await handle.signal("go")

        async def parked() -> Any:
            return (await handle.describe()).parked

        found = await eventually(parked)
        assert (found.expected, found.actual) == ("version 1 of 'price'", "versions 2 to 3 of it")
    async with hosting(database_url, priced(1, 3)) as client:
        assert await client.get_workflow_handle("one").result(timeout=20) == 1


async def test_what_a_change_may_be_called(database_url: str) -> None:
    @workflow.defn(task_queue=QUEUE)
    async def refused() -> int:
        told = 0
        for wrong in (
            lambda: workflow.patched(7),  # type: ignore[arg-type]
            lambda: workflow.patched("x" * 600),
            lambda: workflow.version("v", 2, 1),
            lambda: workflow.version("v", 0, 0),
            lambda: workflow.version("v", True, 2),
        ):
            try:
                wrong()
            except ConfigError:
                told += 1
        return told

    with pytest.raises(NotInWorkflowError, match=r"workflow\.patched"):
        workflow.patched("outside")
    async with hosting(database_url, refused) as client:
        assert await client.execute_workflow(refused) == 5
