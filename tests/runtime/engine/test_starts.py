"""Starts: a caller hears of its job once that is durable, and of nothing that is not."""

from __future__ import annotations

import asyncio

import pytest

from harness import connected, eventually, one_worker
from hotmesh import DuplicateJobError, HotMesh, HotMeshError
from interception import Turnstile

pytestmark = pytest.mark.anyio

APP = "starts"


async def deployed(mesh: HotMesh) -> None:
    for version in ("1", "2"):
        await mesh.deploy(one_worker(APP).replace("version: '1'", f"version: '{version}'"))
    await mesh.activate("1")


async def test_a_start_that_an_activation_overtakes_is_of_the_new_version(database_url: str) -> None:
    async with (
        HotMesh.init(APP, connection=database_url) as mesh,
        HotMesh.init(APP, connection=database_url, engine={"readonly": True}) as other,
    ):
        await deployed(mesh)
        turnstile = Turnstile(mesh)
        starting = asyncio.create_task(mesh.pub("one", {"x": 1}))
        await eventually(lambda: turnstile.waiting == 1, what="the commit")
        await other.activate("2")
        assert not starting.done()

        turnstile.open.set()

        state = await mesh.get_state("one", await starting)
        assert state.metadata.vrs == "2"
        assert turnstile.all == 2


async def test_of_starts_with_one_id_the_first_creates_the_job(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await deployed(mesh)
        outcomes = await asyncio.gather(
            *(mesh.pub("one", {"x": x}, extended={"id": "same"}) for x in range(5)), return_exceptions=True
        )

        assert outcomes[0] == "same"
        assert [type(outcome) for outcome in outcomes[1:]] == [DuplicateJobError] * 4
        async with connected(database_url) as connection:
            assert await connection.fetchval("select input ->> 'x' from hotmesh.job") == "0"


async def test_a_caller_who_waits_when_an_engine_ends_is_told_so(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await deployed(mesh)
        engine = mesh._member.engine
        assert engine is not None
        async with connected(database_url) as connection, connection.transaction():
            await mesh.pub("one", {"x": 1}, extended={"id": "held"}, connection=connection)
            starting = asyncio.create_task(mesh.pub("one", {"x": 2}, extended={"id": "held"}))
            await eventually(lambda: engine.starts.waiting_for_id == 1, what="a start put off")
            engine.starts.close()
            with pytest.raises(HotMeshError, match="has been stopped"):
                await starting
        with pytest.raises(HotMeshError, match="has been stopped"):
            await mesh.pub("one", {"x": 3})
