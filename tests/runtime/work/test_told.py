"""Answers of workers in other processes, told to the engine that sent the work, whose step takes it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import asyncpg
import pytest
from anyio import create_task_group

from harness import connected, eventually, one_worker
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.postgres.rows import AnswerNotice
from hotmesh.runtime.wake import HANDOVER
from hotmesh.runtime.work import told
from interception import work_of
from memory_queue import Room, a_worker, row

pytestmark = pytest.mark.anyio

APP = "told"
GRAPH = one_worker(APP)


async def serve(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"]}


async def deployed(mesh: HotMesh) -> None:
    await mesh.deploy(GRAPH)
    await mesh.activate("1")


async def worker_apart(database_url: str, callback: Any = serve) -> HotMesh:
    return await HotMesh.init(
        APP, connection=database_url, engine=False, workers=[Worker("w", callback, max_concurrency=20)]
    )


def make_deaf(mesh: HotMesh, monkeypatch: pytest.MonkeyPatch) -> list[AnswerNotice]:
    """Let the engine hear no answers; returns those that it would have heard."""
    unheard: list[AnswerNotice] = []
    monkeypatch.setattr(mesh._member.engine, "answered", unheard.append)
    return unheard


async def rows_written(connection: asyncpg.Connection, table: str) -> tuple[int, int, int]:
    """Rows inserted, updated and deleted in a table; complete when the sessions that did it have ended."""
    found = await connection.fetchrow(
        "select n_tup_ins, n_tup_upd, n_tup_del from pg_stat_user_tables where schemaname = 'hotmesh' and relname = $1",
        table,
    )
    assert found is not None
    return tuple(found)


async def test_nothing_is_written_for_an_answer_but_the_step_that_it_causes(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await deployed(mesh)
        worker = await worker_apart(database_url)
        for x in range(5):
            assert (await mesh.pubsub("one", {"x": x}, timeout=10)).data == {"y": x}
        await asyncio.gather(*(mesh.pubsub("one", {"x": x}, timeout=10) for x in range(40)))
        await worker.stop()
    async with connected(database_url) as connection:

        async def counted() -> bool:
            return await rows_written(connection, "worker_stream") == (45, 45, 45)

        await eventually(counted, what="the figures of the sessions that have ended")
        assert await rows_written(connection, "engine_stream") == (0, 0, 0)
        assert await rows_written(connection, "job") == (45, 45, 0)


async def test_an_answer_that_nobody_heard_is_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notification is lost, or the engine has gone: the answer counts once, and the callback runs once."""
    runs: list[int] = []

    async def counted(message: StreamData) -> dict[str, Any]:
        runs.append(message.data["x"])
        return {"y": message.data["x"]}

    async with HotMesh.init(APP, connection=database_url) as mesh:
        await deployed(mesh)
        unheard = make_deaf(mesh, monkeypatch)
        worker = await worker_apart(database_url, counted)
        began = time.monotonic()
        outputs = await asyncio.gather(*(mesh.pubsub("one", {"x": x}, timeout=10) for x in range(10)))
        took = time.monotonic() - began
        await worker.stop()
    assert [output.data for output in outputs] == [{"y": x} for x in range(10)]
    assert len(unheard) == 10
    assert sorted(runs) == list(range(10))
    assert HANDOVER * 0.9 < took < 5


