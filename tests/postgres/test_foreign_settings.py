"""What a role, a database, a pool or a caller has set for itself changes nothing of what hotmesh does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row

from harness import connected, eventually
from hotmesh import ConfigError, HotMesh, SchemaError, Worker
from hotmesh.postgres import local, sql
from hotmesh.postgres.connect.session import settle
from hotmesh.postgres.connect.source import ConnectionSource

pytestmark = pytest.mark.anyio

DATA = {"text": "100 % of 'it' :a1 %(x)s $1 \\ \\u0000 \0 é", "list": [1, 1.5, None, {"a": True}]}

GRAPHS = """
app:
  id: shop
  version: '1'
  graphs:
    - subscribes: go
      expire: 3600
      activities:
        start: {type: trigger}
        call:
          type: worker
          topic: w
          input: {maps: {x: '{start.output.data.x}'}}
          job: {maps: {x: '{$self.output.data.x}'}}
      transitions: {start: [{to: call}]}
    - subscribes: ask
      expire: 3600
      activities:
        asked: {type: trigger}
        first: {type: hook, sleep: 0.05}
        wait: {type: hook}
      transitions: {asked: [{to: first}], first: [{to: wait}]}
      hooks:
        told:
          - to: wait
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
"""


async def echo(message: Any) -> Any:
    return {"x": message.data["x"]}


@asynccontextmanager
async def shop(connection: Any, **options: Any) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("shop", connection=connection, workers=[Worker("w", echo)], **options) as mesh:
        await mesh.deploy(GRAPHS)
        await mesh.activate("1")
        yield mesh


def database_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


SETTINGS = {
    "repeatable read": "set default_transaction_isolation = 'repeatable read'",
    "serializable": "set default_transaction_isolation = 'serializable'",
    "backslashes that escape": "set standard_conforming_strings = off",
    "no nulls in lists": "set array_nulls = off",
    "few digits": "set extra_float_digits = -10",
    "another way to write times": "set datestyle = 'German, DMY'",
    "no search path": "set search_path = ''",
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
async def test_flows_run_whatever_the_database_has_set(any_database_url: str, setting: str) -> None:
    async with connected(any_database_url) as owner:
        await owner.execute(f"alter database {database_of(any_database_url)} {setting}")
    async with shop(any_database_url) as one, HotMesh.init("shop", connection=any_database_url) as two:
        output = await one.pubsub("go", {"x": DATA}, timeout=10)
        assert output.data == {"x": DATA}

        async def flow(number: int) -> str:
            job = await one.pub("ask", {})
            await asyncio.sleep(0.04 + 0.001 * (number % 30))  # about when the hook begins to wait
            await two.signal("told", {"id": job})
            return job

        for _ in range(3):
            for job in await asyncio.gather(*(flow(number) for number in range(40))):
                await eventually(partial(is_done, one, job), what=f"the end of {job}")


async def is_done(mesh: HotMesh, job: str) -> bool:
    return await mesh.get_status(job) == 0


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_pool_is_used_with_its_own_settings_changed_and_gets_them_back(
    any_database_url: str, level: str
) -> None:
    async with asyncpg.create_pool(
        any_database_url, min_size=1, max_size=1, server_settings={"default_transaction_isolation": level}
    ) as pool:
        source = ConnectionSource(pool)
        connection = await source.connect()
        assert await connection.fetchval("show transaction_isolation") == "read committed"
        await source.release(connection)
        assert await pool.fetchval("show transaction_isolation") == level


async def with_codecs(connection: asyncpg.Connection) -> None:
    for name, encoder, decoder in (
        ("json", json.dumps, json.loads),
        ("jsonb", json.dumps, json.loads),
        ("uuid", str, lambda text: f"<{text}>"),
        ("timestamptz", str, lambda text: f"<{text}>"),
        ("int8", str, lambda text: f"<{text}>"),
        ("float8", str, lambda text: f"<{text}>"),
        ("bool", str, lambda text: f"<{text}>"),
    ):
        await connection.set_type_codec(name, encoder=encoder, decoder=decoder, schema="pg_catalog")


async def test_a_pool_keeps_its_codecs_and_flows_know_nothing_of_them(any_database_url: str) -> None:
    async with asyncpg.create_pool(any_database_url, init=with_codecs, min_size=0, max_size=9) as pool:
        async with shop(pool) as mesh:
            output = await mesh.pubsub("go", {"x": DATA}, timeout=10)
            state = await mesh.get_state("go", output.metadata.jid)
            assert state.data == {"x": DATA}
        for _ in range(9):
            assert await pool.fetchval("""select '{"a": [1]}'::json""") == {"a": [1]}
            assert await pool.fetchval("select array[1::int8]") == ["<1>"]


async def test_a_function_may_connect_with_codecs(any_database_url: str) -> None:
    async def connect() -> asyncpg.Connection:
        connection = await asyncpg.connect(any_database_url)
        await with_codecs(connection)
        return connection

    async with shop(connect) as mesh:
        assert (await mesh.pubsub("go", {"x": DATA}, timeout=10)).data == {"x": DATA}


async def test_a_pool_without_codecs_gets_its_connections_back(database_url: str) -> None:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        before = await pool.fetchval("select pg_backend_pid()")
        source = ConnectionSource(pool)
        await source.release(await source.connect())
        assert await pool.fetchval("select pg_backend_pid()") == before


class Loud(psycopg.AsyncRawCursor[Any]):
    """A cursor class of the caller's own, with placeholders of its own."""


