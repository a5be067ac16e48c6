"""Bringing a schema up to date: once, by many at once, by hand, or not at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from harness import connected
from hotmesh.errors import HotMeshError, NotAuthorizedError, SchemaError
from hotmesh.postgres import migrate as module
from hotmesh.postgres import sql
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.local import LocalServer
from hotmesh.postgres.migrate import Migration, Pending, grant, migrate, migrations, script, verify

pytestmark = pytest.mark.anyio

SCHEMA = "hotmesh"

NEWEST = migrations(SCHEMA)[-1].version

RELATIONS = (
    "select count(*) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where n.nspname = $1"
)


async def test_an_empty_database_gets_everything_and_a_second_time_nothing(empty_database_url: str) -> None:
    source = ConnectionSource(empty_database_url)

    first = await migrate(source, SCHEMA)
    second = await migrate(source, SCHEMA)

    assert [migration.version for migration in first.migrations] == [m.version for m in migrations(SCHEMA)]
    assert first.functions
    assert second == Pending()
    await verify(source, SCHEMA)


async def test_an_up_to_date_start_runs_no_ddl(database_url: str) -> None:
    async with without_rights(database_url) as source:
        assert not await migrate(source, SCHEMA)


async def test_ten_at_once_do_it_once(empty_database_url: str) -> None:
    done = await asyncio.gather(*(migrate(ConnectionSource(empty_database_url), SCHEMA) for _ in range(10)))

    assert sum(bool(found) for found in done) == 1
    await verify(ConnectionSource(empty_database_url), SCHEMA)


async def test_two_namespaces_stand_side_by_side(empty_database_url: str) -> None:
    source = ConnectionSource(empty_database_url)
    await migrate(source, "one")
    await migrate(source, "the-other")

    async with connected(empty_database_url) as connection:
        counts = [await connection.fetchval(RELATIONS, schema) for schema in ("one", "the-other", "public")]

    assert counts[0] == counts[1] > 10
    assert counts[2] == 0


async def test_a_failure_on_the_way_leaves_nothing_behind(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "functions_sql", lambda _: "select 1/0")
    with pytest.raises(HotMeshError, match="division by zero"):
        await migrate(ConnectionSource(empty_database_url), SCHEMA)

    async with connected(empty_database_url) as connection:
        assert await connection.fetchval(RELATIONS, SCHEMA) == 0

    monkeypatch.undo()
    assert await migrate(ConnectionSource(empty_database_url), SCHEMA)


async def test_changed_functions_are_applied_again(database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute(f"update {SCHEMA}.schema_migration set checksum = 'older' where version = 0")
        await connection.execute(f"drop function {SCHEMA}.clock cascade")

    with pytest.raises(SchemaError, match="stored functions"):
        await verify(ConnectionSource(database_url), SCHEMA)
    done = await migrate(ConnectionSource(database_url), SCHEMA)

    assert done == Pending(functions=True)
    async with connected(database_url) as connection:
        assert await connection.fetchval(f"select {SCHEMA}.clock()")


async def test_an_empty_database_does_not_verify_and_stays_empty(empty_database_url: str) -> None:
    with pytest.raises(SchemaError, match=r"no hotmesh tables in namespace hotmesh.*hotmesh migrate"):
        await verify(ConnectionSource(empty_database_url), SCHEMA)

    async with connected(empty_database_url) as connection:
        assert await connection.fetchval(RELATIONS, SCHEMA) == 0


@pytest.mark.parametrize("start", [migrate, verify])
async def test_a_newer_database_is_refused(database_url: str, start: object) -> None:
    async with connected(database_url) as connection:
        await connection.execute(
            f"insert into {SCHEMA}.schema_migration (version, name, checksum) values ({NEWEST + 1}, 'later', 'x')"
        )

    with pytest.raises(
        SchemaError, match=rf"at version {NEWEST + 1} .* knows up to {NEWEST}: upgrade hotmesh"
    ):
        await start(ConnectionSource(database_url), SCHEMA)  # type: ignore[operator]


@pytest.mark.parametrize("start", [migrate, verify])
async def test_a_migration_that_was_changed_afterwards_is_refused(database_url: str, start: object) -> None:
    async with connected(database_url) as connection:
        await connection.execute(f"update {SCHEMA}.schema_migration set checksum = 'x' where version = 1")

    with pytest.raises(SchemaError, match=r"0001_initial .* applied in another form"):
        await start(ConnectionSource(database_url), SCHEMA)  # type: ignore[operator]


async def test_without_the_right_to_create_the_error_says_so(empty_database_url: str) -> None:
    async with without_rights(empty_database_url) as source:
        with pytest.raises(
            NotAuthorizedError, match=r"permission denied .*grant the role what it needs.*--grant"
        ):
            await migrate(source, SCHEMA)


async def test_without_the_right_to_create_an_up_to_date_schema_verifies(database_url: str) -> None:
    async with without_rights(database_url) as source:
        await verify(source, SCHEMA)


@asynccontextmanager
async def without_rights(url: str) -> AsyncIterator[ConnectionSource]:
    """A source whose role may look at the ledger, if there is one, and create nothing."""
    role = f"reader_{os.getpid()}"
    async with connected(url) as connection:
        await connection.execute(f"drop role if exists {role}")
        await connection.execute(f"create role {role} login")
        if await connection.fetchval("select to_regnamespace($1) is not null", SCHEMA):
            await connection.execute(f"grant usage on schema {SCHEMA} to {role}")
            await connection.execute(f"grant select on {SCHEMA}.schema_migration to {role}")
        try:
            yield ConnectionSource({"dsn": url, "server_settings": {"role": role}})
        finally:
            await connection.execute(f"drop owned by {role}; drop role {role}")


async def test_what_is_printed_makes_the_same_schema_with_psql(
    empty_database_url: str, database_url: str, server: LocalServer, tmp_path: Path
) -> None:
    printed = tmp_path / "schema.sql"
    printed.write_text(script(SCHEMA))

    psql: list[str | Path] = [program(server, "psql"), "--quiet", "--set=ON_ERROR_STOP=1", "--file", printed]
    await asyncio.to_thread(
        lambda: subprocess.run([*psql, empty_database_url], check=True, capture_output=True)
    )

    assert dump(server, empty_database_url) == dump(server, database_url)
    await verify(ConnectionSource(empty_database_url), SCHEMA)


async def test_every_upgrade_path_makes_the_same_schema(
    empty_database_url: str, database_url: str, server: LocalServer
) -> None:
    """Migration by migration, with the functions at the end, as a database that was there from the start has it."""
    async with connected(empty_database_url) as connection:
        for number, _ in enumerate(migrations(SCHEMA)):
            step = Pending((migrations(SCHEMA)[number],), functions=False)
            await connection.execute(script(SCHEMA, step))
    await migrate(ConnectionSource(empty_database_url), SCHEMA)

    assert dump(server, empty_database_url) == dump(server, database_url)


def program(server: LocalServer, name: str) -> Path:
    found = server.bin_dir / name
    if not found.exists():
        pytest.skip(f"this Postgres comes without {name}")
    return found


def dump(server: LocalServer, url: str) -> list[str]:
    """The schema as pg_dump writes it, without what differs from run to run."""
    text = subprocess.run(
        [program(server, "pg_dump"), "--schema-only", "--no-owner", url],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


async def test_the_ledger_says_what_ran(database_url: str) -> None:
    async with connected(database_url) as connection:
        rows = await connection.fetch(
            f"select version, name, checksum from {SCHEMA}.schema_migration order by version"
        )

    assert [(row["version"], row["name"], row["checksum"]) for row in rows] == [
        (0, "functions", module.functions_checksum()),
        *((m.version, m.name, m.checksum) for m in migrations(SCHEMA)),
    ]


async def test_nobody_can_keep_others_from_migrating_by_an_advisory_lock(empty_database_url: str) -> None:
    source = ConnectionSource(empty_database_url)
    async with connected(empty_database_url) as holder:
        await holder.execute("select pg_advisory_lock(hashtextextended($1, 7300))", SCHEMA)

        done = await asyncio.gather(*(migrate(source, SCHEMA, turn=1) for _ in range(3)))

        assert sum(bool(found) for found in done) == 1
    await verify(source, SCHEMA)


async def test_nothing_may_be_executed_by_public(database_url: str) -> None:
    async with connected(database_url) as connection:
        names = await connection.fetch(
            "select p.oid::regprocedure::text from pg_proc as p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a "
            "where p.pronamespace = $1::regnamespace and a.grantee = 0",
            SCHEMA,
        )
    assert names == []


async def test_a_role_that_an_app_runs_as_gets_what_later_migrations_make(
    any_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that may no more does not get it."""
    later = Migration(NEWEST + 1, "later", f"create table {SCHEMA}.later (x int)", "x")
    monkeypatch.setattr(module, "migrations", lambda schema: [*migrations(schema), later])
    monkeypatch.setattr(module, "functions_checksum", lambda: "other")
    source = ConnectionSource(any_database_url)
    async with role_for(any_database_url, "app") as app, role_for(any_database_url, "former") as former:
        await grant(source, SCHEMA, [app, former])
        async with connected(any_database_url) as owner:
            await owner.execute(f"drop owned by {former}")
            await owner.execute(f"drop function {SCHEMA}.clock cascade")

            await module.migrate(source, SCHEMA)

            may = "select has_table_privilege($1, 'hotmesh.later', 'insert'), has_function_privilege($1, 'hotmesh.clock()', 'execute')"
            assert [tuple(row) for row in await owner.fetch(may, app)] == [(True, True)]
            assert [tuple(row) for row in await owner.fetch(may, former)] == [(False, False)]


