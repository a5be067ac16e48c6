"""Messages that come twice, late, to two engines at once, or for a job whose id is somebody else's by now."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from member import FLOW, RECORDS, TOPICS, expected

from harness import connected, eventually, one_worker, owed, settled
from hotmesh import HotMesh, JobNotFoundError, StreamData, Worker
from hotmesh.core.state.job import Event, WorkReceipt
from interception import work_of

pytestmark = pytest.mark.anyio

REPLAY = """
create table replayed (generation uuid, message_id text, primary key (generation, message_id));
create function replay() returns trigger language plpgsql as $$
begin
    insert into replayed values (old.generation, old.message_id) on conflict do nothing;
    if found then
        old.visible_at := clock_timestamp();
        insert into hotmesh.engine_stream select old.*;
    end if;
    return null;
end $$;
create trigger replay after delete on hotmesh.engine_stream for each row execute function replay();
"""
"""Every message comes back once after it was handled."""


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] + 1}


async def test_every_message_delivered_twice_and_to_two_engines_counts_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = FLOW.replace("sleep: 0.3", "sleep: 0.05")
    workers = [Worker(topic, double) for topic in TOPICS]
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(HotMesh.init(app_id="drill", connection=database_url))
            for _ in range(2)
        ]
        await engines[0].deploy(flow)
        await engines[0].activate("1")
        connection = await stack.enter_async_context(connected(database_url))
        await connection.execute(REPLAY)
        worker = await stack.enter_async_context(
            HotMesh.init(app_id="drill", connection=database_url, engine=False, workers=workers)
        )
        monkeypatch.setattr(work_of(worker), "notice", lambda *_: None)  # its answers are rows, all of them
        await asyncio.gather(
            *(
                engines[number % 2].pub("order", {"x": number}, extended={"id": f"order-{number}"})
                for number in range(20)
            )
        )
        await settled(connection, "drill", within=20)
        jobs = await connection.fetch(
            "select job_id, status, data, error, ended_at from hotmesh.job where topic = 'order'"
        )
        passes = await connection.fetch(
            "select a.activity_id, count(*) as passes from hotmesh.activity as a join hotmesh.job as j using (generation) "
            "where j.topic = 'order' group by 1"
        )
        replayed = await connection.fetchval("select count(*) from replayed")
        dead = await connection.fetchval("select count(*) from hotmesh.dead_letter")

    assert replayed >= 20 * 8, "answers and results of children did not come by the stream"
    assert dead == 0
    assert all(job["status"] == 0 and job["error"] is None and job["ended_at"] is not None for job in jobs)
    assert {job["job_id"]: json.loads(job["data"]) for job in jobs} == {
        f"order-{number}": expected(number) for number in range(20)
    }
    assert {row["activity_id"]: row["passes"] for row in passes} == {
        name: 20 * n for name, n in RECORDS.items()
    }


async def test_a_message_that_comes_after_the_end_changes_nothing(database_url: str) -> None:
    async with (
        HotMesh.init(app_id="late", connection=database_url, workers=[Worker("w", double)]) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker("late"))
        await mesh.activate("1")
        output = await mesh.pubsub("one", {"x": 1}, timeout=5)
        job_id = output.metadata.jid
        before = await connection.fetchrow(
            "select status, data, ended_at, expires_at from hotmesh.job where job_id = $1", job_id
        )
        await mesh.resume(job_id)
        await settled(connection, "late")
        after = await connection.fetchrow(
            "select status, data, ended_at, expires_at from hotmesh.job where job_id = $1", job_id
        )
        dead = await connection.fetchval("select count(*) from hotmesh.dead_letter")

    assert after == before
    assert dead == 0


async def test_an_answer_given_twice_counts_once(database_url: str) -> None:
    """The same answer again, from memory, while the first is on its way and after it was applied."""
    gate = asyncio.Event()

    async def callback(message: StreamData) -> dict[str, Any]:
        await gate.wait()
        return {"y": message.data["x"]}

    async with (
        HotMesh.init(app_id="twice", connection=database_url, workers=[Worker("w", callback)]) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker("twice"))
        await mesh.activate("1")
        waiting = asyncio.create_task(mesh.pubsub("one", {"x": 5}, timeout=10))
        row = await eventually(lambda: connection.fetchrow("select generation, job_id from hotmesh.job"))
        again = Event("answer", "call", (0, 0), data={"y": "again"}, receipt=WorkReceipt("call", (0, 0)))
        engine = mesh._member.engine
        assert engine is not None
        gate.set()
        output = await waiting
        engine.deliver(row["job_id"], str(row["generation"]), again)
        engine.deliver(row["job_id"], str(row["generation"]), again)
        await eventually(lambda: not len(engine.cache), what="the end of the late answers")
        state = await mesh.get_state("one", row["job_id"])
        seq = await connection.fetchval("select seq from hotmesh.job")

    assert output.data == state.data == {"y": 5}
    assert seq == 2


async def test_a_worker_whose_lease_has_lapsed_is_refused(database_url: str) -> None:
    async with (
        HotMesh.init(app_id="zombie", connection=database_url) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker("zombie"))
        await mesh.activate("1")
        waiting = asyncio.create_task(mesh.pubsub("one", {"x": 1}, timeout=10))
        claim = "select generation from hotmesh.claim_work('zombie', $1, '{w}', '{1}', $2)"
        generation = await eventually(lambda: connection.fetchval(claim, "first", 0.0))
        assert await eventually(lambda: connection.fetchval(claim, "second", 60.0)) == generation
        answer = (
            "select hotmesh.answer_work('zombie', $1, array[$2::uuid], '{call}', array['{0,0}'], '{success}', '{200}', "
            "array[$3], '{\"e\":1}')"
        )
        late = await connection.fetchval(answer, "first", generation, '{"y": "late"}')
        good = await connection.fetchval(answer, "second", generation, '{"y": "good"}')
        output = await waiting

    assert (late, good) == ([False], [True])
    assert output.data == {"y": "good"}


async def test_a_message_of_an_earlier_generation_changes_nothing_of_a_reused_id(database_url: str) -> None:
    async with (
        HotMesh.init(app_id="reuse", connection=database_url) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker("reuse"))
        await mesh.activate("1")
        await mesh.pub("one", {"x": 1}, extended={"id": "the-id"})
        old = await connection.fetchval("select generation from hotmesh.job")
        held = await connection.fetch("select * from hotmesh.claim_work('reuse', 'zombie', '{w}', '{1}', 60)")
        await mesh.interrupt("one", "the-id")
        await connection.execute("update hotmesh.job set expires_at = now() - interval '1 second'")
        await mesh.pub("one", {"x": 2}, extended={"id": "the-id"})
        new = await connection.fetchrow("select * from hotmesh.job")

        answered = await connection.fetchval(
            "select hotmesh.answer_work('reuse', 'zombie', array[$1::uuid], '{call}', array['{0,0}'], '{success}', '{200}', "
            "array['{\"y\": 666}'], '{\"e\":1}')",
            old,
        )
        await connection.execute(
            "insert into hotmesh.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension, status, "
            "code, data, visible_at, created_at) values ('reuse', 'the-id', $1, 'stale', 'answer', 'call', '{0,0}', "
            "'success', 200, '{\"y\": 666}', now(), now())",
            old,
        )
        engine = mesh._member.engine
        assert engine is not None
        engine.deliver("the-id", str(old), Event("answer", "call", (0, 0), data={"y": 666}))
        with pytest.raises(JobNotFoundError):
            await mesh.add(
                {
                    "metadata": {"jid": "the-id", "gid": str(old), "dad": ",0,0", "aid": "call"},
                    "data": {"y": 1},
                }
            )
        engine.wake()

        async def forgotten() -> bool:
            return not await connection.fetchval(
                "select count(*) from hotmesh.engine_stream"
            ) and not engine.cache.get(str(old))

        await eventually(forgotten, what="the end of the stale messages")
        after = await connection.fetchrow("select * from hotmesh.job")
        open_work = await owed(connection, "reuse")

    assert new is not None
    assert len(held) == 1
    assert old != new["generation"]
    assert answered == [False]
    assert after == new
    assert open_work == {"worker_stream": 1, "live jobs": 1}
