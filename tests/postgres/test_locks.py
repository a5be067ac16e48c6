"""Who waits for whom: nobody for long, and no two for each other."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import pytest
from tables import Tables, blocked_by, created, everything, make_job, moved

from harness import connected
from hotmesh.core.state.job import MessageReceipt
from hotmesh.core.state.step import (
    Consumed,
    Step,
)
from hotmesh.postgres import engine_stream

pytestmark = pytest.mark.anyio


async def test_of_two_batches_with_common_jobs_the_second_is_told_at_once(tables: Tables) -> None:
    jobs = [make_job(name) for name in "abcdef"]
    await tables.commit(*(Step((created(job),)) for job in jobs))
    forward, backward = [[Step((moved(job),)) for job in order] for order in (jobs, jobs[::-1])]
    async with connected(tables.url) as one, connected(tables.url) as two:
        held = one.transaction()
        await held.start()
        first = await tables.commit(*forward, connection=one)
        second = await asyncio.wait_for(tables.commit(*backward, connection=two), timeout=5)
        await held.commit()
        third = await tables.commit(*backward, connection=two)

    assert not first.refused
    assert second.refused == dict.fromkeys(range(6), ("busy", ""))
    assert third.refused == dict.fromkeys(range(6), ("lost", ""))


async def test_batches_in_any_order_never_deadlock(tables: Tables) -> None:
    """Twelve common jobs, four sessions at once, each in an order of its own: every step is written exactly once."""
    jobs = [make_job(f"j{number:02}") for number in range(12)]
    await tables.commit(*(Step((created(job),)) for job in jobs))
    written: list[str] = []

    async def writer(seed: int) -> None:
        order = random.Random(seed)
        async with connected(tables.url) as connection:
            for seq in range(1, 16):
                some = order.sample(jobs, 8)
                steps = [
                    Step((moved(make_job(job.job_id, generation=job.generation, seq=seq)),)) for job in some
                ]
                verdict = await tables.commit(*steps, connection=connection)
                written.extend(
                    f"{job.job_id}/{seq}" for n, job in enumerate(some) if n not in verdict.refused
                )

    await asyncio.gather(*map(writer, range(4)))

    assert len(written) == len(set(written)) > 0


async def test_two_engines_with_the_same_step_and_child_do_not_wait_for_each_other(
    tables: Tables,
) -> None:
    """One has locked the job, as for events of the stream; the other commits from memory. Both create the child."""
    parent, child = make_job("parent"), make_job("child")
    await tables.commit(Step((created(parent),)))
    async with connected(tables.url) as stream, connected(tables.url) as memory:
        held = stream.transaction()
        await held.start()
        await stream.execute("select from hotmesh.job where job_id = 'parent' for update")
        beside = await tables.commit(Step((moved(parent), created(child))), connection=memory)
        mine = await asyncio.wait_for(
            tables.commit(Step((moved(parent), created(child))), connection=stream), timeout=5
        )
        await held.commit()
        verdict = await tables.commit(Step((moved(parent), created(child))), connection=memory)

    assert not mine.refused
    assert beside.refused == {0: ("busy", "")}
    assert verdict.refused == {0: ("lost", "")}
    assert await tables.job("child") is not None


async def test_a_job_in_other_hands_stops_no_other_step_of_the_batch(tables: Tables) -> None:
    """As when a process stands still in the middle of a transaction."""
    jobs = [make_job(name) for name in "abc"]
    await tables.commit(*(Step((created(job),)) for job in jobs))
    async with connected(tables.url) as other, other.transaction():
        await other.execute("select from hotmesh.job where job_id = 'b' for update")
        verdict = await asyncio.wait_for(tables.commit(*(Step((moved(job),)) for job in jobs)), timeout=5)

    assert verdict.refused == {1: ("busy", "")}
    found = [await tables.job(name) for name in "abc"]
    assert [job is not None and job["seq"] for job in found] == [2, 1, 2]


async def test_locking_due_jobs_skips_those_of_another_engine(tables: Tables) -> None:
    jobs = [make_job(name) for name in "abc"]
    await tables.commit(*(everything(created(job)) for job in jobs))
    async with (
        connected(tables.url) as one,
        connected(tables.url) as two,
        one.transaction(),
        two.transaction(),
    ):
        first = await engine_stream.lock_due_jobs(tables.database, one, 2)
        second = await engine_stream.lock_due_jobs(tables.database, two, 5)
        third = await engine_stream.lock_due_jobs(tables.database, one, 5)

    assert [len(due) for due in (first, second)] == [2, 1]
    assert {due.job.job_id for due in first} | {due.job.job_id for due in second} == set("abc")
    assert {due.job.job_id for due in third} == {due.job.job_id for due in first}


async def test_events_that_another_engine_has_just_consumed_are_not_handed_out_again(
    tables: Tables,
) -> None:
    """The lock is granted after a commit that the statement's first look at the tables did not see."""
    job = make_job("a")
    await tables.commit(everything(created(job)))
    consume = Step((moved(job),), consumed=(Consumed(job.generation, MessageReceipt("m1")),))
    await tables.connection.execute(
        # Between the look and the lock, the function waits here.
        "create function hotmesh.wait_here() returns boolean language sql volatile as "
        "$$ select pg_advisory_xact_lock(42) is not null $$"
    )
    source: str = await tables.connection.fetchval(
        "select pg_get_functiondef('hotmesh.lock_due_jobs'::regproc)"
    )
    assert "from due order by due_at" in source
    await tables.connection.execute(
        source.replace("from due order by due_at", "from due where hotmesh.wait_here() order by job_id")
    )
    async with connected(tables.url) as holder, connected(tables.url) as engine:
        held = holder.transaction()
        await held.start()
        await holder.execute("select pg_advisory_xact_lock(42)")
        looking = asyncio.ensure_future(engine_stream.lock_due_jobs(tables.database, engine, 5))
        await blocked_by(tables.connection, engine, holder)
        assert not (await tables.commit(consume)).refused
        await held.commit()
        due = await looking

    assert [(item.job.seq, item.events) for item in due] in ([], [(2, [])])


async def test_a_chosen_id_in_an_open_transaction_is_not_waited_for(tables: Tables) -> None:
    async with connected(tables.url) as other:
        await other.execute("update hotmesh.app set active_version = '1'")
        transaction = other.transaction()
        await transaction.start()
        started = "select outcome from hotmesh.try_start_job('app', 't', '{}', 'chosen', null, null, null, null, null, 0)"
        assert await other.fetchval(started) == "started"

        with pytest.raises(asyncpg.LockNotAvailableError):
            await tables.commit(Step((created(make_job("chosen")),)))
        assert (await tables.commit(Step((created(make_job("other")),)))).refused == {}
        assert await tables.connection.fetchval("show lock_timeout") == "0"

        await transaction.commit()
        verdict = await tables.commit(Step((created(make_job("chosen")),)))
        assert verdict.refused == {0: ("duplicate", "chosen")}