def test_every_migration_applies_the_functions_again_and_with_them_the_rights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = module.functions_checksum()
    read = sql.read
    monkeypatch.setattr(
        sql,
        "read",
        lambda folder: read(folder) | ({"9999_later": ""} if folder == "migrations" else {}),
    )
    assert module.functions_checksum() != before


MAY_NOT = (
    "create table hotmesh.mine (x int)",
    "alter table hotmesh.job add column x int",
    "drop table hotmesh.job",
    "truncate hotmesh.job",
    "create function hotmesh.mine() returns int language sql as 'select 1'",
    "create or replace function hotmesh.clock() returns timestamptz language sql as 'select now()'",
    "insert into hotmesh.schema_migration (version, name, checksum) values (9999, 'x', 'x')",
    "delete from hotmesh.schema_migration",
    "update hotmesh.secret set value = 'x'",
    "insert into hotmesh.worker_credential (role_name, app_id, topics) values ('x', 'x', '{x}')",
    "update hotmesh.worker_credential set revoked_at = null",
    "insert into hotmesh.worker_pending select * from hotmesh.worker_pending",
    "select * from hotmesh.worker_credential_audit",
    "insert into hotmesh.worker_credential_audit (role_name, app_id, topics, action) values ('x', 'x', '{x}', 'revoked')",
    "delete from hotmesh.signal_lock",
    "select hotmesh.grant_app(current_user::text)",
    "select hotmesh.grant_worker(current_user::text)",
    "select * from hotmesh.worker_hello()",
    "grant hotmesh to current_user",
)


