"""Retention: one instance of a mesh at a time deletes what is over, and another goes on if it dies."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from harness import connected, eventually
from hotmesh import ConfigError, HotMesh
from hotmesh.postgres import pruning
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.pruning import take_turn
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.upkeep import retention
from hotmesh.runtime.upkeep.retention import RETENTION_TASK, Retention, RetentionLimits

pytestmark = pytest.mark.anyio

TURN = 60.0

UNHURRIED = RetentionLimits()

GRAPH = """
app:
  id: house
  version: '1'
  graphs:
    - subscribes: done
      activities:
        t: {type: trigger}
    - subscribes: waits
      activities:
        t2: {type: trigger}
        h2: {type: hook, sleep: 3600}
      transitions: {t2: [{to: h2}]}
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(ConnectionSource(database_url), "hotmesh", "house")
    yield database
    await database.close()


async def jobs(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("select count(*) from hotmesh.job"))


async def test_a_mesh_deletes_what_is_over_by_itself(database_url: str) -> None:
    async with (
        HotMesh.init(
            "house", connection=database_url, retention=0, settings={"expire": 0.1, "retention_interval": 1}
        ) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        lives = await mesh.pub("waits")
        for _ in range(5):
            await mesh.pub("done")

        async def only_the_live_one() -> bool:
            return await jobs(connection) == 1

        await eventually(only_the_live_one)
        assert await mesh.get_status(lives) == 1


async def test_without_the_setting_nothing_is_deleted(database_url: str) -> None:
    async with HotMesh.init("house", connection=database_url), connected(database_url) as connection:
        assert await connection.fetchval("select count(*) from hotmesh.upkeep") == 0


async def test_one_at_a_time_and_the_next_goes_on_when_the_first_dies(database: Database) -> None:
    assert await take_turn(database, RETENTION_TASK, "one", TURN) is None
    waits = await take_turn(database, RETENTION_TASK, "two", TURN)
    assert waits is not None
    assert TURN - 5 < waits <= TURN
    assert await take_turn(database, RETENTION_TASK, "one", TURN) is None

    # Process `one` dies; its lease runs out.
    async with database.connection() as connection:
        await connection.execute("update hotmesh.upkeep set due_at = now()")
    assert await take_turn(database, RETENTION_TASK, "two", TURN) is None
    assert await take_turn(database, RETENTION_TASK, "one", TURN) is not None


async def test_after_a_turn_everybody_waits_for_the_interval(database: Database) -> None:
    one, two = (Retention(database, name, 0, 30, UNHURRIED) for name in ("one", "two"))

    assert await one.run_once() == 30
    waits = await two.run_once()
    assert 25 < waits <= 30
    async with database.connection() as connection:
        assert await connection.fetchval("select held_by from hotmesh.upkeep") is None


async def test_a_turn_is_as_many_batches_as_there_are(database_url: str, database: Database) -> None:
    limits = RetentionLimits(rows=2, shortest_pause=0.001)
    async with HotMesh.init("house", connection=database_url) as mesh, connected(database_url) as connection:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        for _ in range(5):
            await mesh.pub("done")
        await connection.execute(
            "update hotmesh.job set expires_at = now() - interval '2 hours', created_at = now() - interval '2 hours'"
        )
        await mesh.pub("done")

        await Retention(database, "one", 3600, 60, limits).run_once()

        assert await jobs(connection) == 1


async def test_who_stood_still_for_longer_than_its_lease_stops(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = RetentionLimits(rows=1, shortest_pause=0.001)
    async with HotMesh.init("house", connection=database_url) as mesh, connected(database_url) as connection:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        for _ in range(4):
            await mesh.pub("done")
        await connection.execute(
            "update hotmesh.job set expires_at = now() - interval '1 hour', created_at = now() - interval '2 hours'"
        )
        prune_batch = pruning.prune_batch

        async def succeeded(*arguments: object) -> object:
            found = await prune_batch(*arguments)  # type: ignore[arg-type]
            await connection.execute(
                "update hotmesh.upkeep set held_by = 'another', due_at = now() + interval '9 seconds'"
            )
            return found

        monkeypatch.setattr(retention, "prune_batch", succeeded)

        assert 5 < await Retention(database, "one", 0, 60, limits).run_once() <= 9
        assert await jobs(connection) == 3
        assert await connection.fetchval("select held_by from hotmesh.upkeep") == "another"


def test_the_setting_is_an_argument_or_a_variable() -> None:
    assert Settings.read({}, {}).retention is None
    assert Settings.read({}, {"HMSH_RETENTION_S": "60"}).retention == 60
    assert Settings.read({"retention": 5}, {"HMSH_RETENTION_S": "60"}).retention == 5
    with pytest.raises(ConfigError, match="retention"):
        HotMesh.init("house", retention="for ever")
