"""Interrupts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness import OBLIGATIONS, connected, eventually
from hotmesh import HotMesh, JobCompletedError, JobError, JobNotFoundError

pytestmark = pytest.mark.anyio


async def rows_of(url: str, job_id: str) -> int:
    async with connected(url) as connection:
        counts = [
            await connection.fetchval(f"select count(*) from hotmesh.{table} where job_id = $1", job_id)
            for table in OBLIGATIONS
        ]
    return sum(counts)


async def interrupted(mesh: HotMesh, job_id: str) -> None:
    async def stopped() -> bool:
        return await mesh.get_status(job_id) < -100_000_000

    await eventually(stopped)


@pytest.mark.row(192)
async def test_a_self_interrupt_without_an_error_answers_with_the_data_so_far(mesh: HotMesh) -> None:
    output = await mesh.pubsub("self", {"throw": False}, timeout=5)
    assert output.data == {"before": 1, "last": 2}
    assert output.metadata.js == -999_999_999


@pytest.mark.row(193)
@pytest.mark.parametrize(
    ("data", "code", "text"),
    [({}, 410, r"job \[H.*\] interrupted"), ({"reason": "enough", "code": 423}, 423, "enough")],
)
async def test_a_self_interrupt_with_an_error(
    mesh: HotMesh, data: dict[str, Any], code: int, text: str
) -> None:
    with pytest.raises(JobError, match=text) as caught:
        await mesh.pubsub("self", data, timeout=5)
    assert caught.value.code == code


@pytest.mark.row(194, 195)
@pytest.mark.parametrize("throw", [True, False])
async def test_interrupting_a_child_answers_its_parent(mesh: HotMesh, throw: bool) -> None:
    data = {"id": f"child {throw}", "throw": throw}
    if throw:
        with pytest.raises(JobError) as caught:
            await mesh.pubsub("other", data, timeout=5)
        assert caught.value.code == 410
    else:
        output = await mesh.pubsub("other", data, timeout=5)
        assert output.data == {"child": {"so": "far"}, "next": True}
    await interrupted(mesh, f"child {throw}")


@pytest.mark.row(196)
async def test_an_interrupt_with_reason_and_code(mesh: HotMesh) -> None:
    job_id = await mesh.pub("wait", {})
    await mesh.interrupt("wait", job_id, reason="because", code=499, stack="here")
    assert await mesh.get_status(job_id) == -999_999_997
    error = json.loads((await mesh.get_state("wait", job_id)).metadata.err)
    assert error == {"message": "because", "code": 499, "stack": "here", "job_id": job_id}


@pytest.mark.row(197)
async def test_a_second_interrupt(mesh: HotMesh) -> None:
    job_id = await mesh.pub("wait", {})
    await mesh.interrupt("wait", job_id)
    with pytest.raises(JobCompletedError, match=f"Job {job_id} already completed"):
        await mesh.interrupt("wait", job_id)
    assert await mesh.interrupt("wait", job_id, suppress=True) is None


@pytest.mark.row(197)
async def test_of_interrupts_at_the_same_time_one_succeeds(mesh: HotMesh, module_database_url: str) -> None:
    async def stop(mesh: HotMesh, job_id: str) -> bool:
        try:
            return await mesh.interrupt("wait", job_id) is not None
        except JobCompletedError:
            return False

    async with HotMesh.init("interrupts", connection=module_database_url) as other:
        for _ in range(5):
            job_id = await mesh.pub("wait", {})
            assert sorted(await asyncio.gather(stop(mesh, job_id), stop(other, job_id))) == [False, True]
            assert await mesh.get_status(job_id) == -999_999_997


@pytest.mark.row(198)
async def test_an_interrupt_of_nobody(mesh: HotMesh) -> None:
    with pytest.raises(JobNotFoundError, match="Job nope not found"):
        await mesh.interrupt("wait", "nope")
    assert await mesh.interrupt("wait", "nope", suppress=True) is None


@pytest.mark.row(199)
async def test_a_self_interrupt_as_the_only_branch(mesh: HotMesh) -> None:
    with pytest.raises(JobError) as caught:
        await mesh.pubsub("alone", {}, timeout=5)
    assert caught.value.code == 410
    job_id = str(caught.value.job_id)
    await interrupted(mesh, job_id)

    async def gone() -> bool:
        try:
            await mesh.get_status(job_id)
        except JobNotFoundError:
            return True
        return False

    await eventually(gone)


@pytest.mark.row(200)
async def test_an_interrupt_that_descends(mesh: HotMesh) -> None:
    parent = await mesh.pub("parent", {"id": "descendant"})
    await mesh.interrupt("parent", parent, descend=True)
    await interrupted(mesh, "descendant")

    parent = await mesh.pub("parent", {"id": "orphan"})
    await mesh.interrupt("parent", parent)
    assert await mesh.get_status("orphan") == 3


@pytest.mark.row(201)
async def test_nothing_of_the_job_stays_queued(mesh: HotMesh, module_database_url: str) -> None:
    stopped, other = await mesh.pub("wait", {}), await mesh.pub("wait", {})
    assert await rows_of(module_database_url, stopped) == 3
    await mesh.interrupt("wait", stopped)
    assert await rows_of(module_database_url, stopped) == 0
    assert await rows_of(module_database_url, other) == 3
