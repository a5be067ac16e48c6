"""Native connections: what is wrong with settings, who shares one, and that all of them end."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually
from hotmesh import (
    ConfigError,
    ConnectionFailedError,
    DatabaseError,
    HotMesh,
    PostgresConnection,
    connect_client,
    disconnect_all,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def nothing_left() -> Any:
    yield
    await disconnect_all()
    assert PostgresConnection.statistics().connections == 0


@pytest.mark.row(3)
async def test_a_native_connection_answers(database_url: str) -> None:
    client = await connect_client({"class": asyncpg.Connection, "options": {"dsn": database_url}})
    assert await client.fetchval("select 1") == 1
    await client.close()


async def test_the_environment_names_the_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTMESH_DATABASE_URL", database_url)
    client = await connect_client()
    assert await client.fetchval("select current_database()") in database_url


async def test_what_is_wrong_with_settings_is_said(database_url: str) -> None:
    for form, kind, words in (
        ({"provider": "nats"}, ConfigError, "Unable to identify provider type 'nats'"),
        (
            {"class": dict, "options": {}},
            ConfigError,
            "Unable to identify provider type of class <class 'dict'>",
        ),
        ({"class": os, "options": {}}, ConfigError, "Unable to identify provider type of class <module 'os'"),
        ({"host": "/nowhere"}, ConnectionFailedError, "postgres-provider-connection-failed: "),
        (
            database_url.replace("hotmesh@", "nobody-here@"),
            ConnectionFailedError,
            "connection-failed: .*nobody-here",
        ),
    ):
        for queue in (None, "q"):
            with pytest.raises(kind, match=words):
                await connect_client(form, queue)
    assert PostgresConnection.statistics().connections == 0


@pytest.mark.row(5, 6)
async def test_what_was_never_opened(database_url: str) -> None:
    connection = PostgresConnection(database_url)
    with pytest.raises(DatabaseError, match="Postgres client is not connected"):
        connection.client  # noqa: B018 - reading it raises
    await connection.disconnect()
    await connection.close()


@pytest.mark.row(7, 8, 9)
async def test_who_shares_a_connection(database_url: str) -> None:
    async def connect(task_queue: str | None, **options: Any) -> asyncpg.Connection:
        return await connect_client({"dsn": database_url, **options}, task_queue)

    one, same = await asyncio.gather(connect("one"), connect("one"))
    assert one is same
    others = [await connect("two"), await connect("one", timeout=5), await connect(None), await connect(None)]
    assert len({id(client) for client in (one, *others)}) == 5


@pytest.mark.row(10)
async def test_statistics(database_url: str) -> None:
    def counted() -> tuple[int, int, int, float]:
        found = PostgresConnection.statistics()
        return found.connections, found.users, found.reused, found.efficiency

    assert counted() == (0, 0, 0, 0.0)
    first = await PostgresConnection.connect(database_url, task_queue="one")
    assert counted() == (1, 1, 0, 0.0)
    assert await PostgresConnection.connect(database_url, task_queue="one") is first
    assert counted() == (1, 2, 1, 0.5)
    await PostgresConnection.connect(database_url, task_queue="two")
    assert counted() == (2, 3, 1, 1 / 3)
    by_queue = PostgresConnection.statistics().by_task_queue
    assert {name: found.users for name, found in by_queue.items()} == {"one": 2, "two": 1}
    for _ in range(2):
        assert await first.client.fetchval("select 1") == 1
        await first.disconnect()
    assert counted() == (1, 1, 0, 0.0)
    with pytest.raises(DatabaseError, match="not connected"):
        first.client  # noqa: B018 - reading it raises


async def test_a_shared_connection_that_has_ended_is_made_again(database_url: str) -> None:
    one = await connect_client(database_url, "q")
    await one.close()
    again = await connect_client(database_url, "q")
    assert again is not one
    assert await again.fetchval("select 1") == 1


async def test_disconnecting_all_leaves_no_connection(database_url: str) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=0, max_size=10)
    mesh = await HotMesh.init("native", connection=database_url)
    clients = [
        await connect_client(database_url),
        await connect_client(database_url, "q"),
        await connect_client(pool),
    ]
    await disconnect_all()
    assert mesh.stopped
    for client in clients:
        with pytest.raises(asyncpg.InterfaceError):
            await client.fetchval("select 1")
    assert pool.get_idle_size() == 1  # it was handed back, and the pool is the user's
    await pool.close()
    async with connected(database_url) as connection:
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"

        async def none() -> bool:
            return bool(await connection.fetchval(others) == 0)

        await eventually(none)
    async with HotMesh.init("native", connection=database_url):
        pass
