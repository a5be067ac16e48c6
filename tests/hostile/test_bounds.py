"""The bounds of a worker login hold by every route: how much it holds, for how long, what it sets, what it makes, how it is named."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import asyncpg
import pytest
from guarded import login, provision
from stage import ADD, BURY, EXTEND, POSTPONE, Stage, add, answer, claim, named, staged

from harness import connected, eventually
from hotmesh import ConfigError, HotMesh, rotate_worker_password
from hotmesh.postgres import migrate, sql
from hotmesh.postgres.connect.failures import StatementError
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.runtime.limits import MemberLimits
from hotmesh.runtime.upkeep.stalled_logins import StalledLoginLimits

pytestmark = pytest.mark.anyio


OFTEN = MemberLimits(stalled_logins=StalledLoginLimits(look_period=0.2, idle_period=0.2))
"""Of a member that looks often, and lets transactions be open for as long as ever."""


@pytest.fixture
async def stage(guarded_url: str) -> AsyncIterator[Stage]:
    async with connected(guarded_url) as owner:  # the tests of this module share a database
        await owner.execute(
            """
            delete from hotmesh.worker_stream; delete from hotmesh.job; delete from hotmesh.engine_stream;
            alter table hotmesh.worker_credential_audit disable trigger only_added;
            delete from hotmesh.worker_credential_audit;
            alter table hotmesh.worker_credential_audit enable trigger only_added;
            """
        )
    async with staged(guarded_url, OFTEN) as made:
        yield made


async def lapse(s: Stage) -> None:
    """What is held is for others, before what nobody has held yet."""
    await s.owner.execute("update hotmesh.worker_stream set visible_at = now() where reserved_by is not null")


async def held(s: Stage) -> int:
    return int(
        await s.owner.fetchval(
            "select count(*) from hotmesh.worker_stream where reserved_at is not null and visible_at > now()"
        )
    )


# -- how much ------------------------------------------------------------------------------------------------


async def test_what_it_takes_back_counts_as_held(stage: Stage) -> None:
    await asyncio.gather(*(stage.work() for _ in range(20)))
    topic = await stage.owner.fetchval("select min(topic) from hotmesh.worker_stream")
    async with stage.attacker() as c:
        rows: list[Any] = []
        for _ in range(3):
            rows += await claim(c, 5)
            await lapse(stage)
            # Put aside, or the next claim would get the same again.
            await stage.owner.execute(
                "update hotmesh.worker_stream set topic = 'aside' where reserved_by is not null"
            )
        await stage.owner.execute("update hotmesh.worker_stream set topic = $1 where topic = 'aside'", topic)
        assert len({row["job_id"] for row in rows}) == 15
        assert sum(await c.fetchval(EXTEND, "m", *named(rows), 30.0)) == 5
        assert await held(stage) == 5
        assert await claim(c, 5) == []


async def test_what_is_held_by_claims_and_by_extensions_is_counted_together(stage: Stage) -> None:
    await asyncio.gather(*(stage.work() for _ in range(20)))
    async with stage.attacker() as one, stage.attacker() as two:
        lapsed = await claim(one, 5, member="one")
        await lapse(stage)
        await stage.owner.execute(  # so that the next claim gets others
            "update hotmesh.worker_stream set visible_at = now() + interval '2 hours' where reserved_by is not null"
        )
        await stage.owner.execute("update hotmesh.worker_credential set most_held = 8 where max_payload > 0")
        others = await claim(two, 5, member="two")
        assert len(others) == 3
        await stage.owner.execute(
            "update hotmesh.worker_stream set visible_at = now() where visible_at > now() + interval '1 hour'"
        )
        assert sum(await one.fetchval(EXTEND, "one", *named(lapsed), 30.0)) == 5
        assert await held(stage) == 8
        assert await two.fetchval(EXTEND, "two", *named(others), 30.0) == [True] * 3
        assert await claim(two, 5, member="two") == []


async def test_sessions_that_extend_at_once_stay_within_the_bound(stage: Stage) -> None:
    await asyncio.gather(*(stage.work() for _ in range(20)))
    async with stage.attacker() as one, stage.attacker() as two, stage.attacker() as three:
        taken = []
        for number, each in enumerate((one, two, three)):
            taken.append(await claim(each, 5, member=f"m{number}"))
            await stage.owner.execute(
                "update hotmesh.worker_stream set visible_at = now() - interval '1 s' * (1 + random()) where reserved_at is not null"
            )
        for level in ("read committed", "repeatable read"):
            await asyncio.gather(
                *(
                    extend(each, f"m{number}", taken[number], level)
                    for number, each in enumerate((one, two, three))
                )
            )
            assert await held(stage) <= 5


async def extend(c: asyncpg.Connection, member: str, rows: list[Any], level: str) -> None:
    with contextlib.suppress(asyncpg.SerializationError):
        await c.execute(f"begin isolation level {level}")
        try:
            await c.fetchval(EXTEND, member, *named(rows), 30.0)
            await asyncio.sleep(0.1)
        finally:
            await c.execute("commit")


async def test_claims_with_an_old_view_of_the_tables_stay_within_the_bound(stage: Stage) -> None:
    await asyncio.gather(*(stage.work() for _ in range(20)))
    async with stage.attacker() as one, stage.attacker() as two:
        await two.execute("begin isolation level repeatable read")
        await two.fetchval("select 1")
        await two.fetchrow("select * from hotmesh.worker_hello()")
        assert len(await claim(one, 5, member="one")) == 5
        with pytest.raises(asyncpg.SerializationError):
            await claim(two, 5, member="two")
        await two.execute("rollback")
        assert await held(stage) == 5


# -- for how long --------------------------------------------------------------------------------------------

HOLD = 1.0


async def in_turns(s: Stage, take: Any, until: asyncio.Event, counts: list[int]) -> None:
    """Take work, keep it for a moment, and roll back, again and again."""
    while not until.is_set():
        # Its session is ended if it waits for too long.
        with contextlib.suppress(asyncpg.InterfaceError, OSError, asyncpg.AdminShutdownError):
            async with s.attacker() as c:
                while not until.is_set():
                    await _take_once(c, take, counts)


async def _take_once(c: asyncpg.Connection, take: Any, counts: list[int]) -> None:
    await c.execute("begin")
    try:
        took = await take(c)
        counts.append(took)
        await asyncio.sleep(HOLD if took else 0.05)
    except asyncpg.AdminShutdownError:
        raise
    except asyncpg.PostgresError:
        await asyncio.sleep(0.05)
    await c.execute("rollback")


async def claim_all(c: asyncpg.Connection) -> int:
    return len(await claim(c, 1000))


async def claim_behind_a_commit(c: asyncpg.Connection) -> int:
    """What was committed in between does not excuse what was rolled back."""
    await c.execute("rollback")
    await claim(c, 0)
    await c.execute("begin")
    return len(await claim(c, 1000))


async def claim_twice(c: asyncpg.Connection) -> int:
    """The second one looks as if all had begun just now."""
    found = len(await claim(c, 1000))
    await asyncio.sleep(HOLD)
    await claim(c, 0)
    return found


async def claim_within_savepoints(c: asyncpg.Connection) -> int:
    await c.execute("savepoint one")
    found = len(await claim(c, 1000))
    await asyncio.sleep(HOLD)
    await c.execute("rollback to savepoint one")
    return found


@pytest.mark.parametrize("take", [claim_all, claim_behind_a_commit, claim_twice, claim_within_savepoints])
async def test_claims_that_are_rolled_back_in_turns_keep_work_from_nobody_for_long(
    stage: Stage, take: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await stage.work()
    done = asyncio.Event()
    counts: list[int] = []
    attackers = [asyncio.create_task(in_turns(stage, take, done, counts)) for _ in range(3)]
    try:
        await eventually(lambda: sum(map(bool, counts)) >= 3, what="an attack that goes well")
        rows: list[Any] = []

        async def honest() -> bool:
            rows.extend(await claim(stage.worker, 10, member="honest"))
            await asyncio.sleep(0.1)
            return len(rows) >= 3

        await eventually(honest, within=40, what="work for others")
        assert all(await answer(stage.worker, rows, '{"y": 1}', member="honest"))
        audit = "select count(*) from hotmesh.worker_credential_audit where role_name = $1 and action = 'restrained'"

        async def traced() -> Any:
            # The honest one may have been quicker than the bound: there has to be something to take.
            if not await stage.owner.fetchval("select count(*) from hotmesh.worker_stream"):
                await stage.work()
            return await stage.owner.fetchval(audit, stage.stolen.role_name)

        await eventually(traced, within=30, what="a trace")
        await eventually(lambda: "worker login restrained" in caplog.text, what="a warning")
    finally:
        done.set()
        await asyncio.gather(*attackers)


async def test_what_has_lapsed_cannot_be_kept_by_rolling_back_either(stage: Stage) -> None:
    """By any of the procedures that lock it."""
    await stage.work()
    async with stage.attacker() as c:
        rows = await eventually(lambda: claim(c))
        await stage.owner.execute("update hotmesh.worker_stream set visible_at = now() - interval '1 minute'")
        mark = "select last_value from hotmesh.worker_mark_" + str(
            await stage.owner.fetchval(
                "select id from hotmesh.worker_credential where role_name = $1", stage.stolen.role_name
            )
        )
        for statement, arguments in (
            (EXTEND, ("m", *named(rows), 30.0)),
            (POSTPONE, ("m", *named(rows), [1.0], [True])),
            (BURY, ("m", *(column[0] for column in named(rows)), "x", "{}")),
        ):
            before = await stage.owner.fetchval(mark)
            await c.execute("begin")
            await c.fetchval(statement, *arguments)
            await c.execute("rollback")
            assert await stage.owner.fetchval(mark) > before, statement
        before = await stage.owner.fetchval(mark)
        await c.execute("begin")
        assert await answer(c, rows) == [True]
        await c.execute("rollback")
        assert await stage.owner.fetchval(mark) > before


async def test_an_honest_login_pays_nothing(stage: Stage) -> None:
    async with connected(login(stage.url, stage.honest)) as c:
        for _ in range(100):
            await stage.work()
            rows = await claim(c, 5, member="h")
            assert all(await answer(c, rows, '{"y": 1}', member="h"))
        mark = await stage.owner.fetchval(
            "select m.mark & 262143 from hotmesh.worker_mark as m join hotmesh.worker_credential as c on c.id = m.credential_id "
            "where c.role_name = $1",
            stage.honest.role_name,
        )
        assert mark == 0


# -- what it sets --------------------------------------------------------------------------------------------

SETTINGS = {
    "statement_timeout": "1",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "search_path": "nowhere",
    "client_encoding": "LATIN1",
    "datestyle": "German",
    "timezone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "enable_indexscan": "off",
    "work_mem": "64kB",
    "role": "none",
    "local_preload_libraries": "nothing",
}


@pytest.mark.parametrize("reset", ["rotate", "provision"])
async def test_what_a_login_has_set_for_itself_ends_with_its_password(stage: Stage, reset: str) -> None:
    name = stage.stolen.role_name
    database = await stage.owner.fetchval("select current_database()")
    async with stage.attacker() as c:  # they count for sessions to come
        for setting, value in SETTINGS.items():
            for where in ("", f" in database {database}", " in database postgres"):
                await c.execute(f'alter role "{name}"{where} set {setting} = "{value}"')
    if reset == "rotate":
        made = await rotate_worker_password(stage.url, name)
    else:
        made = await provision(stage.url, ["charge"], max_held=5)
    assert made.role_name == name
    left = "select count(*) from pg_db_role_setting as s join pg_roles as r on r.oid = s.setrole where r.rolname = $1"
    assert await stage.owner.fetchval(left, name) == 0
    await stage.work()
    async with connected(login(stage.url, made)) as c:
        await c.fetchval("select pg_sleep(0.05)")
        rows = await eventually(lambda: claim(c))
        assert await answer(c, rows, '{"y": 1}') == [True]


# -- what it makes -------------------------------------------------------------------------------------------

OBJECTS = (
    "create temp view answers as select * from hotmesh.worker_hello()",
    "create temp view claims as select * from hotmesh.worker_claim('m', '{}', '{}', '{}', '{}', 30)",
    "create temp view jobs as select * from hotmesh.job",
    "create temp table mine (work hotmesh.worker_stream, jobs hotmesh.job[])",
    "create function pg_temp.mine() returns hotmesh.job language plpgsql as 'begin return null; end'",
    "create temp table defaults (x text default hotmesh.worker_channel('x'))",
)

CHANGE = """
alter table mesh.job add column more double precision default random();
alter table mesh.worker_stream alter column trace_id type varchar;
drop function mesh.worker_hello();
drop function mesh.worker_channel(text);
"""


async def test_what_a_login_makes_of_our_objects_blocks_no_migration(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sql.read
    changed = {**read("migrations"), "0099_change": CHANGE}
    monkeypatch.setattr(sql, "read", lambda kind: changed if kind == "migrations" else read(kind))
    gone = asyncio.Event()

    async def come_back() -> None:
        """As fast as it can."""
        while not gone.is_set():
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with stage.attacker() as c:
                    for statement in OBJECTS:
                        await c.execute(statement)
                    await c.execute("select pg_sleep(60)")

    async with stage.attacker() as idle:
        for statement in OBJECTS:
            await idle.execute(statement)
        attackers = [asyncio.create_task(come_back()) for _ in range(2)]
        try:
            done = await migrate.migrate(ConnectionSource(stage.url), "hotmesh")
        finally:
            gone.set()
            for attacker in attackers:
                attacker.cancel()
            await asyncio.gather(*attackers, return_exceptions=True)
    assert [migration.version for migration in done.migrations] == [99]
    async with stage.attacker() as c:
        assert await c.fetchval("select app_id from hotmesh.worker_hello()") == "shop"
    # For the tests that come.
    await stage.owner.execute("delete from hotmesh.schema_migration where version = 99")
    await stage.owner.execute("alter table hotmesh.job drop column more")
    await stage.owner.execute("alter table hotmesh.worker_stream alter column trace_id type text")


async def test_logins_may_use_the_schema_after_a_migration_that_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sql.read
    await stage.owner.execute("create view public.kept as select trace_id from hotmesh.worker_stream")
    changed = {**read("migrations"), "0099_change": CHANGE}
    monkeypatch.setattr(sql, "read", lambda kind: changed if kind == "migrations" else read(kind))
    try:
        with pytest.raises(StatementError, match="kept"):
            await migrate.migrate(ConnectionSource(stage.url), "hotmesh")
    finally:
        await stage.owner.execute("drop view public.kept")
    async with stage.attacker() as c:
        assert await c.fetchval("select app_id from hotmesh.worker_hello()") == "shop"


# -- how it is named -----------------------------------------------------------------------------------------


async def test_two_logins_are_never_the_same_holder(stage: Stage) -> None:
    names = ("mix", "mix/a", "mix%2Fa", "mix/", "mix%")
    made = {name: await provision(stage.url, ["charge"], role_name=name, max_held=5) for name in names}
    await asyncio.gather(*(stage.work() for _ in range(len(names))))
    rows: dict[str, Any] = {}
    for name, member in zip(names, ("a/b", "b", "b", "a/b", "2Fa/b"), strict=True):
        async with connected(login(stage.url, made[name])) as c:
            [rows[name]] = await eventually(partial(claim, c, member=member))
    holders = await stage.owner.fetch(
        "select distinct reserved_by from hotmesh.worker_stream where reserved_at is not null"
    )
    assert len(holders) == len(names)
    for name in names:
        for other in names:
            if other != name:
                async with connected(login(stage.url, made[name])) as c:
                    for member in ("a/b", "b", "2Fa/b", "/b", "a"):
                        assert await answer(c, [rows[other]], member=member) == [False]
                        assert await c.fetchval(EXTEND, member, *named([rows[other]]), 30.0) == [False]
                    assert await add(c, rows[other]) == "closed"


async def test_a_member_is_never_named_as_what_a_login_holds(database_url: str) -> None:
    with pytest.raises(ConfigError, match="no /"):
        async with HotMesh.init("shop", connection=database_url, guid="hmsh_wrk_x/m"):
            pass


# -- answers that look encoded -------------------------------------------------------------------------------

ENCODED = ('"hotmesh.codec:x"', ' \t\n"\\u0068otmesh.codec:2026.x"', '"hotmesh.codec:\\u0000"')


@pytest.mark.parametrize("text", ENCODED)
async def test_an_answer_that_nobody_could_read_is_refused(stage: Stage, text: str) -> None:
    job_id = await stage.work()
    async with stage.attacker() as c:
        rows = await eventually(lambda: claim(c))
        for status, code in (("success", 200), ("error", 500), ("pending", 202)):
            with pytest.raises(asyncpg.PostgresError, match="looks encoded") as raised:
                await answer(c, rows, text, status=status, code=code)
            assert raised.value.sqlstate == "22023"
        [generation], [activity], [dimension] = named(rows)
        with pytest.raises(asyncpg.PostgresError, match="looks encoded"):
            await c.fetchval(BURY, "m", generation, activity, dimension, "x", text)
        assert await answer(c, rows, '{"y": 1}', status="pending", code=202) == [True]
        with pytest.raises(asyncpg.PostgresError, match="looks encoded"):
            await c.fetchval(ADD, job_id, generation, activity, dimension, "g", "success", 200, text)
        assert await add(c, rows[0], json.dumps("hotmesh.plain:hotmesh.codec:x")) == "sent"
    await eventually(lambda: _ended(stage, job_id))


async def _ended(s: Stage, job_id: str) -> bool:
    return await s.mesh.get_status(job_id) == 0
