"""On what the schema holds: tables, views, sequences and functions."""

from __future__ import annotations

import asyncpg
import pytest
from asyncpg import Connection
from stage import Stage

from attacks.attack import DENIED, each_denied, harmless, statements

# -- tables, views, sequences -------------------------------------------------------------------------------


@harmless
async def read_every_table(c: Connection, s: Stage) -> None:
    await each_denied(
        c, "rp", "select * from {}", "table {}", "select count(*) from {}", "select from {} for update"
    )


@harmless
async def read_every_view(c: Connection, s: Stage) -> None:
    await each_denied(c, "vm", "select * from {}")


@harmless
async def write_every_table(c: Connection, s: Stage) -> None:
    await each_denied(c, "rp", "insert into {} default values", "delete from {}", "truncate {}")


@harmless
async def lock_every_table(c: Connection, s: Stage) -> None:
    modes = ("access share", "row share", "row exclusive", "share", "exclusive", "access exclusive")
    await each_denied(
        c, "rp", *(f"do $$ begin lock table {{}} in {mode} mode nowait; end $$" for mode in modes)
    )


@harmless
async def copy_every_table(c: Connection, s: Stage) -> None:
    await each_denied(c, "rp", "copy {} to stdout", "copy {} to '/tmp/stolen'", "copy {} from '/etc/passwd'")


@harmless
async def read_every_sequence(c: Connection, s: Stage) -> None:
    await each_denied(c, "S", "select * from {}", "select nextval('{}')", "select setval('{}', 1)")


@harmless
async def change_what_the_schema_holds(c: Connection, s: Stage) -> None:
    await each_denied(
        c,
        "r",
        "drop table {}",
        "alter table {} add column stolen text",
        "create trigger t before insert on {} for each row execute function suppress_redundant_updates_trigger()",
        "create rule r as on insert to {} do instead nothing",
        "create index on {} ((1))",
        "grant all on {} to public",
        "comment on table {} is 'mine'",
    )


@harmless
async def look_through_a_view_of_its_own(c: Connection, s: Stage) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await c.execute("create temp view mine as select * from hotmesh.job; select * from mine")


@harmless
async def read_through_a_function_of_its_own(c: Connection, s: Stage) -> None:
    for rights in ("security invoker", "security definer"):
        await c.execute(
            f"create function pg_temp.mine() returns setof text language sql {rights} as "
            "$$ select null::text $$"
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await c.execute("do $$ begin perform * from hotmesh.job; end $$")
        await c.execute("drop function pg_temp.mine()")


# -- functions ----------------------------------------------------------------------------------------------


@harmless
async def call_every_other_function(c: Connection, s: Stage) -> None:
    rows = await c.fetch(
        "select p.oid::regprocedure::text as name, has_function_privilege(p.oid, 'execute') as may "
        "from pg_proc as p where p.pronamespace = 'hotmesh'::regnamespace"
    )
    assert {row["name"].partition("(")[0] for row in rows if row["may"]} == {
        f"hotmesh.worker_{verb}"
        for verb in (
            "hello",
            "claim",
            "answer",
            "add",
            "postpone",
            "extend",
            "bury",
            "next_at",
            "throttles",
            "give_back",
            "set_beside",
        )
    }


statements(
    "forge_engine_messages",
    DENIED,
    "select hotmesh.put_message('shop', 'hidden', null, 'x', 'interrupt', '', '{}', 'success', 200, '{}', 0)",
    "select hotmesh.answer_work('shop', 'm', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
    "select hotmesh.send_calls('shop', null, null, '[[0, \"told\", [\"hidden\"], \"success\", 200, 1, 0]]', array['{}'], '{}')",
    "select hotmesh.activate_version('shop', '1', '', '{}')",
    "select hotmesh.scrub_job('shop', 'hidden')",
    "select hotmesh.grant_worker('x')",
    "insert into hotmesh.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension, status, "
    "code, visible_at, created_at) values ('shop', 'hidden', gen_random_uuid(), 'x', 'answer', 'call', '{0}', "
    "'success', 200, now(), now())",
)
statements(
    "read_the_names_of_channels",
    DENIED,
    "select hotmesh.channel('shop')",
    "select hotmesh.worker_channel('shop')",
    "select value from hotmesh.secret",
)
statements(
    "replace_functions",
    DENIED,
    "create or replace function hotmesh.clock() returns timestamptz language sql as 'select now()'",
    "create function hotmesh.mine() returns int language sql as 'select 1'",
    "drop function hotmesh.worker_hello()",
    "alter function hotmesh.worker_hello() reset all",
    "alter function hotmesh.worker_hello() security invoker",
)
