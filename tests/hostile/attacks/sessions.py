"""By what a session is set to, hears and sees."""

from __future__ import annotations

import contextlib
from typing import Any

import asyncpg
import pytest
from asyncpg import Connection
from stage import ANSWER, BURY, CLAIM, EXTEND, SECRET, Stage, claim

from attacks.attack import DENIED, give_back_everything, harmless, relations, runs_as_ever, statements

# -- notifications ------------------------------------------------------------------------------------------


@harmless
async def listen_to_results_and_hints(c: Connection, s: Stage) -> Any:
    """On every channel that a name leads to, and its own, while results go to another process."""
    heard: list[str] = []
    channels = [
        "hotmesh",
        "shop",
        "hotmesh:hotmesh:shop",
        "hotmesh:shop",
        "quorum",
        s.mesh.guid_,
        s.stolen.role_name,
    ]
    channels.append(await c.fetchval("select channel from hotmesh.worker_hello()"))
    for channel in channels:
        await c.add_listener(channel, lambda *said: heard.append(said[3]))
    await s.finish()
    await s.mesh.pub("order.hidden", {"x": SECRET})
    await s.work()
    await c.fetchval("select 1")
    assert set(heard) <= {'{"w":["*"]}'}
    return heard


@harmless
async def notify_with_what_is_no_hint(c: Connection, s: Stage) -> None:
    channels = [
        "hotmesh:hotmesh:shop",
        await c.fetchval("select channel from hotmesh.worker_hello()"),
        await s.owner.fetchval("select hotmesh.channel('shop')"),  # as if it had leaked
    ]
    for channel in channels:
        for text in ("", "x", "[1]", "null", '{"j":1}', '{"j":{}}', '{"w":5}', '{"w":[5]}', '{"w":["*"]}', '{"e":1}', '{"d":1}', '{"j":{"ref":true,"topic":1,"metadata":{"jid":1}}}'):  # fmt: skip
            await c.execute("select pg_notify($1, $2)", channel, text)


@harmless
async def watch_other_sessions(c: Connection, s: Stage) -> Any:
    await s.owner.fetch(f"select '{SECRET}'")
    rows = await c.fetch("select * from pg_stat_activity where usename <> current_user")
    assert rows
    assert {row["query"] for row in rows} <= {"<insufficient privilege>", "", None}
    return [rows, await c.fetch("select * from pg_locks"), await c.fetch("select pg_listening_channels()")]


statements(
    "end_other_sessions",
    DENIED,
    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'hotmesh'",
    "select pg_cancel_backend(pid) from pg_stat_activity where usename = 'hotmesh'",
    "select pg_reload_conf()",
    "select pg_switch_wal()",
    "select pg_promote()",
)


# -- names, settings ----------------------------------------------------------------------------------------


@harmless
async def shadow_tables_and_types(c: Connection, s: Stage) -> Any:
    for table in await relations(c, "r"):
        await c.execute(f'create temp table "{table}" (stolen text)')
    for name in (
        "text",
        "uuid",
        "json",
        "jsonb",
        "timestamptz",
        "int4",
        "float8",
        "interval",
        "bool",
        "regclass",
    ):
        await c.execute(f"create domain pg_temp.{name} as pg_catalog.int2")
    await c.execute("set search_path = pg_temp, hotmesh, pg_catalog")
    job_id = await s.work()
    # As one text: the driver itself is confused by such types.
    await c.execute(
        "select job_id from hotmesh.worker_claim('m'::pg_catalog.text, '{charge}'::pg_catalog.text[], "
        "'{null}'::pg_catalog.text[], '{\"{}\"}'::pg_catalog.text[], '{1}'::pg_catalog.int4[], 30)"
    )
    reserved = "select reserved_by from hotmesh.worker_stream where job_id = $1"
    assert await s.owner.fetchval(reserved, job_id) == f"{s.stolen.role_name}/m"
    assert await c.fetchval("select pg_catalog.count(*) from pg_temp.worker_stream") == 0