def psycopg_caller(pipeline: bool = False, **options: Any) -> Callable[[str, HotMesh], Any]:
    async def start(url: str, mesh: HotMesh) -> str:
        async with await psycopg.AsyncConnection.connect(url, **options) as connection:
            if pipeline:
                async with connection.pipeline():
                    return await mesh.pub("go", {"x": DATA}, connection=connection)
            return await mesh.pub("go", {"x": DATA}, connection=connection)

    return start


async def asyncpg_caller(url: str, mesh: HotMesh) -> str:
    async with connected(url) as connection:
        await with_codecs(connection)
        async with connection.transaction(isolation="serializable"):
            return await mesh.pub(
                "go", {"x": DATA}, extended={"search": {"k": "v"}, "pending": 5}, connection=connection
            )


async def synchronous_caller(url: str, mesh: HotMesh) -> str:
    with psycopg.connect(url, row_factory=dict_row, cursor_factory=psycopg.RawCursor) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return await mesh.pub("go", {"x": DATA}, connection=connection)


CALLERS = {
    "asyncpg with codecs": asyncpg_caller,
    "psycopg with dict_row": psycopg_caller(row_factory=dict_row),
    "psycopg in a pipeline": psycopg_caller(pipeline=True),
    "psycopg with AsyncClientCursor": psycopg_caller(cursor_factory=psycopg.AsyncClientCursor),
    "psycopg with AsyncRawCursor": psycopg_caller(cursor_factory=psycopg.AsyncRawCursor),
    "psycopg with a class of one's own, in a pipeline": psycopg_caller(True, cursor_factory=Loud),
    "synchronous psycopg with RawCursor and dict_row": synchronous_caller,
}


@pytest.mark.parametrize("start", CALLERS.values(), ids=CALLERS)
async def test_a_caller_starts_jobs_on_connections_as_programs_have_them(
    database_url: str, start: Callable[[str, HotMesh], Any]
) -> None:
    async with shop(database_url) as mesh:
        job = await start(database_url, mesh)
        if start is asyncpg_caller:
            assert await mesh.get_status(job) != 0
            await mesh.resume(job)
        await eventually(lambda: is_done(mesh, job), what="its end")
        assert (await mesh.get_state("go", job)).data == {"x": DATA}


async def test_start_job_means_the_same_where_backslashes_escape(any_database_url: str) -> None:
    async with shop(any_database_url) as mesh, connected(any_database_url) as caller:
        await caller.execute("set standard_conforming_strings = off")
        job = await caller.fetchval(
            "select hotmesh.start_job('shop', 'go', $1::jsonb)", json.dumps({"x": "a\\u0000 \\ b"})
        )
        await eventually(lambda: is_done(mesh, job), what="its end")
        assert (await mesh.get_state("go", job)).data == {"x": "a\\u0000 \\ b"}


async def test_signals_are_refused_in_a_transaction_that_could_lose_them(any_database_url: str) -> None:
    async with (
        connected(any_database_url) as connection,
        connection.transaction(isolation="repeatable_read"),
    ):
        with pytest.raises(asyncpg.PostgresError, match="read committed, not repeatable read") as raised:
            await connection.execute("select hotmesh.lock_signal_keys('shop', '{t}', '{k}')")
    assert raised.value.sqlstate == "25001"


async def test_a_session_that_others_share_must_be_right_by_itself(any_database_url: str) -> None:
    async with connected(any_database_url) as connection:
        await settle(connection, pooled=True)
        await connection.execute("set default_transaction_isolation = 'serializable'")
        with pytest.raises(ConfigError, match="alter role … set default_transaction_isolation"):
            await settle(connection, pooled=True)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_text_is_refused(
    any_empty_database_url: str, encoding: str
) -> None:
    name = f"{database_of(any_empty_database_url)}_{encoding.lower()}"
    async with connected(any_empty_database_url) as owner:
        await owner.execute(f"create database {name} encoding '{encoding}' locale 'C' template template0")
        try:
            url = any_empty_database_url.replace(database_of(any_empty_database_url), name)
            with pytest.raises(SchemaError, match=f"has the encoding {encoding}.*needs UTF8"):
                async with HotMesh.init("shop", connection=url):
                    pass
        finally:
            await owner.execute(f"drop database {name} with (force)")


def test_no_statement_has_a_backslash() -> None:
    texts = {kind: sql.read(kind) for kind in ("functions", "queries", "migrations")}
    assert [
        (kind, name) for kind, found in texts.items() for name, text in found.items() if "\\" in text
    ] == []


async def test_a_literal_means_the_same_whatever_backslashes_do(any_database_url: str) -> None:
    text = "it's \\ a \\u0000 text"
    async with connected(any_database_url) as connection:
        for value in ("on", "off"):
            await connection.execute(f"set standard_conforming_strings = {value}")
            assert await connection.fetchval(f"select {sql.literal(text)}") == text


async def test_the_data_directory_may_have_any_name(scratch: Path) -> None:
    directory = scratch / 'a,b "c" %20\'d'
    server = await asyncio.to_thread(local.ensure_running, directory, sync=False)
    async with connected(server.dsn) as connection:
        assert await connection.fetchval("show data_directory") == str(directory / "cluster")
