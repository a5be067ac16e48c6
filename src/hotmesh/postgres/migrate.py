"""Brings the tables of a namespace up to date: numbered migrations run once, stored functions are applied again.

Everything happens in one transaction, one process after the other, so any number of them may start at once and a
crash leaves nothing half done. Sessions of worker logins are ended first: any login may have a temporary view or table that is
made of our objects, and so forbids to change them. What ran is recorded with its checksum; a recorded migration whose file has changed,
and a database that is newer than this release, are refused. An up-to-date schema is recognised by one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hotmesh.errors import SchemaError
from hotmesh.postgres import sql
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.connect.failures import StatementError, translated
from hotmesh.postgres.connect.source import ConnectionSource

# Not in files, in which `mesh.` stands for what a schema holds, and nothing for the schema itself.

_LEDGER = """
create schema if not exists {schema};
create table if not exists mesh.schema_migration (
    version     integer     not null,
    name        text        not null,
    checksum    text        not null,
    applied_at  timestamptz not null default now(),
    constraint schema_migration_pk primary key (version)
);
comment on table mesh.schema_migration is 'Migrations that have run; version 0 stands for the stored functions.';
"""

_PRIVILEGES = """
revoke execute on all functions in schema {schema} from public;
select mesh.grant_worker(c.role_name) from mesh.worker_credential as c
  join pg_catalog.pg_roles as r on r.rolname = c.role_name
 where c.revoked_at is null;
select mesh.grant_app(r.rolname) from pg_catalog.pg_roles as r
 where r.oid in (select a.grantee from pg_catalog.pg_class as c cross join lateral pg_catalog.aclexplode(c.relacl) as a
                  where c.oid = 'mesh.job'::regclass and a.privilege_type = 'INSERT' and a.grantee <> c.relowner);
"""
"""Nobody may call what he was not granted; worker logins may call the procedures made for them, and roles that an app runs as
(they may write jobs) use everything else that they need, also what is new."""

TURN = 10
"""Seconds for which a process waits for the advisory lock, before it does without. Any login of the database can take that
lock and keep it; the lock on the table of migrations is out of reach of worker logins, but there must be a table."""

_IN_USE = ("2BP01", "0A000", "55006")
"""What a change of an object meets that somebody else's object is made of: a view, a table, even a temporary one."""

_COLLISIONS = ("23505", "40P01", "42P06", "42P07", "42710", "42723")
"""What a process gets that makes the same objects at the same time as another one."""

FUNCTIONS = 0
"""The ledger's number for the stored functions as a whole."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file; `sql` is bound to the schema."""

    version: int
    name: str
    sql: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Pending:
    """What a schema lacks: nothing if both are empty."""

    migrations: tuple[Migration, ...] = ()
    functions: bool = False
    ledger: bool = field(default=False, compare=False)

    def __bool__(self) -> bool:
        return bool(self.migrations) or self.functions


def migrations(schema: str) -> list[Migration]:
    """Every migration of this release, in order."""
    found = []
    for name, text in sql.read("migrations").items():
        number, _, title = name.partition("_")
        found.append(Migration(int(number), title, sql.bind(text, schema), sql.checksum(text)))
    return found


def functions_sql(schema: str) -> str:
    """All stored functions, and who may call them, as one script."""
    functions = [sql.bind(text, schema) for text in sql.read("functions").values()]
    return "\n".join([*functions, sql.bind(_PRIVILEGES, schema).format(schema=sql.quote(schema))])


def functions_checksum() -> str:
    """Another one if the functions are to be applied again: with every migration, too, for who may use what it has made."""
    return sql.checksum(*sql.read("functions").values(), *sql.read("migrations"), _PRIVILEGES)


