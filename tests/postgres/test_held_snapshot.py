"""While a session holds a snapshot, what was handled stays in the tables: no hot statement may read through it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import asyncpg
import pytest
from tables import APP, NONE, Tables, created, everything, make_job, moved

from harness import connected
from hotmesh.core.state.job import MessageReceipt, TimerReceipt, WorkReceipt
from hotmesh.core.state.step import ActivityInstance, Consumed, Step

pytestmark = pytest.mark.anyio

GONE = 5_000
"""Rows of each queue that were handled under the snapshot."""

FEW = 40
"""Buffers that a statement may read which finds what it looks for by an index, beyond what its first plan takes."""

QUEUES = ["worker_stream", "worker_pending", "engine_stream", "timer", "wait"]

FILL = f"""
insert into hotmesh.job (app_id, job_id, generation, version, topic, seq, token, status, created_at, updated_at)
select 'app', 'job-' || i, gen_random_uuid(), '1', 't', 1, 0, 1, now(), now() from generate_series(1, {GONE}) as i;
insert into hotmesh.worker_stream (app_id, topic, generation, activity_id, dimension, job_id, workflow_name, visible_at, created_at)
select 'app', 't', gen_random_uuid(), 'a', '{{0,0}}', 'job-' || i, 'n', now() - interval '1 s' - i * interval '1 ms', now()
  from generate_series(1, {GONE}) as i;
insert into hotmesh.engine_stream (
    app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, visible_at, created_at)
select 'app', 'job-' || i, gen_random_uuid(), 'm', 'answer', 'a', '{{0,0}}', 'success', 200,
       now() - interval '1 s' - i * interval '1 ms', now() from generate_series(1, {GONE}) as i;
insert into hotmesh.timer (app_id, job_id, generation, activity_id, dimension, due_at, set_at)
select 'app', 'job-' || i, gen_random_uuid(), 'a', '{{0,0}}', now() - interval '1 s' - i * interval '1 ms', now()
  from generate_series(1, {GONE}) as i;
insert into hotmesh.worker_pending (app_id, role_name, topic, job_id, generation, activity_id, dimension, created_at)
select 'app', 'r', 't', 'job-' || i, gen_random_uuid(), 'a', '{{0,0}}', now() from generate_series(1, {GONE}) as i;
insert into hotmesh.wait (app_id, job_id, generation, activity_id, dimension, topic, key, created_at)
select 'app', 'job-' || i, gen_random_uuid(), 'a', '{{0,0}}', 't', 'k' || i, now() from generate_series(1, {GONE}) as i;
"""  # fmt: skip

KEYS = "array['7f0e8cc6-4690-4d69-8ae3-0b5b0d0d6c11'::uuid], '{a}', array['{0,0}']"
"""One row that is not there."""

ROW = '[[-1, "7f0e8cc6-4690-4d69-8ae3-0b5b0d0d6c11", "a", "{0,0}"]]'
"""The same as a row of a section."""

STATEMENTS = {
    "claim_work": "select * from hotmesh.claim_work('app', 'me', '{t}', '{100}', 30, 1, '{null}', '{null}', null, array[$1::timestamptz])",
    "named claim_work": "select * from hotmesh.claim_work('app', 'me', '{t}', '{100}', 30, 1, '{n}', '{null}', null, array[$1::timestamptz])",
    "next_work_at": "select hotmesh.next_work_at('app', '{t}', '{null}', '{null}', array[$1::timestamptz], 1)",
    "named next_work_at": "select hotmesh.next_work_at('app', '{t}', '{n}', '{null}', array[$1::timestamptz], 1)",
    "lock_due_jobs": "select * from hotmesh.lock_due_jobs('app', 100, null, $1)",
    "next_event_at": "select hotmesh.next_event_at('app', $1, 1)",
    "answer_work": "select hotmesh.answer_work('app', 'me', " + KEYS + ", '{success}', '{200}', '{1}', '{}')",
    "extend_work": "select hotmesh.extend_work('me', " + KEYS + ", 30)",
    "postpone_work": "select hotmesh.postpone_work('app', 'me', " + KEYS + ", '{1}', '{true}', '{no}', null)",
    "reserve_work": "select hotmesh.reserve_work('me', 1, 30, '" + ROW + "', now())",
}  # fmt: skip


@pytest.fixture
async def held(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to tables whose rows were all deleted while another session holds a snapshot."""
    async with connected(database_url) as holder, connected(database_url) as connection:
        # As commit_steps does, of which reserve_work is a part.
        await connection.execute(
            "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off"
        )
        await holder.execute("begin isolation level repeatable read; select from hotmesh.app")
        await connection.execute(FILL)
        for table in QUEUES:
            await connection.execute(f"delete from hotmesh.{table}")
            # As autovacuum would: nothing can be removed, and the planner hears that the table is empty.
            await connection.execute(f"vacuum analyze hotmesh.{table}")
        yield connection


