"""By holding: work, locks and transactions."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest
from asyncpg import Connection
from stage import EXTEND, POSTPONE, Stage, answer, claim, named

from attacks.attack import (
    INVALID,
    answered_by_its_holder,
    ended,
    give_back_everything,
    harmless,
    held_by_another,
    refused,
)
from harness import eventually

# -- holding ------------------------------------------------------------------------------------------------


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


# -- locks, transactions ------------------------------------------------------------------------------------


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
