"""The statements that every job needs keep to their indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from tables import APP, Tables, created, make_job, moved

from hotmesh.core.state.job import ActivityRecord, MessageReceipt
from hotmesh.core.state.step import (
    Consumed,
    Message,
    RecordChange,
    Signal,
    Step,
    Timer,
    Wait,
    Work,
)
from hotmesh.postgres import calls, commits, engine_stream, loading
from hotmesh.postgres.calls import MessageCall, SignalCall
from hotmesh.postgres.work import Wanted

pytestmark = pytest.mark.anyio


HOT = ("job", "activity", "worker_stream", "engine_stream", "timer", "wait", "signal")

FILL = f"""
insert into hotmesh.job (app_id, job_id, generation, version, topic, seq, token, status, created_at, updated_at, ended_at)
select '{APP}', 'job-' || n, md5('job-' || n)::uuid, '1', 't', 1, 0, case when n % 10 = 0 then 1 else 0 end,
       now(), now(), case when n % 10 <> 0 then now() end
  from generate_series(1, 50000) as n;
insert into hotmesh.activity (generation, activity_id, dimension, type, state, ended_at)
select generation, 'a', '{{0,0}}', 'worker', 'closed', now() from hotmesh.job;
insert into hotmesh.worker_stream (app_id, topic, generation, activity_id, dimension, job_id, workflow_name, visible_at, created_at)
select app_id, 'topic-' || (length(job_id) % 3), generation, 'a', '{{0,0}}', job_id, 'n', now(), now() from hotmesh.job;
insert into hotmesh.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code,
                                   visible_at, created_at)
select app_id, job_id, generation, 'm1', 'enter', 'a', '{{0}}', 'success', 200, now(), now() from hotmesh.job;
insert into hotmesh.timer (app_id, job_id, generation, activity_id, dimension, due_at, set_at)
select app_id, job_id, generation, 'a', '{{0,0}}', now(), now() from hotmesh.job;
insert into hotmesh.wait (app_id, job_id, generation, activity_id, dimension, topic, key, created_at)
select app_id, job_id, generation, 'a', '{{0,0}}', 'signals', job_id, now() from hotmesh.job;
insert into hotmesh.signal (app_id, topic, key, status, code, created_at, expires_at)
select app_id, 'early', job_id, 'success', 200, now(), now() + interval '1 h' from hotmesh.job;
"""


@asynccontextmanager
async def only_indexes(connection: asyncpg.Connection, what: str) -> AsyncIterator[None]:
    """What is done inside must not scan a hot table from end to end."""
    transaction = connection.transaction()
    await transaction.start()
    before = await scans(connection)
    yield
    after = await scans(connection)
    assert after == before, f"{what} scans {after.keys() - before.keys() or after}"
    await transaction.rollback()


async def scans(connection: asyncpg.Connection) -> dict[str, int]:
    """How often this session has scanned hot tables; only a difference says something."""
    rows = await connection.fetch(
        "select relname, seq_scan from pg_stat_xact_user_tables "
        "where schemaname = 'hotmesh' and seq_scan > 0 and relname = any($1)",
        HOT,
    )
    return {row["relname"]: row["seq_scan"] for row in rows}


async def test_hot_statements_use_their_indexes_on_large_tables(tables: Tables) -> None:
    connection, database, work = tables.connection, tables.database, tables.work
    # First as if the tables had been empty at the last look: the planner then finds a scan cheap.
    await connection.execute("analyze")
    await connection.execute(FILL)
    generation = str(await connection.fetchval("select generation from hotmesh.job where job_id = 'job-10'"))
    job = make_job("job-10", generation=generation)
    answer = Step(
        (moved(job), created(make_job("child"))),
        records=(RecordChange(generation, "b", (0, 0), ActivityRecord("open", type="worker")),),
        work=(Work("job-10", generation, "b", (0, 0), "topic-0", {}, "n"),),
        messages=(Message("enter", "job-20", "new", None, "a"),),
        timers=(Timer("job-10", generation, "b", (0, 0), 1.0),),
        waits=(Wait("job-10", generation, "b", (0, 0), "signals", "new"),),
        signals=(Signal("signals", "job-30", {}),),
        consumed=(Consumed(generation, MessageReceipt("m1")),),
    )
    dropped = Step((moved(job, dropped=True, descend=True),))
    statements: dict[str, Callable[[], Any]] = {
        "a step": lambda: tables.commit(answer),
        "a dropped job": lambda: tables.commit(dropped),
        "claim_work": lambda: work.claim(
            connection,
            "me",
            [Wanted("topic-0", limit=10), Wanted("topic-1", limit=10), Wanted("none", limit=1)],
            30.0,
            1,
        ),
        "lock_due_jobs": lambda: engine_stream.lock_due_jobs(database, connection, 100),
        "load_jobs": lambda: loading.load_jobs(database, connection, ["job-1", "job-2"]),
        "load_records": lambda: loading.load_records(database, connection, [(generation, "a", (0, 0))]),
        "next_event_at": lambda: engine_stream.next_event_at(database, connection),
        "next_work_at": lambda: work.next_at(connection, [Wanted("topic-0"), Wanted("none")]),
        "written": lambda: commits.written(database, connection, ["job-1"]),
        "send_calls": lambda: calls.send_calls(
            database,
            connection,
            [
                SignalCall("signals", ["job-7", "job-8"], {}, "{}", "success", 200, 600.0),
                SignalCall("early", ["job-7"], {}, "{}", "success", 200, 600.0),
                MessageCall("added", "job-10", "m2", {}, "{}", generation, "a", (0, 0)),
                MessageCall("interrupt", "job-20", "interrupt", {}, "{}"),
            ],
            [0.5] * 4,
            "{}",
        ),
        "free_expired_ids": lambda: connection.fetchval(
            "select hotmesh.free_expired_ids($1, '{job-9}')", APP
        ),
        "extend_work": lambda: connection.fetchval(
            "select hotmesh.extend_work('me', array[$1::uuid], '{a}', array['{0,0}'], 30)", generation
        ),
        "answer_work": lambda: connection.fetchval(
            "select hotmesh.answer_work($1, 'me', array[$2::uuid], '{a}', array['{0,0}'], '{success}', '{200}', "
            "array['{}'], '{}')",
            APP,
            generation,
        ),
        "postpone_work": lambda: connection.fetchval(
            "select hotmesh.postpone_work($1, 'me', array[$2::uuid], '{a}', array['{0,0}'], '{1}', '{true}', '{no}', null)",
            APP,
            generation,
        ),
        "postpone_events": lambda: connection.fetchval(
            "select hotmesh.postpone_events($1, $2, 1.0, 5)", APP, generation
        ),
        "bury events": lambda: connection.fetchval(
            "select hotmesh.bury_events($1, 'job-10', $2, 'why')", APP, generation
        ),
    }
    for statistics in ("of empty tables", "as they are"):
        for name, statement in statements.items():
            async with only_indexes(connection, f"{name} with statistics {statistics}"):
                await statement()
        await connection.execute("analyze")
