"""Steps that are committed: what counts as a whole, and what is left of a job."""

from __future__ import annotations

import json
import math
from typing import Any

import asyncpg
import pytest
from tables import APP, NONE, ONE, TABLES, Tables, created, everything, make_job, moved

from harness import bury_job
from hotmesh.core.state.job import Job, MessageReceipt, Parent, WorkReceipt
from hotmesh.core.state.step import (
    Consumed,
    JobChange,
    Message,
    Step,
    Timer,
    Wait,
    Work,
)
from hotmesh.postgres.commits import AnsweredElsewhereError
from hotmesh.postgres.connect.failures import fault, translate

pytestmark = pytest.mark.anyio


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


def waiting_for(key: str, *, delay: float = 1.0, code: int = 200) -> Step:
    job = make_job("a")
    place = ("a", job.generation, "a", (0,))
    return Step(
        (created(job),),
        timers=(Timer(*place, delay),),
        waits=(Wait(*place, "t", key),),
        messages=(Message("enter", "a", "m", job.generation, "a", code=code),),
    )


@pytest.mark.parametrize(
    "step",
    [
        waiting_for("a\0b"),
        waiting_for("a\ud800"),
        waiting_for("a", delay=math.nan),
        waiting_for("a", code=2**31),
        waiting_for("a", code=2**70),
    ],
    ids=["nul", "half a pair", "no number", "large", "huge"],
)
async def test_what_postgres_cannot_hold_is_refused_as_the_fault_of_the_values(
    tables: Tables, step: Step
) -> None:
    with pytest.raises(Exception) as caught:
        await tables.commit(step)

    assert fault(translate(caught.value) or caught.value) == "values"
    assert await tables.job("a") is None


async def test_text_is_stored_as_it_is(tables: Tables) -> None:
    key = "\\u0000 \\\\ \" ' \u007f \u0001 \n ä 😀 {1,2} null"
    job = make_job("a", data={"x": key + "\0"})
    await tables.commit(Step((created(job),), waits=(Wait("a", job.generation, "a", (0,), "t", key),)))

    assert await tables.connection.fetchval("select key from hotmesh.wait") == key
    assert json.loads(await tables.column("a", "data")) == {"x": key + "\0"}
