"""What upkeep reads: in proportion to what it deletes, whatever else is kept."""

from __future__ import annotations

import asyncpg
import pytest
from tables import APP, Tables, created, make_job

from harness import connected
from hotmesh.core.state.step import JobChange, Step
from hotmesh.runtime.upkeep.dba import DBA

pytestmark = pytest.mark.anyio

KEPT = 100_000

FEW = 10_000

FILL = f"""
insert into hotmesh.app (app_id) values ('{APP}');
insert into hotmesh.job (
    app_id, job_id, generation, version, topic, seq, token, status, expire, created_at, updated_at, ended_at, expires_at)
select '{APP}', 'job-' || i, md5('job-' || i)::uuid, '1', 't', 2, 0, 0, 864000, at, at, at, at + interval '10 days'
  from generate_series(1, {KEPT}) as i, lateral (select now() - interval '5 days' + i * interval '1 s' as at) as t;
insert into hotmesh.activity (generation, activity_id, dimension, type, state, ended_at)
select generation, 'a', '{{0,0}}', 'worker', 'closed', now() from hotmesh.job;
"""

LOOK = f"select hotmesh.prune_jobs('{APP}', 60, null, false, 10000)"


async def buffers(connection: asyncpg.Connection, statement: str, *arguments: object) -> tuple[int, int]:
    """What the statement answers, and how many pages of the tables and their indexes it reads."""
    pages = (
        "select sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0))::integer "
        "from pg_statio_user_tables where schemaname = 'hotmesh'"
    )
    await connection.execute("select pg_stat_force_next_flush()")
    before = await connection.fetchval(pages)
    answer = await connection.fetchval(statement, *arguments)
    await connection.execute("select pg_stat_force_next_flush()")
    return answer, await connection.fetchval(pages) - before


@pytest.mark.parametrize("statistics", ["of empty tables", "as they are"])
async def test_a_look_that_finds_nothing_reads_nothing_of_what_is_kept(
    any_database_url: str, statistics: str
) -> None:
    async with connected(any_database_url) as connection:
        await connection.execute("analyze;" + FILL)
        # As autovacuum does when pages are full.
        await connection.execute("select brin_summarize_new_values('hotmesh.job_expiry')")
        if statistics == "as they are":
            await connection.execute("vacuum analyze hotmesh.job")
        found, read = await buffers(connection, LOOK)

        assert (found, read <= 60) == (0, True), read


async def test_the_step_that_ends_a_job_stays_in_its_page(any_database_url: str) -> None:
    """That no index has to be written is half of what such a step costs."""
    async with connected(any_database_url) as connection:
        await connection.execute("insert into hotmesh.app (app_id) values ($1)", APP)
        tables = Tables(connection, any_database_url)
        for number in range(5):
            job = make_job(f"job-{number}", expire=60.0)
            await tables.commit(Step((created(job),)))
            ended = make_job(job.job_id, generation=job.generation, seq=2, status=0, expire=60.0)
            await tables.commit(Step((JobChange(ended, created=False, expected_seq=1, ended=True),)))
        await connection.execute("select pg_stat_force_next_flush()")
        updates = await connection.fetchrow(
            "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'job'"
        )

        assert updates is not None
        assert tuple(updates) == (5, 5)
        assert await connection.fetchval("select count(expires_at) from hotmesh.job") == 5


async def test_a_batch_of_strip_jobs_reads_what_it_strips(any_database_url: str) -> None:
    """It goes on where the one before has ended, and passes over what was stripped once."""
    few = FILL.replace(str(KEPT), str(FEW))
    strip = f"select jobs from hotmesh.strip_jobs('{APP}', null, false, 1000)"
    async with connected(any_database_url) as connection:
        await connection.execute("analyze;" + few)
        await connection.execute("vacuum analyze hotmesh.job")
        for _ in range(3):
            found, read = await buffers(connection, strip)

            assert (found, read <= 20_000) == (1_000, True), read
        assert await connection.fetchval("select count(*) from hotmesh.activity") == FEW - 3_000
        stripped = await connection.fetch("select job_id from hotmesh.job where pruned_at is not null")

        assert {row["job_id"] for row in stripped} == {f"job-{number}" for number in range(1, 3_001)}


