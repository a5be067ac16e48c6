"""Connections: where they come from, what breaks them, and what their errors mean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually
from hotmesh.errors import (
    ConfigError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    NotAuthorizedError,
    SchemaError,
)
from hotmesh.postgres.connect.failures import StatementError, translate, translated
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.connect.source import ConnectionSource

pytestmark = pytest.mark.anyio


# -- where they come from ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        lambda url: url,
        lambda url: url.replace("postgresql://", "postgres://"),
        lambda url: url.replace("postgresql://", "postgresql+asyncpg://"),
        lambda url: {"dsn": url},
        lambda url: {"options": {"dsn": url}},
        lambda url: {"connectionString": url},
        lambda url: {"class": asyncpg.Connection, "options": {"connectionString": url}},
    ],
    ids=["URL", "postgres://", "SQLAlchemy's", "dsn", "options", "connectionString", "class and options"],
)
async def test_a_source_takes_every_form_that_users_write(
    database_url: str, form: Callable[[str], Any]
) -> None:
    source = ConnectionSource(form(database_url), application_name="my app")
    connection = await source.connect()
    try:
        assert await connection.fetchval("select current_setting('application_name')") == "my app"
    finally:
        await source.release(connection)


DSN = "postgresql://user:secret@host/db"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (7, "a DSN, a dict of driver options, an asyncpg pool or a function that connects, not int"),
        ("mysql://host/db", "must start with postgresql://, not mysql://"),
        ("user:secret@host/db", "not a Postgres URL"),
        ({"store": DSN, "stream": DSN + "2", "sub": {}}, "a `stream` that differs from its `store`"),
        (
            {"store": DSN, "stream": {}, "sub": {}, "pub": DSN + "2"},
            "a `pub` that differs from its `store` and its `sub`",
        ),
        (
            {"store": DSN, "stream": {}, "sub": {}, "stor": {}},
            "has 'stor' beside `store`, `stream` and `sub`",
        ),
    ],
)
def test_what_is_no_connection_is_refused_without_telling_passwords(given: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ConnectionSource(given)

    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_long_form_may_name_further_purposes() -> None:
    direct = DSN + "direct"
    form = {"store": DSN, "stream": {}, "sub": direct, "pub": direct, "search": DSN, "readonly": True}
    assert ConnectionSource(form).ways == ConnectionSource(DSN, direct=direct).ways


async def test_the_environment_names_the_database_when_the_caller_does_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTMESH_DATABASE_URL", database_url)
    source = ConnectionSource.find(None)
    connection = await source.connect()
    assert await connection.fetchval("select current_database()") in database_url
    await source.release(connection)


def test_another_login_goes_the_same_ways() -> None:
    plain, there = ConnectionSource("postgresql://me@db/shop"), "postgresql://me@direct/shop"
    for source in (plain, ConnectionSource("postgresql://me@db/shop", direct=there)):
        found = source.logged_in("you", "secret")
        assert found.direct is not None
        assert (found.direct is found) == (source.direct is source)
        for way in (found, found.direct):
            assert "('user', 'you')" in way.key
        assert (found.ways == source.ways, found.ways == source.logged_in("you", "secret").ways) == (
            False,
            True,
        )
    assert ConnectionSource("postgresql://me@db/shop", direct=False).logged_in("you", "secret").direct is None
    with pytest.raises(ConfigError, match="a pool or a function that connects"):
        ConnectionSource(_connects).logged_in("you", "secret")


async def _connects() -> Any:
    raise AssertionError


async def test_a_pool_gets_its_connections_back(database_url: str) -> None:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
        link = Link(ConnectionSource(pool))
        async with link.use() as connection:
            assert pool.get_idle_size() == 0
            assert await connection.fetchval("select 1") == 1
        await link.close()
        assert pool.get_idle_size() == 1


async def test_an_exhausted_pool_is_a_failed_connection(database_url: str) -> None:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool, pool.acquire():
        with pytest.raises(
            ConnectionFailedError,
            match=r"no connection of the pool became free within 0\.05 s \(max_size=1\)",
        ):
            await ConnectionSource(pool).connect(timeout=0.05)


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), SystemExit(1), GeneratorExit(), KeyboardInterrupt(), RuntimeError("no")],
)
async def test_whatever_a_function_that_connects_raises_there_is_no_connection(
    database_url: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has worked; at first, a mistake in it is shown as it is. What it leaves in its task is none of ours."""
    monkeypatch.setattr("signal.getsignal", lambda _: lambda *_: None)  # as under `asyncio.run`
    failing = False

    async def connects() -> asyncpg.Connection:
        task = asyncio.current_task()
        assert task is not None
        if failing:
            raise error
        found = await asyncpg.connect(database_url)
        task.cancel()
        return found

    source = ConnectionSource(connects)
    for _ in range(2):
        connection = await source.connect()
        assert await connection.fetchval("select 1") == 1
        await source.release(connection)
    failing = True
    with pytest.raises(ConnectionFailedError, match=f"function that connects raised {type(error).__name__}"):
        await source.connect()


