"""Work, signals and events in their tables: each has one taker, and what is loaded is the whole of it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables import APP, NONE, NOW, Tables, blocked_by, created, everything, make_job, moved

from harness import connected
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.state.job import ActivityRecord, Dimension
from hotmesh.core.state.step import (
    ActivityInstance,
    Step,
    Wait,
    Work,
)
from hotmesh.postgres import engine_stream, loading
from hotmesh.postgres.calls import SignalCall, send_calls
from hotmesh.postgres.work import Wanted

pytestmark = pytest.mark.anyio


# -- work ---------------------------------------------------------------------------------------------------


async def test_claiming_never_reserves_more_than_was_asked_and_no_message_has_two_holders(
    tables: Tables,
) -> None:
    job = make_job("a", status=200)
    work = tuple(
        Work("a", job.generation, "call", (0, number), f"t{number % 2}", {}, "name") for number in range(200)
    )
    await tables.commit(Step((created(job),), work=work))
    holders: dict[tuple[int, ...], str] = {}

    async def consumer(member: str) -> None:
        async with connected(tables.url) as connection:
            while claimed := await tables.work.claim(
                connection, member, [Wanted("t0", limit=3), Wanted("t1", limit=5)], 60.0, 1
            ):
                assert sum(item.topic == "t0" for item in claimed) <= 3
                assert sum(item.topic == "t1" for item in claimed) <= 5
                for item in claimed:
                    assert item.dimension not in holders
                    holders[item.dimension] = member

    await asyncio.gather(*map(consumer, "abcd"))

    assert len(holders) == 200
    assert dict(
        await tables.connection.fetch("select dimension[2], reserved_by from hotmesh.worker_stream")  # type: ignore[arg-type]
    ) == {dimension[1]: member for dimension, member in holders.items()}


async def test_claiming_gives_the_oldest_first_and_leaves_what_is_not_visible(tables: Tables) -> None:
    job = make_job("a", status=9)
    await tables.commit(
        Step(
            (created(job),),
            work=tuple(Work("a", job.generation, "c", (0, n), "t", {}, "n") for n in range(9)),
        )
    )
    await tables.connection.execute(
        "update hotmesh.worker_stream set visible_at = now() + interval '1 h' where dimension[2] < 2"
    )

    claimed = await tables.work.claim(
        tables.connection, "me", [Wanted("t", limit=3), Wanted("other", limit=5)], 60.0, 1
    )

    assert sorted(item.dimension[1] for item in claimed) == [2, 3, 4]


# -- signals ------------------------------------------------------------------------------------------------


async def test_a_signal_and_its_waiter_meet_exactly_once_whoever_comes_first(tables: Tables) -> None:
    """A hundred pairs on two connections, each pair at the same moment."""
    pairs = 100
    jobs = [make_job(f"j{number:03}") for number in range(pairs)]
    await tables.commit(*(Step((created(job),)) for job in jobs))
    met = 0
    async with connected(tables.url) as waiting, connected(tables.url) as sending:
        for job in jobs:
            wait = Step(
                (moved(job),),
                waits=(Wait(job.job_id, job.generation, "hook", (0, 0), "signals", job.job_id),),
            )
            signal = SignalCall("signals", [job.job_id], {}, "{}", "success", 200, 600.0)
            registered, (sent,) = await asyncio.gather(
                tables.commit(wait, connection=waiting),
                send_calls(tables.database, sending, [signal], [0.0], "{}"),
            )
            delivered = sent.outcome == "delivered"
            assert registered.woken != delivered, "exactly one of the two finds the other"
            met += delivered
    handed = await tables.connection.fetch(
        "select job_id, count(*) from hotmesh.engine_stream where kind = 'signal' group by 1"
    )

    assert [row["count"] for row in handed] == [1] * pairs
    assert await tables.connection.fetchval("select count(*) from hotmesh.wait") == 0
    assert await tables.connection.fetchval("select count(*) from hotmesh.signal") == 0
    assert 0 <= met <= pairs


async def test_a_hook_that_waits_again_and_a_signal_for_it_do_not_wait_for_each_other(
    tables: Tables,
) -> None:
    """Its timer was first: the step removes the wait, and registers another one under the same key."""
    job = make_job("a")
    wait = Wait("a", job.generation, "hook", (0, 0), "signals", "key")
    await tables.commit(Step((created(job),), waits=(wait,)))
    again = Step(
        (moved(job),),
        released=(ActivityInstance(job.generation, "hook", (0, 0)),),
        waits=(msgspec.structs.replace(wait, dimension=(0, 1)),),
    )
    async with connected(tables.url) as engine, connected(tables.url) as sender:
        sending = sender.transaction()
        await sending.start()
        # What send_calls does, with a pause in the middle.
        await sender.execute("select hotmesh.lock_signal_keys($1, '{signals}', '{key}')", APP)
        step = asyncio.ensure_future(tables.commit(again, connection=engine))
        await blocked_by(tables.connection, engine, sender)
        hand_over = "select hotmesh.hand_over_signal($1, 'signals', 'key', '{}', 'success', 200, null)"
        assert await asyncio.wait_for(sender.fetchval(hand_over, APP), timeout=5)
        await sending.commit()
        assert not (await step).refused

    assert await tables.rows(job.generation) == NONE | {"wait": 1, "engine_stream": 1}


async def test_a_wait_that_a_step_is_about_to_end_holds_up_no_other_signal(tables: Tables) -> None:
    """And a step that ends two waits in one order and signals to both in another do not wait for each other."""
    jobs = [make_job("a"), make_job("b")]
    for job in jobs:
        await tables.commit(
            Step(
                (created(job),),
                waits=(Wait(job.job_id, job.generation, "hook", (0, 0), "signals", job.job_id),),
            )
        )
    signals = [SignalCall("signals", [key], {}, "{}", "success", 200, 600.0) for key in ("a", "b", "nobody")]
    async with connected(tables.url) as engine:
        step = engine.transaction()
        await step.start()
        released = ActivityInstance(jobs[0].generation, "hook", (0, 0))
        await tables.commit(Step((moved(jobs[0]),), released=(released,)), connection=engine)
        sending = send_calls(tables.database, tables.connection, signals, [0.0] * 3, "{}")
        first = await asyncio.wait_for(sending, timeout=5)
        await step.commit()
    again = await send_calls(tables.database, tables.connection, signals[:1], [0.0], "{}")

    assert [sent.outcome for sent in first] == ["busy", "delivered", "kept"]
    assert [sent.outcome for sent in again] == ["kept"]
    assert await tables.connection.fetchval("select count(*) from hotmesh.wait") == 0


async def test_signals_under_one_key_get_one_waiter_each(tables: Tables) -> None:
    job = make_job("a")
    wait = Wait("a", job.generation, "hook", (0, 0), "signals", "key")
    await tables.commit(Step((created(job),), waits=(wait,)))
    signals = [
        SignalCall("signals", keys, {}, "{}", "success", 200, None) for keys in (["key"], ["no", "key"])
    ]

    first = await send_calls(tables.database, tables.connection, signals, [0.0] * 2, "{}")
    second = await send_calls(tables.database, tables.connection, signals[1:], [0.0], "{}")

    assert [sent.outcome for sent in (*first, *second)] == ["delivered", "again", "dropped"]
    assert await tables.rows(job.generation) == NONE | {"engine_stream": 1}


# -- events and records -------------------------------------------------------------------------------------


async def test_delayed_events_count_no_failure(tables: Tables) -> None:
    job = make_job("a")
    await tables.commit(everything(created(job)))
    connection = tables.connection
    await connection.execute("update hotmesh.timer set due_at = now()")

    await engine_stream.delay_events(tables.database, connection, job.generation, 30.0)

    for query in (
        "select attempt, visible_at - now() from hotmesh.engine_stream",
        "select attempt, due_at - now() from hotmesh.timer",
    ):
        (row,) = await connection.fetch(query)
        assert (row[0], round(row[1].total_seconds())) == (0, 30)
    assert await engine_stream.lock_due_jobs(tables.database, connection, 10) == []


dimensions = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda rest: (0, *rest))
histories = st.sets(dimensions, min_size=1, max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories, address=dimensions)
async def test_what_is_loaded_answers_as_the_whole_history_does(
    tables: Tables, history: set[Dimension], address: Dimension
) -> None:
    """`nearest` at the address, and `next_pass` below the address and below each of its ancestors."""
    generation = str(uuid4())
    record = ActivityRecord("closed", type="hook", ended_at=NOW)
    await tables.connection.executemany(
        "insert into hotmesh.activity (generation, activity_id, dimension, type, state, ended_at) "
        "values ($1, 'a', $2, 'hook', 'closed', $3)",
        [(generation, list(dimension), NOW) for dimension in history],
    )
    loaded = await loading.load_records(tables.database, tables.connection, [(generation, "a", address)])
    whole = draft(dict.fromkeys(history, record))
    part = draft(loaded.get(generation, {}).get("a", {}))

    expected_place, found_place = (place.nearest("a", address) for place in (whole, part))
    assert (found_place and found_place[0]) == (expected_place and expected_place[0])
    for length in range(1, len(address) + 1):
        assert part.next_pass("a", address[:length]) == whole.next_pass("a", address[:length])


def draft(records: dict[Dimension, ActivityRecord]) -> JobDraft:
    job = make_job("a", records={"a": records} if records else {})
    return JobDraft(job, None, NOW, created=False)  # type: ignore[arg-type]  # no graph is needed to look things up