async def test_a_role_that_an_app_runs_as_may_not_do_more_than_it_needs(any_database_url: str) -> None:
    async with role_for(any_database_url, "app") as app, role_for(any_database_url, "worker") as worker:
        await grant(ConnectionSource(any_database_url), SCHEMA, [app])
        async with connected(any_database_url) as owner:
            await owner.execute(f"set role {app}")
            for statement in MAY_NOT:
                with pytest.raises(asyncpg.PostgresError) as raised:
                    await owner.execute(statement)
                assert raised.value.sqlstate == "42501", f"{statement}: {raised.value!r}"
            await owner.execute("reset role")
            await owner.execute(
                f"insert into {SCHEMA}.worker_credential (role_name, app_id, topics) values ('{worker}', 'x', '{{x}}')"
            )
        with pytest.raises(HotMeshError, match="is a worker login"):
            await grant(ConnectionSource(any_database_url), SCHEMA, [worker])


@asynccontextmanager
async def role_for(url: str, kind: str) -> AsyncIterator[str]:
    """A new role of a database."""
    name = f"{kind}_{url.partition('?')[0].rpartition('/')[2]}"
    async with connected(url) as owner:
        await owner.execute(f"create role {name}")
        try:
            yield name
        finally:
            await owner.execute(f"drop owned by {name}; drop role {name}")


async def test_every_table_has_a_primary_key(any_database_url: str) -> None:
    """So that a namespace can be replicated as it is, row by row."""
    async with connected(any_database_url) as connection:
        without = await connection.fetch(
            "select c.relname from pg_class as c where c.relnamespace = 'hotmesh'::regnamespace and c.relkind in ('r', 'p') "
            "and not exists (select from pg_index as i where i.indrelid = c.oid and i.indisprimary)"
        )
        assert [row["relname"] for row in without] == []
