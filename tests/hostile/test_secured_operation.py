"""Secured workers in operation: slowed and paused, measured, with a codec, traced, failing, stopping, cut off and killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from guarded import login, provision
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stage import WATCHFUL

import doomed
from harness import app_login, connected, eventually, init_within, one_worker, settled
from hotmesh import AesGcmCodec, HotMesh, JobError, Response, StreamData, Worker
from hotmesh.postgres.logins.work import LoginWork
from interception import lose_one
from proxy import proxied

pytestmark = pytest.mark.anyio

APP = "shop"


@asynccontextmanager
async def shop(url: str, **options: Any) -> AsyncIterator[tuple[HotMesh, str]]:
    """An engine, and the URL with a login for the topic of its only worker activity."""
    async with HotMesh.init(APP, connection=url, **options) as mesh, connected(url) as owner:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        yield mesh, login(url, await provision(url, ["w"]))
        await settled(owner, APP)


def secured(url: str, callback: Any, *, retry: Any = None, **options: Any) -> Any:
    return HotMesh.init(
        APP,
        connection=url,
        engine=False,
        secured=True,
        workers=[Worker("w", callback, retry=retry)],
        **options,
    )


class Doubler:
    """Doubles, and remembers when it began and for which job."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, message: StreamData) -> dict[str, Any]:
        self.began.append(time.monotonic())
        await self.gate.wait()
        return {"y": message.data["x"] * 2}


async def call(mesh: HotMesh, x: int = 4) -> int:
    return int((await mesh.pubsub("one", {"x": x}, timeout=30)).data["y"])


# -- rates ---------------------------------------------------------------------------------------------------


async def test_a_pause_and_its_end_are_obeyed_within_a_second(guarded_url: str) -> None:
    double = Doubler()
    async with shop(guarded_url) as (mesh, url), secured(url, double) as worker:
        assert await call(mesh) == 8
        for pause, resume in ((mesh.pause, mesh.resume), (_pause_topic(mesh), _resume_topic(mesh))):
            await pause()
            await eventually(lambda: _rate_of(worker) == -1, within=3, what="the pause")
            calls = [asyncio.create_task(call(mesh, x)) for x in range(3)]
            done, _ = await asyncio.wait(calls, timeout=0.5)
            assert not done
            resumed = time.monotonic()
            await resume()
            assert await asyncio.gather(*calls) == [0, 2, 4]
            assert time.monotonic() - resumed < 3


def _rate_of(worker: HotMesh) -> int:
    return worker._member.workers.figures()[0].rate


def _pause_topic(mesh: HotMesh) -> Any:
    return lambda: mesh.pause(topic="w")


def _resume_topic(mesh: HotMesh) -> Any:
    return lambda: mesh.resume(topic="w")


async def test_a_rate_is_kept_between_two_starts(guarded_url: str) -> None:
    double = Doubler()
    async with shop(guarded_url) as (mesh, url), secured(url, double) as worker:
        await mesh.throttle(200, topic="w")
        await eventually(lambda: _rate_of(worker) == 200, within=3, what="the rate")
        await asyncio.gather(*(call(mesh, x) for x in range(4)))
        await mesh.throttle(0, topic="w")
    gaps = [later - earlier for earlier, later in pairwise(double.began)]
    assert len(gaps) == 3
    assert min(gaps) >= 0.19


async def test_a_rate_that_stands_is_obeyed_from_the_start(guarded_url: str) -> None:
    double = Doubler()
    async with shop(guarded_url) as (mesh, url):
        await mesh.pause(topic="w")
        async with secured(url, double) as worker:
            calling = asyncio.create_task(call(mesh))
            await eventually(lambda: _rate_of(worker) == -1)
            done, _ = await asyncio.wait([calling], timeout=0.5)
            assert not done
            await mesh.resume(topic="w")
            assert await calling == 8


# -- metrics, events, traces ---------------------------------------------------------------------------------


async def test_it_is_measured_but_for_the_queues(guarded_url: str) -> None:
    """Whose depth is none of its business."""
    double = Doubler()
    async with shop(guarded_url) as (mesh, url), secured(url, double, metrics="127.0.0.1:0") as worker:
        assert await call(mesh) == 8
        figures = await worker.metrics()
        assert figures["callbacks_running"] == {}
        assert "queue_messages" not in {name for name, value in figures.items() if value}
        text = await asyncio.to_thread(_scrape, worker.metrics_address)
        assert "hotmesh_throttle_milliseconds{" in text
        assert 'topic="w"' in text
        assert "hotmesh_queue_messages{" not in text


