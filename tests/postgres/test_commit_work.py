"""What a commit does for each of its steps, by how many there are: it must not grow."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from tables import APP, Tables, everything, make_job

from harness import connected
from hotmesh.core.state.job import Job, MessageReceipt, TimerReceipt, WorkReceipt
from hotmesh.core.state.step import ActivityInstance, Consumed, JobChange, Step
from hotmesh.postgres.sections import COMMIT
from hotmesh.postgres.steps import Batch

pytestmark = pytest.mark.anyio

OTHERS = 800
"""Jobs that are open meanwhile: their rows are none of a commit's business."""


@pytest.fixture
async def any_tables(any_database_url: str) -> AsyncIterator[Tables]:
    async with connected(any_database_url) as connection:
        await connection.execute("insert into hotmesh.app (app_id) values ($1)", APP)
        yield Tables(connection, any_database_url)


def begins(job: Job) -> Step:
    return everything(JobChange(job, created=True))


def goes_on(job: Job) -> Step:
    """Consumes and releases what `begins` has left, and leaves the same at the next address, with a child."""
    moved = make_job(job.job_id, generation=job.generation, seq=2, data={"x": 1})
    child = make_job(f"{job.job_id}-child")
    step = everything(JobChange(moved, False, 1))
    receipts = (WorkReceipt("a", (0, 1)), MessageReceipt("m1"), TimerReceipt("a", (0, 1)))
    return Step(
        (*step.jobs, JobChange(child, created=True)),
        records=step.records,
        work=step.work,
        messages=step.messages,
        timers=step.timers,
        waits=step.waits,
        signals=step.signals,
        consumed=tuple(Consumed(job.generation, receipt) for receipt in receipts),
        released=(ActivityInstance(job.generation, "a", (0, 1)),),
    )


async def entries_read(tables: Tables) -> int:
    """How many entries of indexes this session has read; only a difference says something."""
    read = await tables.connection.fetchval(
        "select sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) from pg_index as i "
        "join pg_class as c on c.oid = i.indexrelid where c.relnamespace = 'hotmesh'::regnamespace"
    )
    return int(read)


async def work_of(tables: Tables, steps: list[Step]) -> tuple[int, int]:
    """Pages that a commit of these steps touches, and entries of indexes that it reads."""
    batch = Batch()
    for number, step in enumerate(steps):
        batch.add(number, step, local=[True] * len(step.work), send_delay=lambda _: 0.0)
    arguments = batch.arguments(APP, "me", 0, 1, 30.0, None)
    statement = tables.database.bound(COMMIT)
    async with tables.connection.transaction():
        before = await entries_read(tables)
        explained = await tables.connection.fetchval(
            f"explain (analyze, buffers, format json) {statement}", *arguments
        )
        entries = await entries_read(tables) - before
    plan = json.loads(explained)[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], entries


@pytest.mark.parametrize("statistics", ["none", "of empty tables", "as they are"])
async def test_the_work_of_a_step_does_not_grow_with_the_batch(any_tables: Tables, statistics: str) -> None:
    """Plans are made by the first commit: with what the planner knows then."""
    tables = any_tables
    if statistics == "of empty tables":
        await tables.connection.execute("vacuum analyze")
    await tables.commit(begins(make_job("first")), local=True)
    await tables.commit(*(begins(make_job(f"other-{n}")) for n in range(OTHERS)), local=True)
    if statistics == "as they are":
        await tables.connection.execute("vacuum analyze")

    found = {}
    for size in (10, 400):
        jobs = [make_job(f"{size}-{number}") for number in range(size)]
        first = await work_of(tables, [begins(job) for job in jobs])
        second = await work_of(tables, [goes_on(job) for job in jobs])
        found[size] = [(one + other) / (2 * size) for one, other in zip(first, second, strict=True)]
        assert await tables.column(f"{size}-0", "seq") == 2

    assert found[400][0] <= 1.1 * found[10][0], f"pages {found}"
    assert found[400][1] <= 1.1 * found[10][1], f"entries {found}"
    assert found[10][1] <= 10, f"entries {found}"
