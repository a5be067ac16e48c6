"""Many engines on one queue of due events: each gets jobs that no other one has, and none waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from hashlib import md5
from typing import Any

import asyncpg
import pytest
from tables import APP

from harness import connected

pytestmark = pytest.mark.anyio

DUE = 3_000
"""Jobs with something due, in the order of their numbers: a message for each, and a second one for each tenth, due with the last."""

LIMIT = 50

FILL = f"""
insert into hotmesh.app (app_id) values ('{APP}');
insert into hotmesh.job (app_id, job_id, generation, version, topic, seq, token, status, created_at, updated_at)
select '{APP}', 'job-' || i, md5(i::text)::uuid, '1', 't', 1, 0, 1, now(), now() from generate_series(1, {DUE}) as i;
insert into hotmesh.engine_stream (
    app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, visible_at, created_at)
select '{APP}', 'job-' || i, md5(i::text)::uuid, 'm' || n, 'answer', 'a', '{{0,0}}', 'success', 200,
       now() - interval '1 h' + (i + n * {DUE}) * interval '1 ms', now()
  from generate_series(1, {DUE}) as i, generate_series(0, case when i % 10 = 0 then 1 else 0 end) as n;
analyze hotmesh.job, hotmesh.engine_stream;
"""

LOCK = f"select (d.job).job_id, d.events from hotmesh.lock_due_jobs('{APP}', $1, $2, $3) as d"

Engine = Callable[..., Coroutine[Any, Any, list[int]]]


def generation_of(number: int) -> str:
    return md5(str(number).encode()).hexdigest()


@pytest.fixture
async def engine(any_database_url: str) -> AsyncIterator[Callable[[], Coroutine[Any, Any, Engine]]]:
    """Begins a transaction of an engine of its own: what locks in it tells the numbers of the jobs."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(connected(any_database_url))
        await first.execute(FILL)

        async def begin() -> Engine:
            connection: asyncpg.Connection = await stack.enter_async_context(connected(any_database_url))
            await connection.execute("begin")

            async def lock(limit: int = LIMIT, only: list[str] | None = None, since: Any = None) -> list[int]:
                rows = await asyncio.wait_for(connection.fetch(LOCK, limit, only, since), timeout=10)
                assert all(row["events"] for row in rows)
                return sorted(int(row["job_id"].removeprefix("job-")) for row in rows)

            return lock

        yield begin


async def test_each_engine_gets_as_many_jobs_as_it_asks_for_those_due_first(engine: Any) -> None:
    for number in range(12):
        lock = await engine()
        assert await lock() == list(range(number * LIMIT + 1, (number + 1) * LIMIT + 1))


async def test_the_last_ones_are_found_and_no_others(engine: Any) -> None:
    one, two, three = [await engine() for _ in range(3)]

    assert len(await one(DUE - 20)) == DUE - 20
    assert await two() == list(range(DUE - 19, DUE + 1))
    assert await three() == []


async def test_a_look_ends_where_too_much_is_held(engine: Any) -> None:
    one, two = await engine(), await engine()
    await one(DUE - 1)

    assert await two(5) == []


async def test_only_what_was_asked_for_is_taken_whoever_holds_the_rest(engine: Any) -> None:
    one, two = await engine(), await engine()
    wanted = [5, 70, 2_990]
    await one()

    assert await two(LIMIT, [generation_of(number) for number in wanted]) == [70, 2_990]


async def test_a_job_with_thousands_of_events_keeps_nobody_from_the_others(
    engine: Any, any_database_url: str
) -> None:
    async with connected(any_database_url) as connection:
        await connection.execute(
            "insert into hotmesh.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension,"
            " status, code, visible_at, created_at) select app_id, job_id, generation, 'c' || n, 'result', 'a', '{0,0}',"
            " 'success', 200, now() - interval '2 h' + n * interval '1 ms', now()"
            " from hotmesh.job, generate_series(1, 2000) as n where job_id = 'job-7'"
        )
    one, two = await engine(), await engine()
    first = await one()

    assert 7 in first
    assert len(first) == LIMIT
    assert len(await two()) == LIMIT


async def test_events_without_a_job_go_and_nobody_waits_for_who_removes_them(
    engine: Any, any_database_url: str
) -> None:
    async with connected(any_database_url) as connection:
        await connection.execute("delete from hotmesh.job where substr(job_id, 5)::integer <= 40")
        one, two = await engine(), await engine()

        assert await one(20) == list(range(41, 61))
        assert await two(20) == list(range(61, 81))