async def test_a_connection_that_is_made_too_late_is_closed(database_url: str) -> None:
    made: list[asyncpg.Connection] = []
    release = asyncio.Event()

    async def connects() -> asyncpg.Connection:
        with contextlib.suppress(asyncio.CancelledError):
            await release.wait()
        await release.wait()
        made.append(await asyncpg.connect(database_url))
        return made[0]

    with pytest.raises(ConnectionFailedError):
        await ConnectionSource(connects).connect(timeout=0.05)
    release.set()
    await eventually(lambda: made and made[0].is_closed())


# -- what cannot be reached ----------------------------------------------------------------------------------


async def test_a_database_that_does_not_exist_is_named(database_url: str) -> None:
    name = database_url.split("?", maxsplit=1)[0].rpartition("/")[2]
    with pytest.raises(ConnectionFailedError, match='database "nowhere" does not exist'):
        await ConnectionSource(database_url.replace(name, "nowhere", 1)).connect()


async def test_a_closed_port_is_a_failed_connection(unused_tcp_port: int) -> None:
    with pytest.raises(ConnectionFailedError, match="connection refused"):
        await ConnectionSource(f"postgresql://u:secret@127.0.0.1:{unused_tcp_port}/db").connect(timeout=2)


@asynccontextmanager
async def impostor(answer: bytes | None) -> AsyncIterator[int]:
    """A server that is no Postgres; None: it never answers."""
    silence = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if answer is None:
            await silence.wait()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        silence.set()
        server.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None], ids=["HTTP", "hangs up", "silent"]
)
async def test_a_server_that_is_no_postgres_is_a_failed_connection(answer: bytes | None) -> None:
    async with impostor(answer) as port:
        with pytest.raises(ConnectionFailedError) as caught:
            await asyncio.wait_for(
                ConnectionSource(f"postgresql://u:secret@127.0.0.1:{port}/db?sslmode=disable").connect(
                    timeout=0.3
                ),
                timeout=5,
            )

    assert "secret" not in str(caught.value)


