"""Workers and clients of several databases in one process, and what a start needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness import eventually
from hotmesh import HotMesh
from hotmesh.durable import Client, Worker, activity, errors, workflow
from hotmesh.errors import ConfigError
from hotmesh.postgres.local import LocalServer

pytestmark = pytest.mark.anyio


@workflow.defn
async def asks(name: str) -> Any:
    return await workflow.execute_activity("where", name)


@workflow.defn
async def answers(name: str) -> str:
    return name


def where_of(place: str) -> Any:
    @activity.defn(name="where")
    async def where(name: str) -> str:
        return f"{name} in {place}"

    return where


@pytest.fixture
def other_url(make_database: Callable[[LocalServer, str], str], server: LocalServer, template: str) -> str:
    return make_database(server, template)


async def test_two_databases_and_a_new_client_after_the_end(database_url: str, other_url: str) -> None:
    """CB-27, CB-29, CB-30, CB-32, CB-33: nothing of one is seen in the other; a start needs a queue; a result is kept for its time."""
    both = {"asks": asks, "answers by another name": answers}
    workers = [
        Worker(url, task_queue="work", workflows=both, activities=[where_of(place)])
        for url, place in ((database_url, "one"), (other_url, "two"))
    ]
    for worker in workers:
        await worker.start()
    clients = [await Client.connect(url) for url in (database_url, other_url)]
    found = [await client.execute_workflow("asks", "x", id="same", task_queue="work") for client in clients]
    assert found == ["x in one", "x in two"]
    answered = await clients[0].execute_workflow("answers by another name", "y", task_queue="work")
    assert answered == "y"
    with pytest.raises(ConfigError, match="no queue to run on"):
        await Client("postgresql://nobody@127.0.0.1:1/none").start_workflow(asks, "x")
    assert issubclass(ConfigError, ValueError)
    handle = await clients[0].start_workflow("asks", "x", id="short", task_queue="work", retention=0.05)

    async def expired() -> bool:
        try:
            await handle.result(timeout=5)
        except errors.WorkflowNotFoundError:
            return True
        return False

    await eventually(expired)
    await HotMesh.stop_all()
    async with Client(database_url) as client:
        assert await client.get_workflow_handle("same").result() == "x in one"