def script(schema: str, pending: Pending | None = None, grant: Sequence[str] = ()) -> str:
    """The SQL that `migrate` runs on an empty database, or for what is pending, ready for psql.

    `grant`: roles that an app is to run as.
    """
    wanted = pending if pending is not None else Pending(tuple(migrations(schema)), functions=True)
    parts = ["begin;"]
    if wanted:
        parts.append(sql.bind(_LEDGER, schema).format(schema=sql.quote(schema)))
    for migration in wanted.migrations:
        parts += [
            f"-- {migration.version:04d} {migration.name}",
            migration.sql,
            _record_sql(schema, migration),
        ]
    if wanted.functions:
        whole = Migration(FUNCTIONS, "functions", "", functions_checksum())
        parts += ["set local check_function_bodies = off;", functions_sql(schema), _record_sql(schema, whole)]
    parts += [f"select {_grant_call(schema)};".replace("$1", sql.literal(role)) for role in grant]
    parts.append("commit;")
    return "\n".join(parts) + "\n"


async def pending(connection: Driver, schema: str) -> Pending:
    """What the schema lacks. Raises SchemaError if it is newer than this release, or its history was changed."""
    known = migrations(schema)
    with translated():
        if not await _has_ledger(connection, schema):
            return Pending(tuple(known), functions=True)
        rows = await connection.fetch(sql.query("list_migrations", schema))
    applied: dict[int, Any] = {row["version"]: row for row in rows}
    newest = max(applied, default=0)
    if newest > known[-1].version:
        raise SchemaError(
            f"schema {schema} is at version {newest} ({applied[newest]['name']}), this release of hotmesh knows up to "
            f"{known[-1].version}: upgrade hotmesh in this process, or name another namespace"
        )
    for migration in known:
        row = applied.get(migration.version)
        if row is not None and row["checksum"] != migration.checksum:
            raise SchemaError(
                f"migration {migration.version:04d}_{migration.name} of schema {schema} was applied in another form "
                "than this release contains: use the release that made the tables, or name another namespace"
            )
    functions = applied.get(FUNCTIONS)
    current = functions is not None and functions["checksum"] == functions_checksum()
    return Pending(tuple(m for m in known if m.version not in applied), functions=not current, ledger=True)


async def migrate(source: ConnectionSource, schema: str, *, turn: int = TURN) -> Pending:
    """Bring the schema up to date; returns what was done. Safe when many processes call it at once.

    `turn`: seconds to wait for the turn of another process.
    """
    # Not through a pooler if there is another way: it may end what takes long.
    source = source.direct or source
    connection = await source.connect()
    try:
        wanted = await pending(connection, schema)
        if not wanted:
            return wanted
        alone = False
        shut = False
        while True:
            try:
                with translated():
                    async with connection.transaction():
                        alone = await _take_turn(connection, schema, turn)
                        wanted = await pending(connection, schema)
                        if wanted:
                            await _end_logins(connection, schema)
                            await _apply(connection, schema, wanted)
                return wanted
            except StatementError as error:
                if error.sqlstate in _IN_USE and not shut and await _shut_out_logins(connection, schema):
                    shut = True
                    continue
                if shut:
                    await _let_in_logins(connection, schema)
                if alone or error.sqlstate not in _COLLISIONS:
                    raise
    finally:
        await source.release(connection)


async def grant(source: ConnectionSource, schema: str, roles: Sequence[str]) -> None:
    """Let an app run as these roles, on a schema that is up to date; see `grant_app.sql`."""
    source = source.direct or source
    connection = await source.connect()
    try:
        with translated():
            async with connection.transaction():
                await _take_turn(connection, schema, TURN)
                for role in roles:
                    await connection.execute(f"select {_grant_call(schema)}", role)
    finally:
        await source.release(connection)


def _grant_call(schema: str) -> str:
    return sql.bind("mesh.grant_app($1)", schema)


async def _take_turn(connection: Driver, schema: str, longest: int) -> bool:
    """Wait until no other process migrates the schema; whether that is certain."""
    certain = True
    await connection.execute(
        "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0"
    )
    try:
        with translated():
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = '{longest}s'")
                await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 7300))", schema)
    except StatementError as error:
        if error.sqlstate != "55P03":
            raise
        certain = False
    await connection.execute("set local lock_timeout = 0")
    if await _has_ledger(connection, schema):
        await connection.execute(sql.query("lock_ledger", schema))
    return certain


