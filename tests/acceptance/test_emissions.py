"""Emit, persist, expire, subscriptions."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from harness import connected, eventually
from hotmesh import HotMesh, JobOutput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

WORKERS: dict[str, Any] = {"quick": lambda _: {}}

Told = list[tuple[str, JobOutput]]


@asynccontextmanager
async def listening(mesh: HotMesh, topic: str) -> AsyncIterator[Told]:
    told: Told = []
    await mesh.sub(topic, lambda name, output: told.append((name, output)))
    yield told
    await mesh.unsub(topic)


@pytest.mark.row(202)
async def test_an_interim_message_and_a_final_one(mesh: HotMesh) -> None:
    async with listening(mesh, "emit.tested") as told:
        job_id = await mesh.pub("emit", {})
        await eventually(lambda: len(told) == 2)
    assert [(name, output.data["done"], output.metadata.jid) for name, output in told] == [
        ("emit.tested", False, job_id),
        ("emit.tested", True, job_id),
    ]


@pytest.mark.row(203, 204)
@pytest.mark.parametrize(("emit", "expected"), [(True, [1, 1, 1, 0]), (False, [1, 1, 0])])
async def test_emissions_in_order(mesh: HotMesh, emit: bool, expected: list[int]) -> None:
    async with listening(mesh, "emit.order.tested") as told:
        first = await mesh.pubsub("emit.order", {"emit": emit}, timeout=5)
        await eventually(lambda: len(told) == len(expected))
    assert first.metadata.js == 1
    assert [output.metadata.js for _, output in told] == expected


@pytest.mark.row(205)
async def test_persist_answers_early_and_again_at_the_end(mesh: HotMesh) -> None:
    async with listening(mesh, "persist.tested") as told:
        output = await mesh.pubsub("persist", {}, timeout=5)
        await eventually(lambda: len(told) == 2)
    assert (output.metadata.js, output.data) == (1, {"early": True})
    assert [(found.metadata.js, found.data) for _, found in told] == [
        (1, {"early": True}),
        (0, {"early": True, "late": True}),
    ]


@pytest.mark.row(206, 207)
@pytest.mark.parametrize(
    ("topic", "seconds"),
    [("expire.2", 2), ("expire.0", None), ("expire.-1", None), ("expire.unresolved", 1), ("expire.20", 20)],
)
async def test_how_long_a_finished_job_is_kept(
    mesh: HotMesh, module_database_url: str, topic: str, seconds: float | None
) -> None:
    job_id = await mesh.pub(topic, {})
    async with connected(module_database_url) as connection:
        row: Any = await connection.fetchrow(
            "select extract(epoch from expires_at - ended_at)::float8 as kept from hotmesh.job where job_id = $1",
            job_id,
        )
    assert row["kept"] == seconds


@pytest.mark.row(208, 212)
async def test_one_job_or_all_of_a_topic(mesh: HotMesh) -> None:
    async with listening(mesh, "persist.tested.mine") as mine, listening(mesh, "persist.tested") as every:
        await mesh.pub("persist", {}, extended={"id": "mine"})
        await mesh.pub("persist", {}, extended={"id": "other"})
        await eventually(lambda: len(every) == 4)
    assert [output.metadata.jid for _, output in mine] == ["mine", "mine"]
    assert {output.metadata.jid for _, output in every} == {"mine", "other"}


@pytest.mark.row(370)
async def test_two_subscriptions_to_one_channel(mesh: HotMesh) -> None:
    one: list[str] = []
    two: list[str] = []

    def first(_: str, output: JobOutput) -> None:
        one.append(output.metadata.jid)

    def second(_: str, output: JobOutput) -> None:
        two.append(output.metadata.jid)

    await mesh.sub("emit.tested", first)
    await mesh.sub("emit.tested", second)
    job_id = await mesh.pub("emit", {})
    await eventually(lambda: (len(one), len(two)) == (2, 2))
    await mesh.unsub("emit.tested", first)
    await mesh.pub("emit", {})
    await eventually(lambda: len(two) == 4)
    await mesh.unsub("emit.tested")
    assert one == [job_id, job_id]
