"""System events: once per committed transition, by whoever performed it, and never in the way of the work."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import eventually, one_worker
from hotmesh import ConfigError, HotMesh, SystemEvent, Worker
from hotmesh.postgres import commits
from hotmesh.runtime.definitions import program
from interception import database_of, intercept

pytestmark = pytest.mark.anyio

GRAPH = """
app:
  id: review
  version: '1'
  graphs:
    - subscribes: review.start
      expire: 3600
      activities:
        t1: {type: trigger}
        h1:
          type: hook
          sleep: '{t1.output.data.sleep}'
          escalation: {role: approver, priority: 2, description: 'Order A'}
          job: {maps: {ok: '{$self.hook.data.ok}'}}
      transitions:
        t1: [{to: h1}]
      hooks:
        review.done:
          - to: h1
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
"""


class Sink:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.seen: list[SystemEvent] = []

    async def publish(self, event: SystemEvent) -> None:
        self.seen.append(event)

    def verbs(self, job_id: str | None = None) -> list[str]:
        found = [event for event in self.seen if event.type.startswith("system.escalation")]
        return [
            event.type.rpartition(".")[2] for event in found if job_id is None or event.workflow_id == job_id
        ]

    async def heard(self, verb: str, job_id: str) -> SystemEvent:
        def look() -> Any:
            for event in self.seen:
                if event.workflow_id == job_id and event.type.endswith(f".{verb}"):
                    return event
            return None

        found: SystemEvent = await eventually(look, what=f"event {verb}")
        return found


@asynccontextmanager
async def reviewing(url: str, **more: Any) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("review", connection=url, **more) as mesh:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        yield mesh


@pytest.mark.row(357, 358, 359)
async def test_started_deployed_stopped(empty_database_url: str) -> None:
    sink = Sink()
    async with reviewing(empty_database_url, events=sink) as mesh:
        await eventually(lambda: len(sink.seen) == 3)
        guid = mesh.guid_

    kinds = ["deployed", "started", "deployed", "stopped"]
    assert [event.type for event in sink.seen] == [f"system.engine.review.{kind}" for kind in kinds]
    assert [event.data for event in sink.seen] == [
        {"appId": "review"},
        {"appId": "review", "guid": guid},
        {"appId": "review", "version": "1"},
        {"appId": "review", "guid": guid},
    ]
    for event in sink.seen:
        assert (event.namespace, event.app_id) == ("hotmesh", "review")
        assert event.event_id == f"review:{event.type.rpartition('.')[2]}:{event.ts}"
        assert "workflow_id" not in event.as_dict()


@pytest.mark.row(180)
async def test_a_work_item_is_told_whole(database_url: str) -> None:
    sink = Sink()
    async with reviewing(database_url, events=sink) as mesh:
        job_id = await mesh.pub("review.start", {})
        created = await sink.heard("created", job_id)

        assert created.type == f"system.escalation.{created.data['id']}.created"
        assert created.event_id == f"{created.data['id']}:created:{created.data['updated_at']}"
        assert created.data["updated_at"].endswith("+00:00")
        assert len(created.data) == 35
        assert (created.data["role"], created.data["status"], created.data["signal_key"]) == (
            "approver",
            "pending",
            job_id,
        )
        assert created.topic == "review.done"

        await mesh.signal("review.done", {"id": job_id, "ok": True})
        resolved = await sink.heard("resolved", job_id)
        assert resolved.data["resolver_payload"] == {"id": job_id, "ok": True}
        await mesh.signal("review.done", {"id": job_id, "ok": True})
    assert sink.verbs(job_id) == ["created", "resolved"]


async def test_a_timer_expires_and_an_interrupt_cancels_each_row_once(database_url: str) -> None:
    sink = Sink()
    async with reviewing(database_url, events=sink) as mesh:
        slept = await mesh.pub("review.start", {"sleep": 0.05})
        stopped = await mesh.pub("review.start", {})
        scrubbed = await mesh.pub("review.start", {})
        await sink.heard("expired", slept)
        await mesh.interrupt("review.start", stopped)
        await sink.heard("cancelled", stopped)
        await mesh.scrub(scrubbed)
        await sink.heard("cancelled", scrubbed)

    assert [sink.verbs(job_id) for job_id in (slept, stopped, scrubbed)] == [
        ["created", "expired"],
        ["created", "cancelled"],
        ["created", "cancelled"],
    ]


async def test_of_two_processes_the_one_that_did_it_tells(database_url: str) -> None:
    one, other = Sink(), Sink()
    async with reviewing(database_url, events=one, readonly=True) as first:
        job_id = await first.pub("review.start", {})
        await one.heard("created", job_id)
        async with HotMesh.init("review", connection=database_url, events=other):
            await first.signal("review.done", {"id": job_id})
            await other.heard("resolved", job_id)

    assert (one.verbs(), other.verbs()) == (["created"], ["resolved"])


async def test_a_job_that_is_given_up_cancels_its_rows(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("cannot be handled")

    sink = Sink()
    async with reviewing(database_url, events=sink, settings={"poison_threshold": 1}) as mesh:
        job_id = await mesh.pub("review.start", {})
        await sink.heard("created", job_id)
        monkeypatch.setattr(program, "advance", fails)
        await mesh.signal("review.done", {"id": job_id})
        await sink.heard("cancelled", job_id)


@pytest.mark.row(360)
async def test_a_sink_that_raises_harms_nothing(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    def refuses(event: SystemEvent) -> None:
        raise RuntimeError("no room")

    with caplog.at_level(logging.ERROR, "hotmesh.events"):
        async with reviewing(database_url, events=refuses) as mesh:
            job_id = await mesh.pub("review.start", {})
            await mesh.signal("review.done", {"id": job_id, "ok": 1})
            await eventually(lambda: mesh_ended(mesh, job_id))
            assert (await mesh.get_state("review.start", job_id)).data == {"ok": 1}
            await eventually(
                lambda: any(
                    record.__dict__.get("event") == "event sink raised"
                    and record.__dict__["type"].endswith(".created")
                    for record in caplog.records
                )
            )


async def mesh_ended(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) == 0


@pytest.mark.row(360)
async def test_a_sink_that_blocks_holds_up_nothing(database_url: str) -> None:
    free = threading.Event()

    def blocks(event: SystemEvent) -> None:
        free.wait(30)

    async def call(_message: Any) -> dict[str, Any]:
        return {"y": 1}

    try:
        mesh = await HotMesh.init(
            "quick", connection=database_url, workers=[Worker("w", call)], events={"publish": blocks}
        )
        await mesh.deploy(one_worker("quick"))
        await mesh.activate("1")
        assert (await mesh.pubsub("one", {"x": 1}, timeout=10)).data == {"y": 1}
        async with asyncio.timeout(5):
            await mesh.stop(grace=0.1)
    finally:
        free.set()


async def test_what_is_no_sink_is_refused(database_url: str) -> None:
    with pytest.raises(ConfigError, match="publish"):
        await HotMesh.init("quick", connection=database_url, events={"publsh": print})


async def test_without_a_sink_a_commit_is_one_statement(database_url: str) -> None:
    async with reviewing(database_url) as mesh:
        watched: list[Any] = []

        async def commit(*arguments: Any, **options: Any) -> Any:
            watched.append(options["watched"])
            return await honest(*arguments, **options)

        honest = intercept(database_of(mesh), commits.commit, commit)
        await mesh.pub("review.start", {})
        assert watched == [()]
        assert mesh._member.events is None


class Backwards:
    """A codec that anybody can read."""

    def encode(self, text: str) -> str:
        return text[::-1]

    def decode(self, text: str) -> str:
        return text[::-1]


async def test_what_a_codec_wrote_is_told_decoded(database_url: str) -> None:
    sink = Sink()
    async with reviewing(database_url, events=sink, codec=Backwards()) as mesh:
        job_id = await mesh.pub("review.start", {})
        await mesh.signal("review.done", {"id": job_id, "ok": True})
        resolved = await sink.heard("resolved", job_id)

    assert resolved.data["resolver_payload"] == {"id": job_id, "ok": True}
