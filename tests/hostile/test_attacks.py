"""Attacks with a stolen worker login and a plain driver: each is refused or harmless, shows nothing, and the app goes on.

An attack returns what it got hold of. It ends with an error of Postgres, one of `refused`, or without one (`harmless`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import pytest
from asyncpg import Connection
from guarded import login
from stage import (
    ADD,
    ANSWER,
    BURY,
    CLAIM,
    EXTEND,
    NEXT,
    POSTPONE,
    SECRET,
    Stage,
    add,
    answer,
    claim,
    named,
    staged,
)

from harness import connected, eventually
from hotmesh import rotate_worker_password

pytestmark = pytest.mark.anyio

DENIED = "42501"
INVALID = "22023"
TOO_MUCH = "54000"


@dataclass(frozen=True)
class Attack:
    run: Callable[[Connection, Stage], Awaitable[Any]]
    refused: tuple[str, ...]


ATTACKS: dict[str, Attack] = {}

Attacking = Callable[[Connection, Stage], Awaitable[Any]]


def refused(*sqlstates: str) -> Callable[[Attacking], Attacking]:
    def add(run: Attacking) -> Attacking:
        ATTACKS[run.__name__] = Attack(run, sqlstates)
        return run

    return add


harmless = refused()


def statements(name: str, sqlstates: str | tuple[str, ...], *texts: str) -> None:
    """Attacks by single statements, each of which is refused."""
    states = (sqlstates,) if isinstance(sqlstates, str) else sqlstates

    async def run(c: Connection, s: Stage) -> None:
        for text in texts:
            with pytest.raises(asyncpg.PostgresError) as raised:
                await (c.execute if ";" in text else c.fetch)(text)
            assert raised.value.sqlstate in states, f"{text}: {raised.value!r}"

    ATTACKS[name] = Attack(run, ())


@pytest.fixture(scope="module")
async def stage(guarded_database: str) -> AsyncIterator[Stage]:
    async with staged(guarded_database) as made:
        yield made


# -- tables, views, sequences ------------------------------------------------------------------------------


async def relations(c: Connection, kinds: str) -> list[str]:
    rows = await c.fetch(
        "select relname::text as name from pg_class "
        "where relnamespace = 'hotmesh'::regnamespace and relkind::text = any($1::text[])",
        list(kinds),
    )
    return [row["name"] for row in rows]


async def each_denied(c: Connection, kinds: str, *templates: str) -> None:
    names = await relations(c, kinds)
    assert names
    for name in names:
        for template in templates:
            with pytest.raises(asyncpg.PostgresError) as raised:
                await c.execute(template.format(f'hotmesh."{name}"'))
            assert raised.value.sqlstate in (DENIED, "42809"), f"{template} {name}: {raised.value!r}"


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


# -- functions ---------------------------------------------------------------------------------------------


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
        )
    }


statements(
    "forge_engine_messages",
    DENIED,
    "select hotmesh.send_message('shop', 'hidden', null, 'x', 'interrupt', '', '{}', 'success', 200, '{}', '{}')",
    "select hotmesh.answer_work('shop', 'm', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
    "select hotmesh.send_signal('shop', 'told', '{hidden}', '{}', 'success', 200, 1, '{}')",
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

# -- becoming somebody else --------------------------------------------------------------------------------

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


# -- other topics, other apps ------------------------------------------------------------------------------


@refused(DENIED)
async def claim_another_topic(c: Connection, s: Stage) -> Any:
    return await claim(c, topic="hidden")


@refused(DENIED)
async def claim_another_topic_beside_its_own(c: Connection, s: Stage) -> Any:
    return await c.fetch(CLAIM, "m", ["charge", "hidden"], [None, None], ["{}", "{}"], [1, 1], 30.0)


@harmless
async def claim_by_patterns_and_nothing(c: Connection, s: Stage) -> None:
    for topic in ("*", "%", "", "CHARGE", " charge", "charge ", "charge,hidden", "{charge}", None):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await c.fetch(CLAIM, "m", [topic], [None], ["{}"], [1], 30.0)
    nothings: list[Any] = [[], None]
    for nothing in nothings:
        assert await c.fetch(CLAIM, "m", nothing, nothing, nothing, nothing, 30.0) == []


@harmless
async def claim_the_same_topic_of_another_app(c: Connection, s: Stage) -> Any:
    await s.work()
    found = await claim(c, 100)
    assert {row["app_id"] for row in found} == {"shop"}
    assert await answer(c, found, '{"y": 1}') == [True] * len(found)
    return found


@refused(DENIED)
async def ask_when_work_of_another_topic_is_due(c: Connection, s: Stage) -> Any:
    return await c.fetchval(NEXT, ["hidden"], [None], ["{}"])


@refused(DENIED)
async def set_the_list_of_allowed_streams_row_310(c: Connection, s: Stage) -> Any:
    await c.execute("set app.allowed_streams = 'hidden'")
    return await claim(c, topic="hidden")


@harmless
async def use_a_namespace_that_is_not_its_own(c: Connection, s: Stage) -> None:
    await s.owner.execute(
        "create schema if not exists elsewhere; create table if not exists elsewhere.job (x text)"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await c.fetch("select * from elsewhere.job")


# -- answers that are not its own --------------------------------------------------------------------------


async def held_by_another(c: Connection, s: Stage) -> list[Any]:
    """Work that the honest worker holds; under the very name of member that the attacker uses."""
    await s.work()
    rows = await eventually(lambda: claim(s.worker, 1, member="m"))
    return list(rows)


async def answered_by_its_holder(s: Stage, rows: list[Any]) -> None:
    assert await answer(s.worker, rows, '{"y": 1}') == [True]


@harmless
async def answer_for_another_login(c: Connection, s: Stage) -> None:
    rows = await held_by_another(c, s)
    for member in ("m", f"{s.honest.role_name}/m", f"../{s.honest.role_name}/m"):
        assert await answer(c, rows, '{"y": 666}', member=member) == [False]
    await answered_by_its_holder(s, rows)


@harmless
async def extend_postpone_and_bury_for_another_login(c: Connection, s: Stage) -> None:
    rows = await held_by_another(c, s)
    names = named(rows)
    assert await c.fetchval(EXTEND, "m", *names, 30.0) == [False]
    assert await c.fetchval(POSTPONE, "m", *names, [0.0], [True]) == 0
    assert await c.fetchval(BURY, "m", *(name[0] for name in names), "gone", "{}") is False
    await answered_by_its_holder(s, rows)


@harmless
async def answer_for_work_that_it_knows_and_does_not_hold(c: Connection, s: Stage) -> None:
    hidden = await s.generation("hidden")
    for generation in (hidden, "00000000-0000-0000-0000-000000000000"):
        found = await c.fetchval(ANSWER, "m", [generation], ["hide"], ["{0,0}"], ["success"], [200], ["{}"])
        assert found == [False]
    assert await s.mesh.get_status("hidden") == 1


@harmless
async def answer_for_a_member_of_the_mesh(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    await s.owner.execute(
        "update hotmesh.worker_stream set reserved_by = $1, visible_at = now() + interval '1 minute' where job_id = $2",
        s.mesh.guid_,
        job_id,
    )
    generation = await s.generation(job_id)
    assert await c.fetchval(ANSWER, s.mesh.guid_, [generation], ["call"], ["{0,0}"], ["success"], [200], ["{}"]) == [False]  # fmt: skip
    await s.mesh.scrub(job_id)


@harmless
async def replay_an_answer(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    rows = await eventually(lambda: claim(c))
    assert await answer(c, rows, '{"y": 1}') == [True]
    assert await answer(c, rows, '{"y": 666}') == [False]
    await eventually(lambda: ended(s, job_id))
    assert (await s.mesh.get_state("order.charge", job_id)).data == {"y": 1}
    assert await answer(c, rows, '{"y": 666}') == [False]


async def ended(s: Stage, job_id: str) -> bool:
    return await s.mesh.get_status(job_id) <= 0


@harmless
async def answer_one_work_twice_at_once(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    [row] = await eventually(lambda: claim(c))
    generations, activities, dimensions = named([row, row])
    await c.fetchval(ANSWER, "m", generations, activities, dimensions, ["success"] * 2, [200] * 2, ['{"y": 1}', '{"y": 2}'])  # fmt: skip
    await eventually(lambda: ended(s, job_id))
    assert (await s.mesh.get_state("order.charge", job_id)).data["y"] in (1, 2)


@harmless
async def answer_after_the_lease_has_passed_to_another(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    rows = await eventually(lambda: claim(c))
    await s.owner.execute("update hotmesh.worker_stream set visible_at = now() where job_id = $1", job_id)
    other = await eventually(lambda: claim(s.worker))
    assert await answer(c, rows, '{"y": 666}') == [False]
    await answered_by_its_holder(s, other)


@harmless
async def name_another_job_activity_or_address(c: Connection, s: Stage) -> None:
    """What is answered follows from the stored work; the names only find it."""
    await s.work()
    [row] = await eventually(lambda: claim(c))
    generation = row["generation"]
    for activity, dimension in (
        ("start", "{0}"),
        ("call", "{0,1}"),
        ("call", "{}"),
        ("", "{0,0}"),
        (None, None),
    ):
        found = await c.fetchval(
            ANSWER, "m", [generation], [activity], [dimension], ["success"], [200], ["{}"]
        )
        assert found == [False]
    assert await answer(c, [row], '{"y": 1}') == [True]


# -- answers that are added --------------------------------------------------------------------------------


async def answered_pending(c: Connection, s: Stage) -> Any:
    """Work that this login has answered with `pending`, and an engine has seen it."""
    await s.work()
    [row] = await eventually(lambda: claim(c))
    assert await answer(c, [row], '{"y": 0}', status="pending", code=202) == [True]
    state = "select state = 'pending' from hotmesh.activity where generation = $1 and activity_id = 'call'"
    await eventually(lambda: s.owner.fetchval(state, row["generation"]))
    return row


async def written(s: Stage, row: Any) -> Any:
    """All that an answer can have changed of a job."""
    return [
        await s.owner.fetch(f"select t::text from hotmesh.{table} as t where generation = $1 order by 1", row["generation"])
        for table in ("job", "activity", "worker_stream", "worker_pending", "engine_stream", "dead_letter")
    ]  # fmt: skip


async def answered_later(c: Connection, s: Stage, row: Any) -> None:
    """Who gave the pending answer still can give the last one; then nothing is left of it."""
    assert await add(c, row, '{"y": 1}', guid="last") == "sent"
    await eventually(lambda: ended(s, row["job_id"]))
    assert (await s.mesh.get_state("order.charge", row["job_id"])).data == {"y": 1}
    kept = "select count(*) from hotmesh.worker_pending where generation = $1"
    assert await s.owner.fetchval(kept, row["generation"]) == 0


@harmless
async def add_to_what_another_login_has_answered(c: Connection, s: Stage) -> None:
    row = await answered_pending(s.worker, s)
    before = await written(s, row)
    assert await add(c, row) == "closed"
    assert await written(s, row) == before
    await answered_later(s.worker, s, row)


@harmless
async def add_to_what_waits_or_is_held(c: Connection, s: Stage) -> None:
    """Nobody has answered pending: neither for work that is free, nor for what others, or it itself, hold."""
    job_id = await s.work()
    free = await s.owner.fetchrow("select * from hotmesh.worker_stream where job_id = $1", job_id)
    before = await written(s, free)
    assert await add(c, free) == "closed"
    assert await written(s, free) == before
    [row] = await eventually(lambda: claim(s.worker))
    before = await written(s, row)
    assert await add(c, row) == "closed"
    assert await written(s, row) == before
    await answered_by_its_holder(s, [row])
    await s.work()
    [own] = await eventually(lambda: claim(c))
    before = await written(s, own)
    assert await add(c, own) == "held"
    assert await written(s, own) == before
    assert await answer(c, [own], '{"y": 1}') == [True]


@harmless
async def add_to_what_it_has_answered_for_good(c: Connection, s: Stage) -> None:
    await s.work()
    [row] = await eventually(lambda: claim(c))
    assert await answer(c, [row], '{"y": 1}') == [True]
    assert await add(c, row) == "closed"
    await eventually(lambda: ended(s, row["job_id"]))
    assert await add(c, row) == "closed"
    assert (await s.mesh.get_state("order.charge", row["job_id"])).data == {"y": 1}


@harmless
async def add_after_answering_pending_and_for_good_at_once(c: Connection, s: Stage) -> None:
    await s.work()
    [row] = await eventually(lambda: claim(c))
    await c.fetchval(ANSWER, "m", *named([row, row]), ["success", "pending"], [200, 202], ['{"y": 1}', '{"y": 2}'])  # fmt: skip
    if not await ended(s, row["job_id"]):
        await add(c, row, '{"y": 2}')
    await eventually(lambda: ended(s, row["job_id"]))
    assert (await s.mesh.get_state("order.charge", row["job_id"])).data["y"] in (1, 2)
    assert await add(c, row, guid="more") == "closed"


@harmless
async def add_again_after_the_last_answer(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    async with s.owner.transaction():
        # No engine may apply the last answer before the attacker has tried.
        await s.owner.execute("select from hotmesh.job where job_id = $1 for update", row["job_id"])
        assert await add(c, row, '{"y": 1}', guid="last") == "sent"
        assert await add(c, row, guid="last") == "duplicate"
        assert await add(c, row, guid="another") == "closed"
        assert await add(c, row, guid="another", status="pending", code=202) == "closed"
    await eventually(lambda: ended(s, row["job_id"]))
    assert await add(c, row, guid="another") == "closed"
    assert await add(c, row, guid="last") == "closed"
    assert (await s.mesh.get_state("order.charge", row["job_id"])).data == {"y": 1}


@harmless
async def replay_an_answer_that_was_added(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    passes = "select count(*) from hotmesh.activity where generation = $1 and activity_id = 'call'"
    assert await add(c, row, guid="one", status="pending", code=202) == "sent"
    await eventually(lambda: _is(s, passes, row, 2))
    for _ in range(3):
        await add(c, row, guid="one", status="pending", code=202)
    assert await add(c, row, guid="two", status="pending", code=202) == "sent"
    await eventually(lambda: _is(s, passes, row, 3))
    await answered_later(c, s, row)


async def _is(s: Stage, query: str, row: Any, count: int) -> bool:
    return bool(await s.owner.fetchval(query, row["generation"]) == count)


@harmless
async def add_to_a_job_that_has_ended(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    await s.mesh.interrupt("order.charge", row["job_id"])
    before = await written(s, row)
    assert await add(c, row) == "closed"
    assert await written(s, row) == before
    assert before[3] == []
    await s.mesh.scrub(row["job_id"])
    assert await add(c, row) == "closed"


@harmless
async def add_to_an_earlier_generation_of_a_job(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    await s.mesh.scrub(row["job_id"])
    await s.mesh.pub("order.charge", {"x": 1}, extended={"id": row["job_id"]})
    [new] = await eventually(lambda: claim(s.worker))
    assert await answer(s.worker, [new], '{"y": 0}', status="pending", code=202) == [True]
    before = await written(s, new)
    assert await add(c, row) == "closed"
    assert await add(c, new) == "closed"
    assert (await written(s, new))[3] == before[3]
    await answered_later(s.worker, s, new)


@harmless
async def name_another_job_or_activity_when_adding(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    hidden = await s.generation("hidden")
    for other in (
        {"job_id": "hidden"},
        {"job_id": "hidden", "generation": hidden, "activity": "hide"},
        {"generation": hidden},
        {"generation": "00000000-0000-0000-0000-000000000000"},
        {"generation": None},
        {"job_id": None},
        {"activity": "start", "dimension": "{0}"},
        {"activity": ""},
        {"activity": None},
        {"dimension": "{0,1}"},
        {"dimension": "{}"},
        {"dimension": None},
    ):
        assert await add(c, row, **other) == "closed"
    assert await s.mesh.get_status("hidden") == 1
    await answered_later(c, s, row)


@harmless
async def add_to_another_app_or_a_topic_that_was_taken_away(c: Connection, s: Stage) -> None:
    """Even if it is written down that this login gave the pending answer."""
    row = await answered_pending(c, s)
    changed = "update hotmesh.worker_pending set app_id = $2, topic = $3 where generation = $1"
    for app_id, topic in (("vault", "charge"), ("shop", "hidden")):
        await s.owner.execute(changed, row["generation"], app_id, topic)
        before = await written(s, row)
        assert await add(c, row) == "closed"
        assert await written(s, row) == before
    await s.owner.execute(changed, row["generation"], "shop", "charge")
    await answered_later(c, s, row)


@harmless
async def add_once_it_is_revoked(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    revoked = "update hotmesh.worker_credential set revoked_at = {} where role_name = $1"
    await s.owner.execute(revoked.format("now()"), s.stolen.role_name)
    try:
        before = await written(s, row)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await add(c, row)
        assert await written(s, row) == before
    finally:
        await s.owner.execute(revoked.format("null"), s.stolen.role_name)
    await answered_later(c, s, row)


@harmless
async def add_under_names_that_engines_use(c: Connection, s: Stage) -> None:
    """A message that the job gets later must not find its id in use."""
    row = await answered_pending(c, s)
    for guid in ("answer:call:{0,0}", "interrupt", f"resume:{row['job_id']}", "later:last", "'", "x" * 512):
        assert await add(c, row, guid=guid, status="pending", code=202) == "sent"
    ids = "select message_id from hotmesh.engine_stream where generation = $1"
    assert all(one["message_id"].startswith("later:") for one in await s.owner.fetch(ids, row["generation"]))
    await answered_later(c, s, row)


@harmless
async def add_with_what_no_answer_may_have(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    before = await written(s, row)
    for name, data in BROKEN.items():
        with pytest.raises(asyncpg.PostgresError) as raised:
            await add(c, row, data)
        assert raised.value.sqlstate == INVALID, name
    for options in (
        {"status": "interrupted"},
        {"status": None},
        {"code": None},
        {"guid": ""},
        {"guid": None},
        {"guid": "x" * 513},
        {"status": "error", "data": "[1]"},
    ):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await add(c, row, **options)
        assert raised.value.sqlstate == INVALID, options
    with pytest.raises(asyncpg.PostgresError) as raised:
        await add(c, row, json.dumps({"y": "x" * 2_000_000}))
    assert raised.value.sqlstate == TOO_MUCH
    assert await written(s, row) == before
    await answered_later(c, s, row)


@harmless
async def add_without_end(c: Connection, s: Stage) -> None:
    row = await answered_pending(c, s)
    most = "update hotmesh.worker_credential set most_attempts = $2 where role_name = $1"
    await s.owner.execute(most, s.stolen.role_name, 3)
    try:
        for n in range(3):
            assert await add(c, row, guid=f"g{n}", status="pending", code=202) == "sent"
        with pytest.raises(asyncpg.PostgresError) as raised:
            await add(c, row, guid="more")
        assert raised.value.sqlstate == TOO_MUCH
    finally:
        await s.owner.execute(most, s.stolen.role_name, 1000)
    await answered_later(c, s, row)


@harmless
async def add_and_keep_the_transaction_open(c: Connection, s: Stage) -> None:
    """With the row that the engine has to remove; the engine ends the session."""
    row = await answered_pending(c, s)
    await c.execute("begin")
    assert await add(c, row, status="pending", code=202) == "sent"
    await s.mesh.interrupt("order.charge", row["job_id"])
    await eventually(c.is_closed)


@harmless
async def pretend_to_have_answered_pending(c: Connection, s: Stage) -> None:
    """For work that it does not hold, a pending answer leaves nothing behind."""
    rows = await held_by_another(c, s)
    assert await answer(c, rows, status="pending", code=202) == [False]
    before = await written(s, rows[0])
    assert await add(c, rows[0]) == "closed"
    assert await written(s, rows[0]) == before
    assert before[3] == []
    await answered_by_its_holder(s, rows)


# -- payloads ----------------------------------------------------------------------------------------------

BROKEN = {
    "nan": '{"y": NaN}',
    "infinity": '{"y": -Infinity}',
    "no json": "{'y': 1}",
    "nothing": "",
    "cut off": '{"y": ',
    "number beyond doubles": '{"y": [1e400]}',
    "number of 5000 digits": '{"y": ' + "9" * 5000 + "}",
    "half of a surrogate pair": '{"y": "\\ud800"}',
    "half of a surrogate pair in a key": '{"\\udfff": 1}',
    "201 levels": "[" * 201 + "]" * 201,
    "5000 levels": "[" * 5000 + "]" * 5000,
    "100000 levels": '{"a":' * 100_000 + "1" + "}" * 100_000,
}


def _broken(name: str, data: str, status: str) -> None:
    async def run(c: Connection, s: Stage) -> None:
        await s.work()
        rows = await eventually(lambda: claim(c))
        with pytest.raises(asyncpg.PostgresError) as raised:
            await answer(c, rows, data, status=status)
        assert raised.value.sqlstate == INVALID
        assert await answer(c, rows, '{"y": 1}') == [True]

    ATTACKS[f"answer_with_{name.replace(' ', '_')}_as_{status}"] = Attack(run, ())


for name, data in BROKEN.items():
    _broken(name, data, "success")
for name in ("number beyond doubles", "half of a surrogate pair", "5000 levels"):
    _broken(name, BROKEN[name], "error")
_broken("a list", "[1]", "error")
_broken("a text", '"gone"', "error")


@harmless
async def answer_with_statuses_and_codes_of_its_own(c: Connection, s: Stage) -> None:
    await s.work()
    rows = await eventually(lambda: claim(c))
    for status in ("interrupted", "SUCCESS", "", None, "error'--"):
        with pytest.raises(asyncpg.PostgresError):
            await answer(c, rows, status=status)
    with pytest.raises(asyncpg.PostgresError):
        await answer(c, rows, code=None)
    with pytest.raises(asyncpg.PostgresError) as raised:
        await c.fetch("select hotmesh.worker_answer('m', '{}', '{}', '{}', '{}', '{99999999999}', '{}')")
    assert raised.value.sqlstate == "22003"
    assert await answer(c, rows, '{"y": 1}', code=-(2**31)) == [True]


@refused(TOO_MUCH)
async def answer_with_two_megabytes(c: Connection, s: Stage) -> None:
    await s.work()
    rows = await eventually(lambda: claim(c))
    await answer(c, rows, json.dumps({"y": "x" * 2_000_000}))


@harmless
async def answer_with_an_error_of_odd_shape(c: Connection, s: Stage) -> None:
    """What an engine does not expect in an error does not reach it."""
    for data in (
        '{"message": {"a": 1}, "code": "x", "stack": 5, "error": [1], "more": 1}',
        "{}",
        '{"message": null}',
    ):
        job_id = await s.work()
        rows = await eventually(lambda: claim(c))
        assert await answer(c, rows, data, status="error", code=418) == [True]
        await eventually(partial(ended, s, job_id))
        error = json.loads((await s.mesh.get_state("order.charge", job_id)).metadata["err"])
        assert error["code"] == 418
        assert isinstance(error["message"], str)
        assert "more" not in error


@refused("22021")
async def send_a_nul_character(c: Connection, s: Stage) -> None:
    await claim(c, member="a\0b")


INJECTIONS = (
    "'; drop table hotmesh.job; --",
    '"; drop table hotmesh.job; --',
    "$$; drop table hotmesh.job; $$",
    "\\'; drop table hotmesh.job; --",
    "{0,0}'::integer[]); delete from hotmesh.job; --",
    "%s %I %L $1 :x {0}",
)


@harmless
async def put_sql_into_every_argument(c: Connection, s: Stage) -> Any:
    await s.work()
    rows = await eventually(lambda: claim(c))
    generation = rows[0]["generation"]
    got: list[Any] = []
    for text in INJECTIONS:
        for statement, arguments in (
            (CLAIM, (text, ["charge"], [text], ["{}"], [0], 30.0)),
            (CLAIM, ("m", [text], [None], ["{}"], [1], 30.0)),
            (CLAIM, ("m", ["charge"], [None], [text], [0], 30.0)),
            (ANSWER, (text, [generation], [text], ["{0}"], ["success"], [200], ["{}"])),
            (ANSWER, ("m", [generation], ["call"], [text], ["success"], [200], ["{}"])),
            (ANSWER, ("m", [generation], ["call"], ["{9}"], [text], [200], ["{}"])),
            (ANSWER, ("m", [generation], ["call"], ["{9}"], ["success"], [200], [text])),
            (ADD, (text, generation, text, "{0}", text, "success", 200, "{}")),
            (ADD, ("x", generation, "call", text, "g", "success", 200, "{}")),
            (ADD, ("x", generation, "call", "{0}", "g", text, 200, text)),
            (EXTEND, (text, [generation], [text], ["{0}"], 30.0)),
            (POSTPONE, (text, [generation], [text], ["{0}"], [0.0], [True])),
            (BURY, (text, generation, text, "{0}", text, "{}")),
            (NEXT, ([text], [text], ["{}"])),
        ):
            with contextlib.suppress(asyncpg.PostgresError):
                got.append(await c.fetch(statement, *arguments))
    assert await answer(c, rows, '{"y": 1}') == [True]
    return got


# -- numbers and arrays ------------------------------------------------------------------------------------


@harmless
async def ask_for_leases_that_make_no_sense(c: Connection, s: Stage) -> None:
    await s.work()
    for lease in (-1.0, 0.0, 0.5, 301.0, 1e308, float("inf"), float("nan"), float("-inf"), None):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await c.fetch(CLAIM, "m", ["charge"], [None], ["{}"], [1], lease)
        assert raised.value.sqlstate == INVALID
    rows = await eventually(lambda: claim(c))
    for lease in (-1.0, 301.0, float("nan"), float("inf"), None):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await c.fetchval(EXTEND, "m", *named(rows), lease)
        assert raised.value.sqlstate == INVALID
    assert await answer(c, rows, '{"y": 1}') == [True]


@harmless
async def ask_for_limits_that_make_no_sense(c: Connection, s: Stage) -> None:
    for limit in (-1, -(2**31), 0, None):
        assert await c.fetch(CLAIM, "m", ["charge"], [None], ["{}"], [limit], 30.0) == []
    for limits in ([], [1, 1], None):
        with pytest.raises(asyncpg.PostgresError):
            await c.fetch(CLAIM, "m", ["charge"], [None], ["{}"], limits, 30.0)


@harmless
async def send_arrays_of_hundreds_of_thousands(c: Connection, s: Stage) -> None:
    many = 200_000
    with pytest.raises(asyncpg.PostgresError) as raised:
        await c.fetch("select * from hotmesh.worker_claim('m', array_fill('charge'::text, array[$1::integer]), null, null, null, 30)", many)  # fmt: skip
    assert raised.value.sqlstate == TOO_MUCH
    names = "array_fill(gen_random_uuid(), array[$1::integer]), array_fill('a'::text, array[$1::integer]), array_fill('{0}'::text, array[$1::integer])"
    for call in (
        f"worker_answer('m', {names}, array_fill('success'::text, array[$1::integer]), array_fill(1, array[$1::integer]), null)",
        f"worker_extend('m', {names}, 30)",
        f"worker_postpone('m', {names}, null, null)",
    ):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await c.fetch(f"select hotmesh.{call}", many)
        assert raised.value.sqlstate == TOO_MUCH


statements(
    "send_arrays_of_odd_shape",
    (INVALID, TOO_MUCH, "22P02"),
    "select * from hotmesh.worker_claim('m', '{{charge},{charge}}', '{{a},{a}}', '{{a},{a}}', '{{1},{1}}', 30)",
    "select * from hotmesh.worker_claim('m', '{charge}', '{null}', '{null}', '{1,2}', 30)",
    "select hotmesh.worker_answer('m', '{}', '{a}', '{}', '{}', '{}', '{}')",
    "select hotmesh.worker_answer('m', null, null, null, null, null, null)",
    "select hotmesh.worker_extend('m', null, null, null, 30)",
    "select hotmesh.worker_postpone('m', array[gen_random_uuid()], '{a}', '{0}', '{0}', '{null}')",
    "select hotmesh.worker_extend('', array[gen_random_uuid()], '{a}', '{0}', 30)",
    "select hotmesh.worker_extend(null, array[gen_random_uuid()], '{a}', '{0}', 30)",
    "select hotmesh.worker_extend(repeat('m', 201), array[gen_random_uuid()], '{a}', '{0}', 30)",
)


# -- holding ----------------------------------------------------------------------------------------------


async def give_back_everything(s: Stage) -> None:
    await s.owner.execute(
        "update hotmesh.worker_stream set reserved_by = null, reserved_at = null, visible_at = now() "
        "where app_id = 'shop' and topic = 'charge'"
    )


@harmless
async def hold_more_than_allowed(c: Connection, s: Stage) -> None:
    await asyncio.gather(*(s.work() for _ in range(20)))
    async with s.attacker() as one, s.attacker() as two, s.attacker() as three:
        await asyncio.gather(
            *(claim(each, 2**31 - 1, member=f"m{n}") for n, each in enumerate((one, two, three)))
        )
    held = await s.owner.fetchval(
        "select count(*) from hotmesh.worker_stream where reserved_by like $1 and visible_at > now()",
        s.stolen.role_name.replace("_", "\\_") + "/%",
    )
    assert held == 5
    await give_back_everything(s)


@harmless
async def hold_for_ever_by_extending(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    rows = await eventually(lambda: claim(c, lease=300.0))
    assert await c.fetchval(EXTEND, "m", *named(rows), 300.0) == [True]
    longest = "select extract(epoch from visible_at - reserved_at)::float from hotmesh.worker_stream where job_id = $1"
    assert await s.owner.fetchval(longest, job_id) <= 100
    await s.owner.execute(
        "update hotmesh.worker_stream set reserved_at = reserved_at - interval '101 s' where job_id = $1",
        job_id,
    )
    assert await c.fetchval(EXTEND, "m", *named(rows), 300.0) == [False]
    await give_back_everything(s)


@harmless
async def hold_for_ever_by_giving_back_and_taking_again(c: Connection, s: Stage) -> None:
    """Each time counts as a delivery, and after so many the work is given up."""
    job_id = await s.work()
    for _ in range(21):
        rows = await claim(c)
        if not rows:
            break
        await c.fetchval(POSTPONE, "m", *named(rows), [0.0], [False])
    await eventually(lambda: ended(s, job_id))
    [letter] = await s.mesh.list_dead_letters(job_id=job_id)
    assert "delivered 20 times" in letter.reason
    await s.mesh.discard(letter.id)


@harmless
async def hold_for_ever_by_not_reading(c: Connection, s: Stage) -> None:
    """It is for others within a second, and given up when it is too old."""
    job_id = await s.work()
    for _ in range(3):
        rows = await eventually(lambda: claim(c))
        assert await c.fetchval(POSTPONE, "m", *named(rows), [50.0], [False]) == 1
    rows = await eventually(lambda: claim(s.worker, member="honest"), within=5)
    assert rows[0]["delivery"] == 1
    older = "update hotmesh.worker_stream set created_at = created_at - interval '51 seconds', visible_at = now() where job_id = $1"
    await s.owner.execute(older, job_id)
    rows = await eventually(lambda: claim(c))
    assert await c.fetchval(POSTPONE, "m", *named(rows), [1.0], [False]) == 1
    await eventually(lambda: ended(s, job_id))
    [letter] = await s.mesh.list_dead_letters(job_id=job_id)
    assert "unread" in letter.reason
    await s.mesh.discard(letter.id)


@harmless
async def hold_for_ever_by_failing(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    rows = await eventually(lambda: claim(c))
    for delay in (51.0, -1.0, 1e300, float("inf"), float("nan"), None):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await c.fetchval(POSTPONE, "m", *named(rows), [delay], [True])
        assert raised.value.sqlstate == INVALID
    await s.owner.execute("update hotmesh.worker_stream set attempt = 999 where job_id = $1", job_id)
    assert await c.fetchval(POSTPONE, "m", *named(rows), [50.0], [True]) == 1
    await eventually(lambda: ended(s, job_id))


@harmless
async def move_the_clock(c: Connection, s: Stage) -> None:
    """To take what others hold, and what sleeps."""
    rows = await held_by_another(c, s)
    for moment in ("2099-01-01", "1999-01-01", "infinity", "nonsense"):
        await c.execute(f"set hotmesh.now = '{moment}'")
        assert await claim(c, 5) == []
    await answered_by_its_holder(s, rows)


# -- locks, transactions ----------------------------------------------------------------------------------


@harmless
async def keep_a_transaction_open(c: Connection, s: Stage) -> None:
    """With the row that the engine has to remove; the engine ends the session."""
    job_id = await s.work()
    await c.execute("begin")
    await eventually(lambda: claim(c))
    await s.mesh.scrub(job_id)
    await eventually(c.is_closed)


@harmless
async def keep_a_statement_running(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    running = asyncio.create_task(
        c.fetch(
            "select job_id, pg_sleep(60) from hotmesh.worker_claim('m', '{charge}', '{null}', '{\"{}\"}', '{1}', 30)"
        )
    )
    asleep = "select count(*) from pg_stat_activity where usename = $1 and wait_event = 'PgSleep'"
    await eventually(lambda: s.owner.fetchval(asleep, s.stolen.role_name))
    await s.mesh.scrub(job_id)
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await running


@harmless
async def take_advisory_locks(c: Connection, s: Stage) -> None:
    """Those that names lead to, and those that others are seen to take: the engine ends the session."""
    job_id = await s.mesh.pub("ask", {})
    key = f"hashtextextended('shop' || chr(31) || 'told' || chr(31) || '{job_id}', 7301)"
    with contextlib.suppress(asyncpg.PostgresError):
        await c.execute("select pg_advisory_lock(hashtextextended('hotmesh', 7300))")
        await c.execute(f"select pg_advisory_lock({key})")
        await c.execute(
            "select pg_advisory_lock_shared((classid::bigint << 32) | objid::bigint) from pg_locks "
            "where locktype = 'advisory' and objsubid = 1"
        )
    members = await s.mesh.roll_call(0.5)
    assert {member["engine_id"] for member in members} == {s.mesh.guid_}
    await s.mesh.signal("told", {"id": job_id, "y": 1})
    await eventually(lambda: ended(s, job_id))
    assert (await s.mesh.get_state("ask", job_id)).data == {"y": 1}
    await eventually(c.is_closed)
    assert await s.mesh.activate("1")


@harmless
async def claim_in_a_strict_transaction(c: Connection, s: Stage) -> None:
    await s.work()
    for level in ("repeatable read", "serializable"):
        await c.execute(f"begin isolation level {level}")
        await claim(c)
        await c.execute("rollback")


@harmless
async def claim_and_roll_back(c: Connection, s: Stage) -> None:
    job_id = await s.work()
    await c.execute("begin")
    rows = await eventually(lambda: claim(c))
    await answer(c, rows, '{"y": 666}')
    await c.execute("rollback")
    assert await answer(c, rows, '{"y": 666}') == [False]
    assert await s.mesh.get_status(job_id) == 1


@refused("55000", "42501", "0A000")
async def prepare_a_transaction(c: Connection, s: Stage) -> None:
    await c.execute("begin; prepare transaction 'for ever'")


@harmless
async def keep_a_cursor(c: Connection, s: Stage) -> None:
    await s.work()
    await c.execute(
        "declare mine cursor with hold for "
        "select job_id from hotmesh.worker_claim('m', '{charge}', '{null}', '{\"{}\"}', '{1}', 1)"
    )
    await give_back_everything(s)


# -- notifications ----------------------------------------------------------------------------------------


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

# -- the server --------------------------------------------------------------------------------------------

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


# -- names, settings --------------------------------------------------------------------------------------


async def runs_as_ever(c: Connection, s: Stage) -> Any:
    """Claim and answer, whatever the session is set to."""
    job_id = await s.work()
    rows = await eventually(lambda: claim(c))
    assert await answer(c, rows, '{"y": 1}') == [True]
    await eventually(lambda: ended(s, job_id))
    return rows


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


@pytest.mark.row(307, 308, 310, 311)
@pytest.mark.parametrize("name", list(ATTACKS))
async def test_a_stolen_login_gets_nowhere_with(stage: Stage, name: str) -> None:
    attack = ATTACKS[name]
    try:
        async with asyncio.timeout(40), stage.attacker() as thief:
            if attack.refused:
                with pytest.raises(asyncpg.PostgresError) as raised:
                    await attack.run(thief, stage)
                assert raised.value.sqlstate in attack.refused, repr(raised.value)
                got: Any = raised.value.as_dict()
            else:
                got = await attack.run(thief, stage)
    finally:
        await give_back_everything(stage)
    assert SECRET not in repr([list(map(tuple, got))] if isinstance(got, list) and got and isinstance(got[0], asyncpg.Record) else got)  # fmt: skip
    await stage.finish()


def test_there_are_many_attacks() -> None:
    assert len(ATTACKS) >= 40


async def test_no_worker_needs_more_than_its_login(stage: Stage) -> None:
    """The stage itself: without an attack the stolen login works."""
    async with connected(login(stage.url, stage.stolen)) as worker:
        await runs_as_ever(worker, stage)
