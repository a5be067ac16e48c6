"""What upkeep reads: in proportion to what it deletes, whatever else is kept."""

from __future__ import annotations

import asyncpg
import pytest
from tables import APP, Tables, created, make_job

from harness import connected
from hotmesh.core.state.step import JobChange, Step

pytestmark = pytest.mark.anyio

KEPT = 100_000

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
