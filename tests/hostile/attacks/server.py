"""On the server: becoming somebody else, and what no login of an app needs."""

from __future__ import annotations

import contextlib
from typing import Any

import asyncpg
import pytest
from asyncpg import Connection
from guarded import login
from stage import SECRET, Stage, claim

from attacks.attack import DENIED, harmless, refused, statements
from harness import eventually
from hotmesh import rotate_worker_password

# -- becoming somebody else ---------------------------------------------------------------------------------


statements(
    "become_another_role",
    (DENIED, "22023"),
    "set role hotmesh",
    "set role pg_read_all_data",
    "set role pg_execute_server_program",
    "set session authorization hotmesh",
    "set local session authorization postgres",
    "set session_replication_role = replica",
)


@refused(DENIED)
async def become_the_other_worker(c: Connection, s: Stage) -> None:
    await c.execute(f'set role "{s.honest.role_name}"')


statements(
    "give_itself_rights",
    (DENIED, "0LP01"),
    "alter role current_user superuser",
    "alter role current_user createrole",
    "alter role current_user createdb",
    "alter role current_user bypassrls",
    "alter role current_user replication",
    "alter role current_user connection limit -1",
    "grant hotmesh to current_user",
    "grant pg_read_all_data to current_user",
    "grant all on all tables in schema hotmesh to current_user",
    "alter schema hotmesh owner to current_user",
    "alter default privileges for role hotmesh grant all on tables to current_user",
    "reassign owned by hotmesh to current_user",
)


@harmless
async def pass_on_what_it_may(c: Connection, s: Stage) -> None:
    """Postgres warns, and does nothing."""
    await c.execute("grant execute on function hotmesh.worker_hello() to public")
    await c.execute("grant all on schema hotmesh to public")
    acl = await s.owner.fetchval("select nspacl::text from pg_namespace where nspname = 'hotmesh'")
    assert ",=U" not in acl
    assert "{=U" not in acl
    acl = await s.owner.fetchval(
        "select proacl::text from pg_proc where oid = 'hotmesh.worker_hello()'::regprocedure"
    )
    assert ",=X" not in acl
    assert "{=X" not in acl


statements(
    "change_other_roles",
    DENIED,
    "alter role hotmesh password 'x'",
    "alter role hotmesh set search_path = pg_temp",
    "alter role all set search_path = pg_temp",
    "drop role hotmesh",
    "create role another login",
)


@harmless
async def change_its_own_settings(c: Connection, s: Stage) -> None:
    """Postgres allows that to every login; no bound depends on them."""
    await c.execute("alter role current_user set statement_timeout = 0")
    with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
        await c.execute("alter role current_user set app.allowed_streams = 'hidden'")
    async with s.attacker() as again:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await claim(again, topic="hidden")
    await c.execute("alter role current_user reset all")


@harmless
async def change_its_own_password(c: Connection, s: Stage) -> None:
    """Postgres allows that to every login; rotating with `end_sessions` puts the thief out."""
    await c.execute("alter role current_user password 'of the thief'")
    rotated = await rotate_worker_password(s.url, s.stolen.role_name, end_sessions=True)
    await eventually(c.is_closed)
    for old in ("of the thief", s.stolen.password):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(login(s.url, type(s.stolen)(s.stolen.role_name, old)))
    s.stolen = rotated


@refused("53300")
async def open_more_sessions_than_allowed(c: Connection, s: Stage) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(12):
            await stack.enter_async_context(s.attacker())


# -- the server ---------------------------------------------------------------------------------------------


statements(
    "read_files_of_the_server",
    DENIED,
    "select pg_read_file('postgresql.conf')",
    "select pg_read_binary_file('global/pg_control')",
    "select pg_ls_dir('.')",
    "select pg_ls_waldir()",
    "select pg_stat_file('postgresql.conf')",
    "copy (select 1) to '/tmp/stolen'",
    "copy (select 1) to program 'id'",
    "create temp table lines (line text); copy lines from '/etc/passwd'",
    "create temp table lines (line text); copy lines from program 'id'",
    "select lo_import('/etc/passwd')",
    "select lo_export(1, '/tmp/stolen')",
)
statements(
    "read_passwords_and_statistics",
    DENIED,
    "select * from pg_authid",
    "select * from pg_shadow",
    "select starelid from pg_statistic",
    "select * from pg_user_mapping",
    "select * from pg_hba_file_rules",
    "select loid from pg_largeobject",
)


@harmless
async def read_statistics_of_tables(c: Connection, s: Stage) -> Any:
    await s.owner.execute("analyze hotmesh.job; analyze hotmesh.worker_stream")
    rows = await c.fetch(
        "select tablename, most_common_vals::text, histogram_bounds::text from pg_stats where schemaname = 'hotmesh'"
    )
    assert rows == []
    return [
        rows,
        await c.fetch("select * from pg_stat_user_tables"),
        await c.fetch("select * from pg_settings"),
    ]


statements(
    "make_objects",
    DENIED,
    "create table hotmesh.mine (x int)",
    "create view hotmesh.mine as select 1",
    "create type hotmesh.mine as (x int)",
    "create schema mine",
    "create database mine",
    "create extension dblink",
    "create extension postgres_fdw",
    "create extension file_fdw",
    "create foreign data wrapper mine",
    "create tablespace mine location '/tmp'",
    "create publication mine for all tables",
    "create event trigger mine on ddl_command_start execute function suppress_redundant_updates_trigger()",
    "create cast (text as int) with inout",
    "alter database postgres set search_path = pg_temp",
    "alter system set fsync = off",
    "select pg_create_physical_replication_slot('mine')",
    "select pg_create_logical_replication_slot('mine', 'pgoutput')",
    "load 'auto_explain'",
    "checkpoint",
)


@harmless
async def store_large_objects(c: Connection, s: Stage) -> Any:
    """Every login may make its own; those of others it cannot read."""
    number = await s.owner.fetchval("select lo_from_bytea(0, $1)", SECRET.encode())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await c.fetchval("select lo_get($1)", number)
    await s.owner.execute("select lo_unlink($1)", number)
