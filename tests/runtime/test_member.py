"""Members: what one that has ended leaves, and what it cannot be asked any more."""

from __future__ import annotations

from typing import Any

import pytest

from harness import connected, eventually, one_worker
from hotmesh import ConnectionLostError, HotMesh, Worker
from hotmesh.errors import EngineRequiredError, SchemaError
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.runtime.options import Options
from hotmesh.runtime.startup import start_instance

pytestmark = pytest.mark.anyio

APP = "members"


async def sessions(url: str) -> int:
    query = (
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    )
    async with connected(url) as connection:
        return int(await connection.fetchval(query))


async def test_one_that_has_ended_holds_nothing_and_says_so(database_url: str) -> None:
    mesh = await HotMesh.init(APP, connection=database_url, guid="me", workers=[Worker("w", dict)])
    member = mesh._member
    await mesh.deploy(one_worker(APP))
    await mesh.activate("1")
    await mesh.pub("one", {"x": 1})
    assert member.serves("w", "")
    assert await sessions(database_url) > 1

    await mesh.stop()

    assert await sessions(database_url) == 0
    with pytest.raises(ConnectionLostError, match="pub cannot be served: this instance of app members has"):
        member.running_engine("pub")
    async with HotMesh.init(APP, connection=database_url, guid="me") as again:
        assert again.guid_ == "me"


async def test_one_without_an_engine_says_what_needs_one(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url, engine=False) as mesh:
        with pytest.raises(EngineRequiredError, match="pub needs an engine"):
            mesh._member.running_engine("pub")


async def test_one_that_cannot_begin_leaves_nothing(empty_database_url: str) -> None:
    options: dict[str, Any] = {"app_id": APP, "connection": empty_database_url, "guid": "me"}
    with pytest.raises(SchemaError):
        await start_instance(Options.read(**options, migrate="verify"))
    await eventually(lambda: nobody(empty_database_url))

    member = await start_instance(Options.read(**options))
    assert isinstance(member.source, ConnectionSource)
    await member.lifetime.stop()
    await eventually(lambda: nobody(empty_database_url))


async def nobody(url: str) -> bool:
    return await sessions(url) == 0