async def test_a_server_that_is_too_old_is_refused_with_both_versions(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = asyncpg.types.ServerVersion(13, 22, 0, "final", 0)
    monkeypatch.setattr(asyncpg.Connection, "get_server_version", lambda _: version)

    with pytest.raises(SchemaError, match=r"Postgres 13\.22; hotmesh needs Postgres 14 or newer"):
        await ConnectionSource(database_url).connect()

    async with connected(database_url) as connection:
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        await eventually(lambda: _is_zero(connection, others), what="the end of the refused connection")


async def _is_zero(connection: asyncpg.Connection, query: str) -> bool:
    return bool(await connection.fetchval(query) == 0)


# -- links ---------------------------------------------------------------------------------------------------


async def terminate(url: str, pid: int) -> None:
    async with connected(url) as other:
        await other.fetchval("select pg_terminate_backend($1, 5000)", pid)


@pytest.mark.parametrize("pooled", [False, True], ids=["own connection", "a pool"])
async def test_a_link_that_was_cut_while_idle_is_made_again(database_url: str, pooled: bool) -> None:
    async with asyncpg.create_pool(database_url, min_size=0, max_size=4) as pool:
        link = Link(ConnectionSource(pool if pooled else database_url))
        async with link.use() as connection:
            before = connection.get_server_pid()
        await terminate(database_url, before)

        async def usable() -> int:
            # The end of the connection may be seen only when it is used: then this one use fails, and the next works.
            try:
                async with link.use() as connection:
                    return int(await connection.fetchval("select pg_backend_pid()"))
            except ConnectionLostError:
                return 0

        assert await eventually(usable) != before
        await link.close()


async def test_a_link_that_is_cut_in_use_raises_and_is_made_again(database_url: str) -> None:
    link = Link(ConnectionSource(database_url))
    with pytest.raises(ConnectionLostError, match="the connection to Postgres"):  # noqa: PT012 - the block is what breaks
        async with link.use() as connection:
            await terminate(database_url, connection.get_server_pid())
            await connection.fetchval("select 1")

    async with link.use() as connection:
        assert await connection.fetchval("select 1") == 1
    await link.close()


async def test_a_cancelled_statement_leaves_no_connection_in_an_unknown_state(database_url: str) -> None:
    link = Link(ConnectionSource(database_url))
    entered = asyncio.Event()

    async def sleep() -> None:
        async with link.use() as connection:
            entered.set()
            await connection.fetchval("select pg_sleep(30)")

    task = asyncio.create_task(sleep())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with link.use() as connection:
        assert await connection.fetchval("select 1") == 1
    await link.close()


async def test_a_refused_statement_leaves_the_link_as_it_is(database_url: str) -> None:
    link = Link(ConnectionSource(database_url))
    async with link.use() as connection:
        before = connection.get_server_pid()
    with pytest.raises(StatementError) as caught:
        async with link.use() as connection:
            await connection.fetchval("select 1/0")
    async with link.use() as connection:
        assert connection.get_server_pid() == before
    await link.close()

    assert caught.value.sqlstate == "22012"
    assert isinstance(caught.value.__cause__, asyncpg.exceptions.DivisionByZeroError)


# -- what errors mean ----------------------------------------------------------------------------------------

MEANINGS: dict[str, tuple[Callable[[asyncpg.Connection], Awaitable[Any]], type[Exception]]] = {
    "read only": (
        lambda c: c.execute("begin read only; create table public.t ()"),
        ConnectionLostError,
    ),
    "no right": (
        lambda c: c.execute("set role pg_monitor; create table hotmesh.t ()"),
        NotAuthorizedError,
    ),
    "no table": (lambda c: c.execute("select * from hotmesh.nowhere"), SchemaError),
    "no function": (lambda c: c.execute("select hotmesh.nothing()"), SchemaError),
    "a constraint": (
        lambda c: c.execute("insert into hotmesh.app (app_id) values ('no name')"),
        StatementError,
    ),
    "disk full": (lambda c: c.execute("do $$ begin raise sqlstate '53100'; end $$"), StatementError),
    "an argument of the wrong type": (lambda c: c.fetchval("select $1::integer", "text"), StatementError),
    "a number out of range": (lambda c: c.fetchval("select $1::integer", 2**40), StatementError),
    "half a surrogate": (lambda c: c.fetchval("select $1::text", "\ud800"), StatementError),
    "NUL": (lambda c: c.fetchval("select $1::text", "\0"), StatementError),
    "shutdown": (lambda c: c.execute("do $$ begin raise sqlstate '57P01'; end $$"), ConnectionLostError),
}


@pytest.mark.parametrize("name", MEANINGS)
async def test_an_error_of_the_driver_becomes_ours(database_url: str, name: str) -> None:
    provoke, wanted = MEANINGS[name]
    async with connected(database_url) as connection:
        with pytest.raises(DatabaseError) as caught, translated():
            await provoke(connection)

    assert type(caught.value) is wanted
    assert caught.value.__cause__ is not None


def test_what_is_none_of_the_drivers_stays_what_it_is() -> None:
    assert translate(KeyError("x")) is None
    with pytest.raises(KeyError), translated():
        raise KeyError("x")


@pytest.fixture
def unused_tcp_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