async def test_pruning_of_attributes_ends_with_every_job(database_url: str) -> None:
    """Also where an earlier one was left in the middle, and what it has passed has come to be complete since."""
    async with connected(database_url) as connection:
        await connection.execute(
            FILL.replace(str(KEPT), str(FEW))
            + "update hotmesh.job set status = 1, ended_at = null where job_id = 'job-1'"
        )
        batch = "select marked, more from hotmesh.prune($1, p_attributes => true, p_limit => 4000)"
        assert tuple(await connection.fetchrow(batch, APP) or ()) == (4_000, True)
        await connection.execute("update hotmesh.job set status = 0, ended_at = now() where job_id = 'job-1'")

        pruned = await DBA.prune(APP, database_url, attributes=True)

        assert pruned.marked == FEW - 4_000
        assert await connection.fetchval("select count(*) from hotmesh.job where pruned_at is null") == 0
        assert await connection.fetchval("select count(*) from hotmesh.activity") == 0


async def test_calls_of_prune_until_there_is_no_more_go_through_all_jobs(database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute(FILL.replace(str(KEPT), str(FEW)))
        batch = "select marked, more from hotmesh.prune($1, p_attributes => true, p_limit => 3000)"
        found = [tuple(await connection.fetchrow(batch, APP) or ()) for _ in range(4)]

        assert sum(marked for marked, _ in found) == FEW
        assert [more for _, more in found] == [True, True, True, False]


QUEUE = f"""
insert into hotmesh.worker_stream (app_id, topic, generation, activity_id, dimension, job_id, workflow_name, visible_at, created_at)
select '{APP}', 't', gen_random_uuid(), 'a', '{{0,0}}', 'job-' || i, 'name', now() - i * interval '1 ms', now()
  from generate_series(1, {KEPT}) as i;
insert into hotmesh.worker_stream (
    app_id, topic, generation, activity_id, dimension, job_id, workflow_name, visible_at, created_at, reserved_by, delivery)
select '{APP}', 't', gen_random_uuid(), 'a', '{{0,0}}', 'held-' || i, 'name', now() + interval '1 h', now(), 'somebody', 1
  from generate_series(1, 1000) as i;
"""

NAMED = {
    "claim_work": f"select count(*) from hotmesh.claim_work('{APP}', 'me', '{{t}}', '{{100}}', 30, 1, '{{absent}}', '{{null}}')",
    "next_work_at": f"select hotmesh.next_work_at('{APP}', '{{t}}', '{{absent}}', '{{null}}', null, 1)",
}


@pytest.mark.parametrize("statistics", ["of empty tables", "as they are"])
async def test_who_looks_for_a_name_does_not_read_what_waits_under_others(
    any_database_url: str, statistics: str
) -> None:
    async with connected(any_database_url) as connection:
        await connection.execute("analyze;" + QUEUE)
        if statistics == "as they are":
            await connection.execute("vacuum analyze hotmesh.worker_stream")
        for name, statement in NAMED.items():
            await connection.fetchval(statement)
            found, read = await buffers(connection, statement)

            assert (found or 0, read <= 60) == (0, True), (name, read)


async def test_lapsed_work_of_a_name_is_found_beside_a_long_queue(database_url: str) -> None:
    claim = f"select job_id, delivery from hotmesh.claim_work('{APP}', 'me', '{{t}}', '{{2}}', 30, 1, $1, $2)"
    async with connected(database_url) as connection:
        await connection.execute(QUEUE.replace(str(KEPT), str(FEW)))
        await connection.execute(
            "update hotmesh.worker_stream set visible_at = now(), workflow_name = 'other' where job_id = 'held-7'"
        )
        await connection.execute(
            "update hotmesh.worker_stream set visible_at = now() where job_id = 'held-9'"
        )

        named = await connection.fetch(claim, ["other"], [None])
        rest = await connection.fetch(claim, [None], ["{other}"])

    assert [tuple(row) for row in named] == [("held-7", 2)]
    assert sorted(tuple(row) for row in rest) == [("held-9", 2), (f"job-{FEW}", 1)]