async def _has_ledger(connection: Driver, schema: str) -> bool:
    return bool(await connection.fetchval(sql.query("has_ledger", schema), schema))


async def no_tables(connection: Driver, schema: str) -> SchemaError | None:
    """The error that says that a namespace has no tables, and which have; None if it has."""
    with translated():
        row = await connection.fetchrow(sql.query("namespaces", schema))
    if row is None or schema in row["namespaces"]:
        return None
    others = ", ".join(row["namespaces"])
    there = f"namespaces that have: {others}; name one of these, or run" if others else "run"
    return SchemaError(
        f"there are no hotmesh tables in namespace {schema} of database {row['database']}; {there} `hotmesh migrate`"
    )


async def verify(source: ConnectionSource, schema: str) -> None:
    """Raise SchemaError unless the schema is exactly what this release needs; runs no DDL."""
    connection = await source.connect()
    try:
        wanted = await pending(connection, schema)
        missing_all = None if wanted.ledger or not wanted else await no_tables(connection, schema)
        if missing_all is not None:
            raise missing_all
    finally:
        await source.release(connection)
    if wanted:
        missing = ", ".join(f"{m.version:04d}_{m.name}" for m in wanted.migrations) or "stored functions"
        raise SchemaError(
            f"schema {schema} is not up to date (missing: {missing}); run `hotmesh migrate` with a role that may"
        )


async def _end_logins(connection: Driver, schema: str) -> None:
    """End the sessions of worker logins, which connect again: each may have temporary objects that are made of ours."""
    if await connection.fetchval(sql.query("has_logins", schema), schema):
        await connection.execute(sql.query("end_login_sessions", schema))


async def _shut_out_logins(connection: Driver, schema: str) -> bool:
    """Let no worker login use the schema until it is migrated, or they would be back sooner; whether there are any.

    What migrates gives them back what they may. If this process dies before, the next one does that.
    """
    with translated():
        async with connection.transaction():
            await _take_turn(connection, schema, TURN)
            if not await pending(connection, schema):
                return False
            return await _allow_logins(connection, schema, "revoke usage on schema {} from {}")


async def _let_in_logins(connection: Driver, schema: str) -> None:
    """It could not be migrated: worker logins may use the schema as it was."""
    with translated():
        async with connection.transaction():
            await _allow_logins(connection, schema, "grant usage on schema {} to {}")


async def _allow_logins(connection: Driver, schema: str, statement: str) -> bool:
    if not await connection.fetchval(sql.query("has_logins", schema), schema):
        return False
    logins = await connection.fetch(sql.query("valid_logins", schema))
    for row in logins:
        await connection.execute(statement.format(sql.quote(schema), sql.quote(row["role_name"])))
    return bool(logins)


async def _apply(connection: Driver, schema: str, wanted: Pending) -> None:
    await connection.execute(sql.bind(_LEDGER, schema).format(schema=sql.quote(schema)))
    for migration in wanted.migrations:
        await connection.execute(migration.sql)
        await connection.execute(_record_sql(schema, migration))
    if wanted.functions:
        await connection.execute("set local check_function_bodies = off")
        await connection.execute(functions_sql(schema))
        whole = Migration(FUNCTIONS, "functions", "", functions_checksum())
        await connection.execute(_record_sql(schema, whole))


def _record_sql(schema: str, migration: Migration) -> str:
    # Without parameters, for psql. Version, name and checksum come from our own file names and hashes: nothing in them
    # needs quoting.
    return sql.bind(
        "insert into mesh.schema_migration (version, name, checksum) "  # noqa: S608
        f"values ({migration.version}, '{migration.name}', '{migration.checksum}') "
        "on conflict (version) do update set checksum = excluded.checksum, applied_at = now();",
        schema,
    )