def _scrape(address: str | None) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


async def test_it_tells_when_it_starts_and_stops(guarded_url: str) -> None:
    told: list[Any] = []
    async with shop(guarded_url) as (mesh, url), secured(url, Doubler(), events=told.append):
        assert await call(mesh) == 8
        await eventually(lambda: len(told) == 1)
    assert [event.type for event in told] == [f"system.engine.{APP}.started", f"system.engine.{APP}.stopped"]


async def test_a_trace_goes_through_a_secured_worker(guarded_url: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("caller").start_as_current_span("caller"):
        async with (
            shop(guarded_url, tracer_provider=provider) as (mesh, url),
            secured(url, Doubler(), tracer_provider=provider),
        ):
            assert await call(mesh) == 8
    spans = exporter.get_finished_spans()
    assert len({_numbers(span)[0] for span in spans}) == 1
    [executed] = [span for span in spans if span.name.startswith("EXECUTE/")]
    [asked] = [span for span in spans if span.name == f"WORKER/{APP}/call/1"]
    assert executed.parent is not None
    assert executed.parent.span_id == _numbers(asked)[1]


def _numbers(span: ReadableSpan) -> tuple[int, int]:
    """Of its trace, and its own."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


# -- codecs --------------------------------------------------------------------------------------------------

KEYS = {"a": os.urandom(32), "b": os.urandom(32)}


def codec(*names: str) -> AesGcmCodec:
    return AesGcmCodec({name: KEYS[name] for name in names}, current=names[0])


async def test_with_a_codec_it_reads_its_input_and_encodes_its_answer(guarded_url: str) -> None:
    async with (
        shop(guarded_url, codec=codec("a")) as (mesh, url),
        secured(url, Doubler(), codec=codec("a")),
        connected(guarded_url) as owner,
    ):
        job_id = await mesh.pub("one", {"x": 4})
        await settled(owner, APP)
        assert (await mesh.get_state("one", job_id)).data == {"y": 8}
        stored = "select output::text from hotmesh.activity join hotmesh.job using (generation) where job_id = $1 and activity_id = 'call'"
        assert "hotmesh.codec:" in await owner.fetchval(stored, job_id)


async def test_with_another_codec_it_leaves_work_to_one_that_can_read_it(
    guarded_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it takes it, and though a login may take work without an answer only so often."""
    async with shop(guarded_url, codec=codec("a")) as (mesh, url), connected(guarded_url) as owner:
        double = Doubler()
        async with secured(url, double, codec=codec("b")):
            calling = asyncio.create_task(call(mesh))
            sooner = "update hotmesh.worker_stream set visible_at = now() where reserved_by is null"

            async def often() -> bool:
                await owner.execute(sooner)
                return (
                    len(
                        [
                            one
                            for one in caplog.records
                            if one.__dict__.get("event") == "work cannot be decoded"
                        ]
                    )
                    > 25
                )

            await eventually(often, within=60, what="26 deliveries")
        assert double.began == []
        async with secured(url, double, codec=codec("a")):
            assert await calling == 8
        assert len(double.began) == 1
        assert await mesh.list_dead_letters() == []


async def test_what_nobody_can_read_is_given_up_in_the_end(guarded_url: str) -> None:
    async with shop(guarded_url, codec=codec("a")) as (mesh, url), connected(guarded_url) as owner:
        job_id = await mesh.pub("one", {"x": 4})
        await owner.execute("update hotmesh.worker_stream set created_at = created_at - interval '8 days'")
        async with secured(url, Doubler(), codec=codec("b")):
            [letter] = await eventually(mesh.list_dead_letters)
        assert letter.job_id == job_id
        assert "unread" in letter.reason
        await mesh.discard(letter.id)


# -- failures ------------------------------------------------------------------------------------------------


async def test_failures_are_tried_again_with_growing_pauses(guarded_url: str) -> None:
    began: list[float] = []

    async def fails(message: StreamData) -> dict[str, Any]:
        began.append(time.monotonic())
        assert message.metadata.get("try", 0) == len(began) - 1
        if len(began) < 4:
            raise ValueError("not yet")
        return {"y": 1}

    retry = {"maximum_attempts": 4, "initial_interval": 0.05, "backoff_coefficient": 2}
    async with shop(guarded_url) as (mesh, url), secured(url, fails, retry=retry):
        assert await call(mesh) == 1
    gaps = [later - earlier for earlier, later in pairwise(began)]
    assert [gap >= pause for gap, pause in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3


async def test_the_last_failure_is_that_of_the_job(guarded_url: str) -> None:
    async def fails(message: StreamData) -> None:
        raise ValueError("never")

    retry = {"maximum_attempts": 2, "initial_interval": 0.01}
    async with shop(guarded_url) as (mesh, url), secured(url, fails, retry=retry):
        with pytest.raises(JobError, match="never"):
            await call(mesh)


async def test_a_dead_letter_of_a_secured_worker_is_requeued_and_answered(guarded_url: str) -> None:
    async with shop(guarded_url) as (mesh, url), connected(guarded_url) as owner:
        job_id = await mesh.pub("one", {"x": 4})
        await owner.execute("update hotmesh.worker_stream set delivery = 20 where job_id = $1", job_id)
        async with secured(url, Doubler()):
            [letter] = await eventually(mesh.list_dead_letters)
            await eventually(lambda: _ended(mesh, job_id))
            assert letter.job_id == job_id
            await mesh.requeue(letter.id)
            await eventually(lambda: _has(mesh, job_id, {"y": 8}))


async def test_what_kills_a_secured_worker_is_given_up_and_nothing_beside_it(
    guarded_url: str, tmp_path: Path
) -> None:
    async with HotMesh.init(doomed.APP, connection=guarded_url):
        url = login(guarded_url, await provision(guarded_url, ["w"], app_id=doomed.APP))
    assert await doomed.play(url, tmp_path, "logins", threshold=3, app_url=guarded_url) == [0]


async def _ended(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) <= 0


async def _has(mesh: HotMesh, job_id: str, data: Any) -> bool:
    return bool((await mesh.get_state("one", job_id)).data == data)


# -- engines that do not own the schema ----------------------------------------------------------------------


@pytest.fixture
def app_url(guarded_url: str) -> Iterator[str]:
    """The database, with the login of an app."""
    with app_login(guarded_url) as url:
        yield url


async def test_an_engine_with_the_login_of_an_app_serves_secured_workers(
    guarded_url: str, app_url: str
) -> None:
    """And ends sessions of theirs that stand still."""
    messages: list[StreamData] = []

    async def later(message: StreamData) -> Any:
        messages.append(message)
        return Response(status="pending") if message.data["x"] else {"y": 1}

    made = await provision(guarded_url, ["w"])
    url = login(guarded_url, made)
    async with (
        init_within(WATCHFUL, APP, connection=app_url, migrate="verify") as mesh,
        secured(url, later) as worker,
        connected(guarded_url) as owner,
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        assert await call(mesh, 0) == 1
        calling = asyncio.create_task(call(mesh, 5))
        await eventually(lambda: len(messages) == 2)
        await worker.add({"metadata": {**messages[1].metadata, "guid": "last"}, "data": {"y": 10}})
        assert await calling == 10
        job_id = await mesh.pub("one", {"x": 5})
        await eventually(lambda: len(messages) == 3)
        await mesh.interrupt("one", job_id)
        await mesh.scrub(job_id)
        await settled(owner, APP)
        async with connected(url) as idle:
            await idle.execute("begin")
            await eventually(idle.is_closed)


# -- the end -------------------------------------------------------------------------------------------------

HELD = "select count(*) from hotmesh.worker_stream where reserved_by is not null and visible_at > now()"


async def test_stopping_lets_callbacks_end_and_holds_nothing(guarded_url: str) -> None:
    double = Doubler()
    async with shop(guarded_url) as (mesh, url), connected(guarded_url) as owner:
        double.gate.clear()
        async with secured(url, double, max_concurrency=3) as worker:
            calls = [asyncio.create_task(call(mesh, x)) for x in range(9)]
            await eventually(lambda: len(double.began) == 3)
            stopping = asyncio.create_task(worker.stop(grace=10))
            await asyncio.sleep(0)
            double.gate.set()
            await stopping
        assert await owner.fetchval(HELD) == 0
        began = len(double.began)
        assert began < 9
        other = Doubler()
        async with secured(url, other):
            assert await asyncio.gather(*calls) == [x * 2 for x in range(9)]
        assert began + len(other.began) == 9


async def test_stopping_without_patience_gives_back_what_runs(guarded_url: str) -> None:
    stuck = Doubler()
    async with shop(guarded_url) as (mesh, url), connected(guarded_url) as owner:
        stuck.gate.clear()
        async with secured(url, stuck) as worker:
            calls = [asyncio.create_task(call(mesh, x)) for x in range(5)]
            await eventually(lambda: len(stuck.began) == 5)
            await worker.stop(grace=0)
        assert await owner.fetchval(HELD) == 0
        async with secured(url, Doubler()):
            assert await asyncio.gather(*calls) == [x * 2 for x in range(5)]


async def test_what_a_lost_claim_reserved_is_run_at_once(
    guarded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Doubler()
    lost = lose_one(monkeypatch, LoginWork, "claim")
    async with shop(guarded_url) as (mesh, url), secured(url, double, lease=60):
        began = time.monotonic()
        assert await call(mesh) == 8
        assert time.monotonic() - began < 10
    assert lost.is_set()
    assert len(double.began) == 1


async def test_an_answer_whose_receipt_is_lost_counts_once(
    guarded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Doubler()
    lost = lose_one(monkeypatch, LoginWork, "answer")
    async with shop(guarded_url) as (mesh, url), secured(url, double):
        assert await call(mesh) == 8
        assert await call(mesh, 5) == 10
    assert lost.is_set()
    assert len(double.began) == 2


async def test_lines_cut_under_load_lose_nothing_and_repeat_nothing(guarded_url: str) -> None:
    double = Doubler()
    async with shop(guarded_url) as (mesh, url), proxied(url) as proxy:
        way = proxy.url.replace("@", f":{urlsplit(url).password}@", 1)
        async with secured(way, double, lease=60, settings={"reconnect_max": 0.2}):
            calls = [asyncio.create_task(call(mesh, x)) for x in range(200)]
            await eventually(lambda: double.began)
            for _ in range(4):
                proxy.cut()
                await asyncio.wait(calls, timeout=0.1)
            assert await asyncio.gather(*calls) == [x * 2 for x in range(200)]
    assert len(double.began) == 200
    assert proxy.accepted > 5


PROGRAM = """
import asyncio, sys
from hotmesh import HotMesh, Worker
async def hang(message):
    print("got", flush=True)
    await asyncio.sleep(600)
async def main():
    async with HotMesh.init(sys.argv[1], engine=False, secured=True, workers=[Worker("w", hang)], lease=1):
        await asyncio.sleep(600)
asyncio.run(main())
"""


@contextmanager
def hanging(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process with nothing but a worker login, whose callback never ends."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HOTMESH_DATABASE_URL": url}
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, APP], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


async def test_work_of_a_killed_process_is_taken_over_after_its_lease(guarded_url: str) -> None:
    double = Doubler()
    async with shop(guarded_url) as (mesh, url), connected(guarded_url) as owner:
        calling = asyncio.create_task(call(mesh))
        with hanging(url) as first:
            assert first.stdout is not None
            line = await asyncio.wait_for(asyncio.to_thread(first.stdout.readline), 30)
            assert line == "got\n"
            async with secured(url, double):
                # It is alive: its lease of a second is renewed, and nobody else gets the work.
                done, _ = await asyncio.wait([calling], timeout=2)
                assert not done
                assert double.began == []
                first.kill()
                killed = time.monotonic()
                assert await calling == 8
                assert time.monotonic() - killed < 6
        assert len(double.began) == 1
        assert await _sessions_end(owner)


async def _sessions_end(owner: asyncpg.Connection) -> bool:
    """None of a worker login is left behind."""
    count = "select count(*) = 0 from pg_stat_activity where usename like 'hmsh_wrk%' and datname = current_database()"
    return bool(await eventually(lambda: owner.fetchval(count)))
