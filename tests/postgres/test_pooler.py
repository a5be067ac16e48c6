"""Through a pooler in transaction mode: what it is recognised by, and that nothing depends on a session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from bouncer import Bouncer, run_bouncer
from harness import connected, eventually, one_worker
from hotmesh import HotMesh, Worker
from hotmesh.errors import ConfigError
from hotmesh.postgres.connect.driver import statement_cache
from hotmesh.postgres.connect.pooler import hears, keeps_statements
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.local import LocalServer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def keeping_bouncer(server: LocalServer) -> Iterator[Bouncer]:
    with run_bouncer(server, keep=100) as bouncer:
        yield bouncer


@pytest.fixture(scope="module")
def session_bouncer(server: LocalServer) -> Iterator[Bouncer]:
    with run_bouncer(server, pool_mode="session") as bouncer:
        yield bouncer


async def statements_of(source: ConnectionSource) -> int:
    """How many prepared statements a connection of the source may keep."""
    connection = await source.connect()
    try:
        return statement_cache(connection)
    finally:
        await source.release(connection)


# -- recognition ---------------------------------------------------------------------------------------------


async def test_a_plain_connection_is_no_pooler(database_url: str) -> None:
    source = ConnectionSource(database_url)
    assert await statements_of(source) > 0
    assert source.pooled is False
    await source.check_sessions()


async def test_a_pooler_that_does_not_keep_statements_gets_none(pooled_database_url: str) -> None:
    source = ConnectionSource(pooled_database_url)
    assert await statements_of(source) == 0
    assert source.pooled


async def test_a_pooler_that_keeps_statements_gets_them(keeping_bouncer: Bouncer, database_url: str) -> None:
    source = ConnectionSource(keeping_bouncer.url(database_url), direct=database_url)
    assert await statements_of(source) > 0
    await source.check_sessions()
    assert await statements_of(source) > 0


async def test_a_pooler_that_keeps_sessions_is_as_good_as_none(
    session_bouncer: Bouncer, database_url: str
) -> None:
    source = ConnectionSource(session_bouncer.url(database_url))
    await source.check_sessions()
    assert await statements_of(source) > 0


async def test_what_the_caller_says_about_statements_holds(pooled_database_url: str) -> None:
    assert await statements_of(ConnectionSource({"dsn": pooled_database_url, "statement_cache_size": 7})) == 7


async def test_a_notification_arrives_where_the_session_is_kept_and_nowhere_else(
    pooled_database_url: str, database_url: str
) -> None:
    async with connected(database_url) as one, connected(database_url) as two:
        assert await hears(one, two)
        assert await keeps_statements(one) is False, "a server keeps the name as it was sent"


# -- what is refused -----------------------------------------------------------------------------------------


async def test_a_pooler_alone_is_refused_with_the_way_out(pooled_database_url: str) -> None:
    with pytest.raises(ConfigError, match="direct_connection= or HOTMESH_DIRECT_URL"):
        await ConnectionSource(pooled_database_url).check_sessions(longest_way=0.3)


async def test_a_direct_connection_that_is_none_is_refused(
    pooled_database_url: str, database_url: str, empty_database_url: str
) -> None:
    for wrong in (pooled_database_url, empty_database_url):
        with pytest.raises(ConfigError, match="another database, or through a pooler"):
            await ConnectionSource(pooled_database_url, direct=wrong).check_sessions(longest_way=0.3)


async def test_a_pool_that_prepares_statements_through_a_pooler_is_refused(
    pooled_database_url: str, database_url: str
) -> None:
    async with asyncpg.create_pool(pooled_database_url, min_size=0, max_size=10) as pool:
        with pytest.raises(ConfigError, match="statement_cache_size=0"):
            await HotMesh.init("pooled", connection=pool, direct_connection=database_url)
    async with (
        asyncpg.create_pool(pooled_database_url, min_size=0, max_size=10, statement_cache_size=0) as pool,
        HotMesh.init("pooled", connection=pool, direct_connection=database_url),
    ):
        pass


# -- what works ----------------------------------------------------------------------------------------------


async def double(message: object) -> dict[str, int]:
    return {"y": message.data["x"] * 2}  # type: ignore[attr-defined]


async def test_the_environment_names_both_ways(
    pooled_database_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTMESH_DATABASE_URL", pooled_database_url)
    monkeypatch.setenv("HOTMESH_DIRECT_URL", database_url)
    async with HotMesh.init("pooled", workers=[Worker("w", double)]) as mesh:
        await mesh.deploy(one_worker("pooled"))
        await mesh.activate("1")
        assert (await mesh.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}


async def test_many_at_once_through_few_sessions(pooled_database_url: str, database_url: str) -> None:
    """Statements of several clients meet in every session."""
    async with (
        HotMesh.init(
            "pooled",
            connection=pooled_database_url,
            direct_connection=database_url,
            workers=[Worker("w", double)],
        ) as one,
        HotMesh.init(
            "pooled", connection=pooled_database_url, direct_connection=database_url, engine=False,
            workers=[Worker("w", double)],
        ),
        HotMesh.init("pooled", connection=pooled_database_url, direct_connection=database_url) as two,
    ):  # fmt: skip
        await one.deploy(one_worker("pooled"))
        await one.activate("1")
        calls = [(one, two)[x % 2].pubsub("one", {"x": x}, timeout=20) for x in range(200)]
        outputs = await asyncio.gather(*calls)
        states = await asyncio.gather(*(two.get_status(output.metadata["jid"]) for output in outputs))

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(200)]
    assert set(states) == {0}


async def test_without_notifications_everything_is_found_by_polling(
    pooled_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    options: Any = {"connection": pooled_database_url, "direct_connection": False, "settings": {"poll": 0.1}}
    async with (
        HotMesh.init("pooled", **options) as mesh,
        HotMesh.init("pooled", engine=False, workers=[Worker("w", double)], **options),
        HotMesh.init("pooled", **options) as other,
    ):
        await mesh.deploy(one_worker("pooled"))
        await mesh.activate("1")
        outputs = await asyncio.gather(
            mesh.pubsub("one", {"x": 3}, timeout=20), other.pubsub("one", {"x": 4}, timeout=20)
        )

    assert [output.data for output in outputs] == [{"y": 6}, {"y": 8}]
    assert "found by polling" in caplog.text


async def test_many_idle_members_share_the_sessions_of_the_pooler(
    pooled_database_url: str, database_url: str
) -> None:
    async def work(_message: Any) -> dict[str, Any]:
        return {}

    members = 20
    async with AsyncExitStack() as stack, connected(database_url) as connection:
        meshes = [
            await stack.enter_async_context(
                HotMesh.init(
                    "many",
                    connection=pooled_database_url,
                    direct_connection=database_url,
                    workers=[Worker("add", work)],
                )
            )
            for _ in range(members)
        ]

        async def few() -> bool:
            found: int = await connection.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database() "
                "and backend_type = 'client backend' and pid <> pg_backend_pid()"
            )
            return members <= found <= members + 8

        # One that listens for each, and the eight of the pool; without it, three for each.
        await eventually(few)
        profiles = await meshes[0].roll_call(delay=5)
        assert len({profile.engine_id for profile in profiles}) == members