async def test_a_worker_that_stops_leaves_what_it_told_as_rows(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh, connected(database_url) as connection:
        await deployed(mesh)
        assert mesh._member.engine is not None
        mesh._member.engine.stream.stop()
        unheard = make_deaf(mesh, monkeypatch)
        worker = await worker_apart(database_url)
        await mesh.pub("one", {"x": 3})
        await eventually(lambda: len(unheard) == 1, what="an answer that was told")
        began = time.monotonic()
        await worker.stop()
        took = time.monotonic() - began
        left = await connection.fetch(
            "select kind, data, visible_at <= clock_timestamp() as visible from hotmesh.engine_stream"
        )
        assert [tuple(one) for one in left] == [("answer", '{"y":3}', True)]
        assert await connection.fetchval("select count(*) from hotmesh.worker_stream") == 0
    assert took < HANDOVER


async def test_what_is_told_counts_only_from_who_holds_the_work(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lease had lapsed, and others have the work; or the same member has it again, by another claim."""
    gate = asyncio.Event()

    async def late(message: StreamData) -> dict[str, Any]:
        await gate.wait()
        return {"y": message.data["x"]}

    caplog.set_level(logging.WARNING, "hotmesh.engine")
    async with HotMesh.init(APP, connection=database_url) as mesh, connected(database_url) as connection:
        await deployed(mesh)
        engine = mesh._member.engine
        assert engine is not None
        worker = await worker_apart(database_url, late)
        async with create_task_group() as tasks:
            outputs: list[Any] = []

            async def call() -> None:
                outputs.append((await mesh.pubsub("one", {"x": 1}, timeout=20)).data)

            tasks.start_soon(call)

            async def claimed() -> bool:
                return await connection.fetchval("select reserved_by from hotmesh.worker_stream") is not None

            await eventually(claimed)
            held = await connection.fetchrow("select * from hotmesh.worker_stream")
            assert held is not None
            strangers = [
                (held["reserved_by"], held["reservation"] + 1),
                ("somebody else", held["reservation"]),
            ]
            for number, (holder, reservation) in enumerate(strangers, 1):
                engine.answered(
                    AnswerNotice(
                        held["job_id"],
                        str(held["generation"]),
                        held["activity_id"],
                        tuple(held["dimension"]),
                        "success",
                        200,
                        {"y": "of a stranger"},
                        None,
                        holder=holder,
                        reservation=reservation,
                    )
                )

                def dropped(wanted: int = number) -> bool:
                    return sum("another process was first" in one.message for one in caplog.records) == wanted

                await eventually(dropped, what="the answer of a stranger was dropped")
            gate.set()
        await worker.stop()
    assert outputs == [{"y": 1}]


async def test_telling_that_fails_is_made_up_for_by_writing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await deployed(mesh)
        worker = await worker_apart(database_url)
        failures: list[Any] = []

        async def tell(_: Any, notices: Any) -> None:
            failures.append(notices)
            raise RuntimeError("no way to tell")

        monkeypatch.setattr(work_of(worker), "tell", tell)
        assert (await mesh.pubsub("one", {"x": 1}, timeout=10)).data == {"y": 1}
        await worker.stop()
    assert failures


@pytest.mark.parametrize(
    ("more", "count"),
    [({}, 1), ({"delivery": 2}, 0), ({"reply_channel": None}, 0)],
    ids=["first", "others-had-it", "no-engine"],
)
async def test_what_can_be_told_is_told(more: dict[str, Any], count: int) -> None:
    """What others held before is written: its answer may be what their processes, or the engine's, died of."""
    room = Room(a_worker())
    claimed: dict[str, Any] = {"reply_channel": "engine", "reservation": 7} | more
    room.writer.answer(row(1, **claimed), "success", 200, "{}")
    await room.writer.run_once()
    assert (len(room.queue.told), len(room.queue.answered)) == (count, 1 - count)


async def test_more_than_can_be_kept_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "MOST_TOLD", 2)
    room = Room(a_worker())
    for number in range(1, 5):
        room.writer.answer(row(number, reply_channel="engine", reservation=7), "success", 200, "{}")
    await room.writer.run_once()
    assert (len(room.queue.told), [job for job, *_ in room.queue.answered]) == (2, ["3", "4"])


async def test_one_look_is_enough_for_answers_that_were_told_at_about_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is gone is done with; what is still held is written when its time is over, and no sooner."""
    monkeypatch.setattr(told, "HANDOVER", 0.2)
    room = Room(a_worker())
    for number in (1, 2, 3):
        room.writer.answer(row(number, reply_channel="engine", reservation=7), "success", 200, "{}")
        await room.writer.run_once()
    room.queue.gone |= {row(1).key, row(2).key}  # an engine has taken them
    while not room.queue.answered:
        await room.writer.run_once()
    assert room.queue.asked.count("still held") <= 2
    assert [job for job, *_ in room.queue.answered] == ["3"]


async def test_who_told_an_answer_hears_that_others_had_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(told, "HANDOVER", 0.0)
    room = Room(a_worker())
    held = row(1, reply_channel="engine", reservation=7)
    room.leases.hold(held, time.monotonic())
    room.leases.finish(held)
    room.writer.answer(held, "success", 200, "{}")
    room.queue.lost.add(held.key)
    while "still held" not in room.queue.asked:
        await room.writer.run_once()
    assert [one.message for one in caplog.records] == [
        "the answer of worker w for job job-1 came when others had its work, and does not count (activity call)"
    ]
    assert room.queue.answered == []
    assert not room.leases.holds(held)
