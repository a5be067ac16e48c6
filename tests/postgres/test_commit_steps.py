"""The stored functions, called directly: what counts as a whole, who waits for whom, and what each touches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import bury_job, connected, eventually
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.state.job import ActivityRecord, Dimension, Job, MessageReceipt, Parent, WorkReceipt
from hotmesh.core.state.step import (
    ActivityInstance,
    Consumed,
    JobChange,
    Message,
    RecordChange,
    Signal,
    Step,
    Timer,
    Wait,
    Work,
)
from hotmesh.postgres import commits, engine_stream, loading
from hotmesh.postgres.commits import AnsweredElsewhereError
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.steps import Batch, Committed
from hotmesh.postgres.work import OrdinaryWork, Wanted

pytestmark = pytest.mark.anyio

APP = "app"
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def make_job(
    job_id: str, *, generation: str | None = None, seq: int = 1, status: int = 1, **more: Any
) -> Job:
    return Job(
        app_id=APP,
        job_id=job_id,
        generation=generation or str(uuid4()),
        version="1",
        topic="t",
        seq=seq,
        status=status,
        input={},
        data=more.pop("data", {}),
        created_at=NOW,
        updated_at=NOW,
        **more,
    )


def created(job: Job) -> JobChange:
    return JobChange(job, created=True)


def moved(job: Job, **more: Any) -> JobChange:
    """The job as it was committed, one step further."""
    return JobChange(
        make_job(job.job_id, generation=job.generation, seq=job.seq + 1, data={"moved": job.seq}),
        False,
        job.seq,
        **more,
    )


def everything(change: JobChange) -> Step:
    """A step that writes into every table."""
    job = change.job
    place = (job.job_id, job.generation, "a", (0, job.seq))
    return Step(
        (change,),
        records=(RecordChange(job.generation, "a", (0, job.seq), ActivityRecord("open", type="worker")),),
        work=(Work(*place, "topic", {}, "name"),),
        messages=(Message("enter", job.job_id, f"m{job.seq}", job.generation, "a"),),
        timers=(Timer(*place, 60.0),),
        waits=(Wait(*place, "signals", job.job_id),),
        signals=(Signal("early", job.job_id, {}),),
    )


TABLES = ("activity", "worker_stream", "engine_stream", "timer", "wait")


class Tables:
    """One connection to a database with the app registered."""

    def __init__(self, connection: asyncpg.Connection, url: str) -> None:
        self.connection = connection
        self.url = url
        self.database = Database(ConnectionSource(url), "hotmesh", APP)
        self.work = OrdinaryWork(self.database)

    async def commit(
        self,
        *steps: Step,
        member: str = "me",
        local: bool = False,
        connection: asyncpg.Connection | None = None,
    ) -> Committed:
        batch = Batch()
        for number, step in enumerate(steps):
            batch.add(number, step, local=[local] * len(step.work), send_delay=lambda _: 0.0)
        return await commits.commit(
            self.database, connection or self.connection, batch, member, 0, random.getrandbits(60), 30.0, None
        )

    async def rows(self, generation: str) -> dict[str, int]:
        """How many rows of each table a generation has."""
        return {
            table: await self.connection.fetchval(
                f"select count(*) from hotmesh.{table} where generation = $1", generation
            )
            for table in TABLES
        }

    async def job(self, job_id: str) -> dict[str, Any] | None:
        row = await self.connection.fetchrow("select * from hotmesh.job where job_id = $1", job_id)
        return None if row is None else dict(row)

    async def column(self, job_id: str, name: str) -> Any:
        return ((await self.job(job_id)) or {})[name]


@pytest.fixture
async def tables(database_url: str) -> AsyncIterator[Tables]:
    async with connected(database_url) as connection:
        await connection.execute("insert into hotmesh.app (app_id) values ($1)", APP)
        yield Tables(connection, database_url)


NONE = dict.fromkeys(TABLES, 0)
ONE = dict.fromkeys(TABLES, 1)


async def test_a_step_that_lost_writes_nothing_and_its_neighbours_go_through(tables: Tables) -> None:
    stale, fresh, other = make_job("b"), make_job("a"), make_job("c")
    await tables.commit(*(Step((created(job),)) for job in (stale, fresh, other)))
    await tables.commit(Step((moved(stale),)))

    verdict = await tables.commit(
        everything(moved(fresh)), everything(moved(stale)), everything(moved(other))
    )

    assert verdict.refused == {1: ("lost", "")}
    assert [await tables.rows(job.generation) for job in (fresh, stale, other)] == [ONE, NONE, ONE]
    assert [await tables.column(name, "seq") for name in "abc"] == [2, 2, 2]
    assert await tables.connection.fetchval("select count(*) from hotmesh.signal where key = 'b'") == 0


async def test_a_step_whose_job_exists_is_a_duplicate_and_writes_nothing(tables: Tables) -> None:
    await tables.commit(Step((created(make_job("taken", data={"first": True})),)))
    late, fresh = make_job("taken"), make_job("free")

    verdict = await tables.commit(everything(created(late)), everything(created(fresh)))

    assert verdict.refused == {0: ("duplicate", "taken")}
    assert [await tables.rows(job.generation) for job in (late, fresh)] == [NONE, ONE]


async def test_of_two_starts_with_one_id_in_a_batch_the_first_counts(tables: Tables) -> None:
    one, two = make_job("same"), make_job("same")

    verdict = await tables.commit(everything(created(one)), everything(created(two)))

    assert verdict.refused == {1: ("duplicate", "same")}
    assert [await tables.rows(job.generation) for job in (one, two)] == [ONE, NONE]


async def test_a_parent_whose_childs_id_is_taken_does_not_move_and_creates_no_other_child(
    tables: Tables,
) -> None:
    parent, taken = make_job("parent"), make_job("taken")
    await tables.commit(Step((created(parent),)), Step((created(taken),)))

    verdict = await tables.commit(
        Step((moved(parent), created(make_job("child")), created(make_job("taken"))))
    )

    assert verdict.refused == {0: ("duplicate", "taken")}
    assert await tables.column("parent", "seq") == 1
    assert await tables.job("child") is None
    assert str(await tables.column("taken", "generation")) == taken.generation


async def test_a_refused_step_leaves_the_child_that_another_engine_created(tables: Tables) -> None:
    """Two engines compute the same step: the child has the same id and generation in both."""
    parent, child = make_job("parent"), make_job("child")
    await tables.commit(Step((created(parent),)))
    await tables.commit(Step((moved(parent), created(child))))

    verdict = await tables.commit(Step((moved(parent), created(child))))

    assert verdict.refused == {0: ("lost", "")}
    assert str(await tables.column("child", "generation")) == child.generation


async def test_a_step_that_lost_creates_no_children(tables: Tables) -> None:
    parent = make_job("parent")
    await tables.commit(Step((created(parent),)))
    await tables.commit(Step((moved(parent),)))

    verdict = await tables.commit(
        Step((moved(parent), created(make_job("child")))), everything(created(make_job("x")))
    )

    assert verdict.refused == {0: ("lost", "")}
    assert await tables.job("child") is None
    assert await tables.job("x") is not None


@pytest.mark.parametrize(
    "receipt", [WorkReceipt("a", (0, 9)), MessageReceipt("gone")], ids=["work", "message"]
)
async def test_a_consumed_row_that_is_gone_raises_and_nothing_is_written(
    tables: Tables, receipt: Any
) -> None:
    job, neighbour = make_job("a"), make_job("b")
    await tables.commit(Step((created(job),)), Step((created(neighbour),)))
    answer = Step((moved(job),), consumed=(Consumed(job.generation, receipt),))

    with pytest.raises(AnsweredElsewhereError):
        await tables.commit(answer, everything(moved(neighbour)))

    assert [await tables.column(name, "seq") for name in "ab"] == [1, 1]
    assert await tables.rows(neighbour.generation) == NONE


async def test_work_that_another_member_holds_cannot_be_answered(tables: Tables) -> None:
    job = make_job("a")
    work = Work("a", job.generation, "call", (0, 0), "topic", {}, "name")
    await tables.commit(Step((created(job),), work=(work,)), member="holder", local=True)
    answer = Step((moved(job),), consumed=(Consumed(job.generation, WorkReceipt("call", (0, 0))),))

    with pytest.raises(AnsweredElsewhereError):
        await tables.commit(answer, member="other")
    verdict = await tables.commit(answer, member="holder")

    assert not verdict.refused
    assert await tables.rows(job.generation) == NONE


async def test_everything_is_refused_under_an_old_epoch(tables: Tables) -> None:
    await tables.connection.execute("update hotmesh.app set epoch = 7")
    job = make_job("a")

    verdict = await tables.commit(everything(created(job)))

    assert verdict.epoch == 7
    assert await tables.job("a") is None
    assert await tables.rows(job.generation) == NONE


async def test_a_dropped_job_takes_everything_open_with_it(tables: Tables) -> None:
    job, neighbour = make_job("a"), make_job("b")
    await tables.commit(everything(created(job)), everything(created(neighbour)))
    end = JobChange(
        make_job("a", generation=job.generation, seq=2, status=0), False, 1, ended=True, dropped=True
    )

    await tables.commit(Step((end,)))

    assert await tables.rows(job.generation) == NONE | {"activity": 1}
    assert await tables.rows(neighbour.generation) == ONE


BESIDE = """
insert into hotmesh.worker_pending (app_id, role_name, topic, job_id, generation, activity_id, dimension, created_at)
select app_id, 'login', 't', job_id, generation, 'a', '{0}', now() from hotmesh.job;
insert into hotmesh.dead_letter (app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
select app_id, 'worker', 't', job_id, generation, 'a', '{0}', '{}', 'why', now() from hotmesh.job;
insert into hotmesh.escalation (namespace, app_id, workflow_id) select 'hotmesh', app_id, job_id from hotmesh.job;
update hotmesh.timer set due_at = now();
"""
"""What else may belong to a job, for each."""


@pytest.mark.parametrize(
    ("ending", "left", "item"),
    [
        ("a step drops it", {"activity": 1, "dead_letter": 1}, "cancelled"),
        ("it is given up", {"activity": 1, "dead_letter": 2}, "cancelled"),
        ("it is given up after its end", {"activity": 1, "dead_letter": 2}, "cancelled"),
        ("it is forgotten", {}, "pending"),
        ("it is scrubbed", {}, "cancelled"),
    ],
)
async def test_what_is_left_of_a_job_depends_on_how_it_ends(
    tables: Tables, ending: str, left: dict[str, int], item: str
) -> None:
    job, neighbour = make_job("a"), make_job("b")
    await tables.commit(everything(created(job)), everything(created(neighbour)))
    connection = tables.connection
    await connection.execute(BESIDE)
    before = await remainder(connection, neighbour)
    match ending:
        case "a step drops it":
            end = make_job("a", generation=job.generation, seq=2, status=0)
            await tables.commit(Step((JobChange(end, False, 1, ended=True, dropped=True),)))
        case "it is given up":
            await bury_job(tables.url, APP, "a")
        case "it is given up after its end":
            await connection.execute("update hotmesh.job set status = 0, ended_at = now() where job_id = 'a'")
            await bury_job(tables.url, APP, "a")
        case "it is forgotten":
            await connection.execute("select hotmesh.forget_generations(array[$1::uuid])", job.generation)
        case _:
            await connection.execute("select hotmesh.scrub_job($1, 'a')", APP)

    assert await remainder(connection, job) == left
    assert await remainder(connection, neighbour) == before == ONE | {"worker_pending": 1, "dead_letter": 1}
    items = "select workflow_id, status from hotmesh.escalation order by 1"
    assert [tuple(row) for row in await connection.fetch(items)] == [("a", item), ("b", "pending")]


async def remainder(connection: asyncpg.Connection, job: Job) -> dict[str, int]:
    """How many rows of each table belong to a job, without those that have none."""
    found = {
        table: await connection.fetchval(
            f"select count(*) from hotmesh.{table} where generation = $1", job.generation
        )
        for table in (*TABLES, "worker_pending", "dead_letter")
    }
    return {table: count for table, count in found.items() if count}


async def test_only_the_dropped_jobs_that_pass_it_on_interrupt_what_they_await(tables: Tables) -> None:
    parents = {name: make_job(name) for name in ("on", "off", "refused")}
    children = {
        name: make_job(f"{name}-child", parent=Parent(name, job.generation, "a", (0,), severed=severed))
        for severed in (False, True)
        for name, job in ((f"{parent}-{severed}", parents[parent]) for parent in parents)
    }
    await tables.commit(*(Step((created(job),)) for job in (*parents.values(), *children.values())))
    await tables.commit(Step((moved(parents["refused"]),)))

    verdict = await tables.commit(
        *(Step((moved(job, dropped=True, descend=name != "off"),)) for name, job in parents.items())
    )

    told = await tables.connection.fetch("select job_id, kind, message_id from hotmesh.engine_stream")
    assert verdict.refused == {2: ("lost", "")}
    assert verdict.woken
    assert [tuple(row) for row in told] == [
        ("on-False-child", "interrupt", f"interrupt:{parents['on'].generation}")
    ]


async def test_a_step_after_the_end_keeps_the_end(tables: Tables) -> None:
    job = make_job("a", status=0, expire=60.0)
    await tables.commit(Step((JobChange(job, created=True, ended=True),)))
    before = (await tables.job("a")) or {}

    await tables.commit(
        Step((JobChange(make_job("a", generation=job.generation, seq=2, status=0, expire=60.0), False, 1),))
    )

    after = (await tables.job("a")) or {}
    assert after["seq"] == 2
    assert (after["ended_at"], after["expires_at"]) == (before["ended_at"], before["expires_at"])
    assert before["expires_at"] is not None


async def test_an_expired_id_is_freed_with_all_its_rows_and_a_live_one_is_not(tables: Tables) -> None:
    over, live = make_job("over"), make_job("live")
    await tables.commit(everything(created(over)), everything(created(live)))
    await tables.connection.execute(
        "update hotmesh.job set expires_at = now() - interval '1 s' where job_id = 'over'"
    )
    await tables.connection.execute(
        "update hotmesh.job set expires_at = now() + interval '1 h' where job_id = 'live'"
    )

    freed = await tables.connection.fetchval("select hotmesh.free_expired_ids($1, '{over,live,none}')", APP)

    assert freed == 1
    assert await tables.job("over") is None
    assert await tables.job("live") is not None
    assert [await tables.rows(job.generation) for job in (over, live)] == [NONE, ONE]


# -- who waits for whom --------------------------------------------------------------------------------------


async def blocked_by(
    watcher: asyncpg.Connection, victim: asyncpg.Connection, holder: asyncpg.Connection
) -> None:
    """Wait until a session waits for another."""

    async def waits() -> bool:
        pids = await watcher.fetchval("select pg_blocking_pids($1)", victim.get_server_pid())
        return holder.get_server_pid() in pids

    await eventually(waits, what="the wait for a lock")


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
    assert "from due order by job_id" in source
    await tables.connection.execute(
        source.replace("from due order by job_id", "from due where hotmesh.wait_here() order by job_id")
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


# -- work ----------------------------------------------------------------------------------------------------


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


# -- signals -------------------------------------------------------------------------------------------------


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
            signal = "select hotmesh.send_signal($1, 'signals', array[$2], '{}', 'success', 200, 600, null)"
            registered, delivered = await asyncio.gather(
                tables.commit(wait, connection=waiting), sending.fetchval(signal, APP, job.job_id)
            )
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
        # What send_signal does, with a pause in the middle.
        await sender.execute("select hotmesh.lock_signal_keys($1, '{signals}', '{key}')", APP)
        step = asyncio.ensure_future(tables.commit(again, connection=engine))
        await blocked_by(tables.connection, engine, sender)
        hand_over = "select hotmesh.hand_over_signal($1, 'signals', 'key', '{}', 'success', 200, null)"
        assert await asyncio.wait_for(sender.fetchval(hand_over, APP), timeout=5)
        await sending.commit()
        assert not (await step).refused

    assert await tables.rows(job.generation) == NONE | {"wait": 1, "engine_stream": 1}


# -- loading -------------------------------------------------------------------------------------------------

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


# -- plans ---------------------------------------------------------------------------------------------------

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
        "send_signal": lambda: connection.fetchval(
            "select hotmesh.send_signal($1, 'signals', '{job-7}', '{}', 'success', 200, 600, null)", APP
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
