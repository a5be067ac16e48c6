"""Answers of workers in other processes: the engine that has the job in memory hears them itself."""

from __future__ import annotations

import time
from typing import Any

import asyncpg
import pytest

from harness import eventually, one_worker
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.core.state.job import Event, MessageReceipt
from hotmesh.runtime.engine.job_cache import HandedEvent

pytestmark = pytest.mark.anyio

GRAPH = one_worker("direct")


async def serve(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"]}


def stop_stream(mesh: HotMesh) -> None:
    """Let the engine take nothing from the stream any more: what it still does, it does from memory."""
    assert mesh._member.engine is not None
    mesh._member.engine.stream.stop()


async def test_the_engine_that_sent_the_work_hears_the_answer_itself(database_url: str) -> None:
    async with (
        HotMesh.init("direct", connection=database_url) as engine,
        HotMesh.init("direct", connection=database_url, engine=False, workers=[Worker("w", serve)]),
    ):
        await engine.deploy(GRAPH)
        await engine.activate("1")
        stop_stream(engine)
        for x in (1, "ü\u2028☕", {"deep": [1.5, None, 2**60]}):
            assert (await engine.pubsub("one", {"x": x}, timeout=10)).data == {"y": x}


async def test_an_answer_too_large_for_a_notification_comes_by_the_stream(database_url: str) -> None:
    async with (
        HotMesh.init("direct", connection=database_url) as engine,
        HotMesh.init("direct", connection=database_url, engine=False, workers=[Worker("w", serve)]),
    ):
        await engine.deploy(GRAPH)
        await engine.activate("1")
        for length in (6_900, 7_100, 7_900, 8_100, 100_000):
            text = "☕" * (length // 3)
            assert (await engine.pubsub("one", {"x": text}, timeout=10)).data == {"y": text}


async def test_an_answer_that_its_engine_does_not_take_goes_to_another(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        HotMesh.init("direct", connection=database_url) as first,
        HotMesh.init("direct", connection=database_url) as second,
        HotMesh.init("direct", connection=database_url, engine=False, workers=[Worker("w", serve)]),
    ):
        await first.deploy(GRAPH)
        await first.activate("1")
        await eventually(lambda: second._member.plans.epoch == first._member.plans.epoch)
        stop_stream(first)
        deaf: list[Any] = []
        monkeypatch.setattr(first._member.engine, "answered", deaf.append)
        began = time.monotonic()
        assert (await first.pubsub("one", {"x": 1}, timeout=10)).data == {"y": 1}
        took = time.monotonic() - began
    assert len(deaf) == 1
    # Half a second is the first one's, and the second looks soon after.
    assert 0.4 < took < 3


async def test_a_readonly_engine_is_told_nothing(database_url: str) -> None:
    async with (
        HotMesh.init("direct", connection=database_url) as engine,
        HotMesh.init("direct", connection=database_url, readonly=True) as caller,
    ):
        await engine.deploy(GRAPH)
        await engine.activate("1")
        await caller.pub("one", {"x": 1})
        await engine.pub("one", {"x": 1})
        connection = await asyncpg.connect(database_url)
        try:
            channels = await connection.fetch(
                "select reply_channel from hotmesh.worker_stream order by created_at"
            )
        finally:
            await connection.close()
    assert [row[0] is None for row in channels] == [True, False]


async def test_an_answer_that_lay_in_memory_too_long_is_left_to_the_stream(database_url: str) -> None:
    async with HotMesh.init("direct", connection=database_url) as mesh:
        assert mesh._member.engine is not None
        advances, stream_wake = mesh._member.engine.advances, mesh._member.engine.stream_wake
        plain = Event("answer", "work", (0, 0))
        now = time.monotonic()
        lapsed, fresh = (
            HandedEvent("answer", "work", (0, 0), receipt=MessageReceipt("m"), until=now + remaining)
            for remaining in (-0.1, 60.0)
        )
        stream_wake.clear()
        assert advances.still_ours([plain, fresh]) == [plain, fresh]
        assert advances.still_ours([plain, lapsed, fresh]) == [plain, fresh]
        assert await stream_wake.wait(0)