async def buffers(connection: asyncpg.Connection, statement: str, *arguments: Any) -> int:
    """What the statement reads, once it is planned."""
    found: list[dict[str, Any]] = []
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        text = await connection.fetchval(f"explain (analyze, buffers, format json) {statement}", *arguments)
        await transaction.rollback()
        found = json.loads(text)
    plan = found[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("name", STATEMENTS)
async def test_what_is_gone_is_not_read(held: asyncpg.Connection, name: str) -> None:
    statement = STATEMENTS[name]
    moment: datetime = await held.fetchval("select now()")

    assert await buffers(held, statement, *([moment] if "$1" in statement else [])) <= FEW


async def test_a_look_from_the_beginning_reads_what_is_gone_but_once(held: asyncpg.Connection) -> None:
    whole = STATEMENTS["claim_work"].replace("array[$1::timestamptz]", "null")
    entries = await held.fetchval("select pg_relation_size('hotmesh.worker_stream') / 8192")

    assert entries < await buffers(held, whole) < 2 * GONE


async def test_a_commit_reads_nothing_that_is_gone(held: asyncpg.Connection, database_url: str) -> None:
    await held.execute("insert into hotmesh.app (app_id) values ($1)", APP)
    tables = Tables(held, database_url)
    job = make_job("new")
    await tables.commit(everything(created(job)), local=True)
    place = ("a", (0, job.seq))
    receipts = (WorkReceipt(*place), TimerReceipt(*place), MessageReceipt(f"m{job.seq}"))
    await held.execute("select pg_stat_force_next_flush()")
    before = await read(held)
    committed = await tables.commit(
        Step((moved(job),), consumed=tuple(Consumed(job.generation, one) for one in receipts))
    )
    await held.execute("select pg_stat_force_next_flush()")

    assert committed.refused == {}
    assert await tables.rows(job.generation) == {**NONE, "activity": 1, "wait": 1}
    assert await read(held) - before <= 2 * FEW


async def test_the_end_of_an_activity_reads_nothing_that_is_gone(
    held: asyncpg.Connection, database_url: str
) -> None:
    await held.execute("insert into hotmesh.app (app_id) values ($1)", APP)
    tables = Tables(held, database_url)
    job = make_job("new")
    await tables.commit(everything(created(job)), local=True)
    await held.execute("select pg_stat_force_next_flush()")
    before = await read(held)
    ended = ActivityInstance(job.generation, "a", (0, job.seq))
    committed = await tables.commit(Step((moved(job),), released=(ended,)))
    await held.execute("select pg_stat_force_next_flush()")

    assert committed.refused == {}
    assert await tables.rows(job.generation) == {**NONE, "activity": 1, "engine_stream": 1}
    assert await read(held) - before <= 2 * FEW


async def read(connection: asyncpg.Connection) -> int:
    """Buffers of the queues that have been read so far."""
    return int(
        await connection.fetchval(
            "select sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read) from pg_statio_user_tables "
            "where relname = any ($1)",
            QUEUES,
        )
    )