@harmless
async def shadow_functions_and_operators(c: Connection, s: Stage) -> Any:
    await c.execute(
        """
        create function pg_temp.stolen(text, text) returns bool language plpgsql as $$
            begin raise exception 'ran as %', current_user; end $$;
        create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.stolen);
        create operator pg_temp.<> (leftarg = text, rightarg = text, function = pg_temp.stolen);
        create function pg_temp.statement_timestamp() returns timestamptz language plpgsql as $$
            begin raise exception 'ran as %', current_user; end $$;
        create function pg_temp.pg_notify(text, text) returns void language plpgsql as $$
            begin raise exception 'ran as %', current_user; end $$;
        set search_path = pg_temp, pg_catalog, hotmesh;
        """
    )
    return await runs_as_ever(c, s)


@harmless
async def change_how_sql_is_read(c: Connection, s: Stage) -> Any:
    for setting in (
        "standard_conforming_strings = off",
        "array_nulls = off",
        "transform_null_equals = on",
        "datestyle = 'German'",
        "intervalstyle = 'sql_standard'",
        "timezone = 'Asia/Kathmandu'",
        "extra_float_digits = -15",
        "bytea_output = escape",
        "plpgsql.variable_conflict = use_variable",
        "enable_indexscan = off",
        "work_mem = '64kB'",
        "synchronous_commit = off",
    ):
        with contextlib.suppress(asyncpg.PostgresError):
            await c.execute(f"set {setting}")
    rows = []
    with contextlib.suppress(asyncpg.PostgresError):
        rows = await claim(c)
    await give_back_everything(s)
    return rows


@harmless
async def let_postgres_tell_its_plans(c: Connection, s: Stage) -> Any:
    heard: list[Any] = []
    c.add_log_listener(lambda _, message: heard.append((message.message, message.detail)))
    for setting in ("client_min_messages = debug5", "debug_print_plan = on", "debug_print_parse = on", "debug_print_rewritten = on"):  # fmt: skip
        await c.execute(f"set {setting}")
    await s.work()
    heard.append(await c.fetch("select * from hotmesh.worker_hello()"))
    heard.append(await c.fetch("explain (analyze, verbose) " + CLAIM.replace("$1, $2, $3, $4, $5, $6", "'m', '{charge}', '{null}', '{\"{}\"}', '{1}', 30")))  # fmt: skip
    await c.execute("set client_min_messages = notice")
    secret = await s.owner.fetchval("select value from hotmesh.secret")
    assert secret not in repr(heard)
    await give_back_everything(s)
    return heard


@harmless
async def read_what_errors_tell(c: Connection, s: Stage) -> Any:
    told: list[Any] = []
    generation = await s.generation("hidden")
    for statement, arguments in (
        (ANSWER, ("m", [generation], ["call"], ["{0,0}"], ["x"], [200], ["{}"])),
        (BURY, ("m", generation, "call", "{0,0}", "x", "[]")),
    ):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await c.fetch(statement, *arguments)
        told.append([raised.value.as_dict()])
    return told


@harmless
async def block_changes_by_using_row_types(c: Connection, s: Stage) -> None:
    await c.execute("create temp table mine (jobs hotmesh.job[], work hotmesh.worker_stream)")
    async with s.owner.transaction():
        await s.owner.execute("alter table hotmesh.worker_stream add column more integer")
        await s.owner.execute("alter table hotmesh.worker_stream drop column more")


@harmless
async def measure_how_long_answers_take(c: Connection, s: Stage) -> None:
    """Work of others and work that does not exist are the same: not held."""
    answers = []
    for generation in (await s.generation("hidden"), "00000000-0000-0000-0000-000000000000"):
        plan = await c.fetchval(
            "explain (analyze, timing off, summary off, costs off, buffers, format text) "
            f"select hotmesh.worker_extend('m', array['{generation}'::uuid], '{{hide}}', '{{\"{{0,0}}\"}}', 30)"
        )
        answers.append(
            (plan.partition(" (")[0], await c.fetchval(EXTEND, "m", [generation], ["hide"], ["{0,0}"], 30.0))
        )
    assert answers[0] == answers[1]
