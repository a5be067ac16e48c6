"""Await and composition."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from harness import connected, settled
from hotmesh import (
    DuplicateJobError,
    HotMesh,
    JobError,
    Response,
    StreamData,
    TopicNotFoundError,
    Worker,
)

pytestmark = pytest.mark.anyio


async def answer(message: StreamData) -> Response:
    code = message.data.get("code") or 200
    if code >= 500:
        return Response({"message": f"failed with {code}"}, status="error", code=code)
    return Response({"value": 7})


WORKERS = {"answer": Worker("answer", answer, max_concurrency=100)}


@pytest.mark.row(182)
async def test_flows_in_flows_without_data(mesh: HotMesh) -> None:
    output = await mesh.pubsub("outer", {}, timeout=5)
    assert (output.metadata.js, output.data) == (0, {})


@pytest.mark.row(183, 184)
@pytest.mark.parametrize("wait", [None, True])
async def test_the_result_of_a_child_is_mapped(mesh: HotMesh, wait: bool | None) -> None:
    output = await mesh.pubsub("ask", {"topic": "value", "await": wait}, timeout=5)
    assert output.data == {"value": 7}


@pytest.mark.row(185)
async def test_await_false_gives_the_id_of_the_child(mesh: HotMesh) -> None:
    output = await mesh.pubsub("ask", {"topic": "value", "await": False, "id": "detached"}, timeout=5)
    assert output.data["job_id"] == "detached"
    assert len(output.data["jc"]) == 18
    child = await mesh.get_state("value", "detached")
    assert (child.metadata.px, child.metadata.pj) == (True, output.metadata.jid)


@pytest.mark.row(187)
async def test_what_a_child_cannot_do_at_its_creation_is_the_parents_error(mesh: HotMesh) -> None:
    output = await mesh.pubsub("ask", {"topic": "value", "id": "x" * 600}, timeout=5)
    assert output.data == {"handled": "the job id of stats.id has 600 characters; it may have at most 512"}


@pytest.mark.row(188)
async def test_an_unknown_child_topic(mesh: HotMesh) -> None:
    output = await mesh.pubsub("ask", {"topic": "nowhere"}, timeout=5)
    expected = "no subscription found for topic nowhere in app children for app version 1"
    assert output.data == {"handled": expected}


@pytest.mark.row(189, 190)
async def test_errors_of_children_by_code(mesh: HotMesh) -> None:
    output = await mesh.pubsub("ask", {"topic": "value", "code": 500}, timeout=5)
    assert output.data == {"handled": "failed with 500"}
    with pytest.raises(JobError, match="failed with 501") as caught:
        await mesh.pubsub("ask", {"topic": "value", "code": 501}, timeout=5)
    assert caught.value.code == 501


@pytest.mark.row(191)
async def test_a_child_id_of_another_job(mesh: HotMesh) -> None:
    await mesh.pub("value", {"id": "taken"})
    with pytest.raises(JobError, match=r"^Duplicate job: taken \(job ") as caught:
        await mesh.pubsub("ask", {"topic": "value", "id": "taken"}, timeout=5)
    assert caught.value.code == 409
    with pytest.raises(DuplicateJobError):
        await mesh.pub("value", {"id": "taken"})


async def test_a_private_graph_is_for_await_activities_only(mesh: HotMesh, module_database_url: str) -> None:
    assert (await mesh.pubsub("ask", {"topic": ".hidden", "code": 7}, timeout=5)).data == {"value": 7}
    with pytest.raises(TopicNotFoundError, match=r"^no subscription found for topic \.hidden .* only await"):
        await mesh.pub(".hidden", {})
    async with connected(module_database_url) as connection:
        with pytest.raises(asyncpg.PostgresError, match=r"^no subscription found for topic \.hidden "):
            await connection.execute("select hotmesh.start_job('children', '.hidden')")


async def test_a_parent_of_many_children_hears_each_once(mesh: HotMesh, module_database_url: str) -> None:
    output = await mesh.pubsub("fan", {"last": 299}, timeout=30)
    assert output.metadata.js == 0
    async with connected(module_database_url) as connection:
        await settled(connection, "children")
        found: Any = await connection.fetchrow(
            "select count(*), count(distinct parent_dimension) from hotmesh.job where parent_job_id = $1",
            output.metadata.jid,
        )
    assert tuple(found) == (300, 300)
