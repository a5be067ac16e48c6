"""Who is there, what they say about themselves, and what they tell each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness import connected, eventually, one_worker
from hotmesh import ConfigError, HotMesh, MessageTooLargeError, PayloadError, StreamData, Worker
from hotmesh.postgres.members import live_members

pytestmark = pytest.mark.anyio

APP = "rolled"

BOTH = {
    "namespace", "app_id", "engine_id", "stream", "stream_depth", "counts", "error_count", "inited", "timestamp",
    "throttle", "reclaimDelay", "reclaimCount", "system",
}  # fmt: skip
ENGINE = BOTH | {"is_scout", "duress_level", "duress_score_ms", "duress_per_type"}
WORKER = BOTH | {"worker_topic"}


async def answer(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] + 1}


class Heard:
    """What a subscriber got."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.channels: list[str] = []

    async def __call__(self, channel: str, message: dict[str, Any]) -> None:
        self.channels.append(channel)
        self.messages.append(message)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


@pytest.fixture
async def mesh(database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", answer)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        yield mesh


@pytest.mark.row(234, 235, 236)
async def test_one_profile_per_engine_and_worker(mesh: HotMesh) -> None:
    await mesh.pubsub("one", {"x": 1}, timeout=5)
    await mesh.pause(topic="w")
    await mesh.pub("one", {"x": 1})

    engine, worker = await mesh.roll_call(1)

    assert set(engine) == ENGINE
    assert set(worker) == WORKER
    assert (engine.stream, worker.stream) == (f"hotmesh:{APP}:x:", f"hotmesh:{APP}:x:w")
    assert worker["worker_topic"] == worker.worker_topic == "w"
    assert (engine.stream_depth, worker.stream_depth) == (0, 1)
    assert engine.engine_id == worker.engine_id == mesh.guid_
    assert (engine.error_count, worker.error_count) == (0, 0)
    assert engine.counts == {"200": 3}  # two starts and an answer
    assert worker.counts == {"200": 1}
    assert (engine.throttle, worker.throttle) == (0, -1)
    assert (engine.reclaimDelay, engine.reclaimCount) == (30_000, 5)
    assert engine.is_scout is False
    assert engine.duress_level == "healthy"
    assert engine.system["TotalMemoryGB"].endswith(" GB")
    assert engine.system["CPULoad"]
    assert len(engine.inited) == len(engine.timestamp) == len("20300101000000.000")


async def test_a_roll_call_ends_when_all_who_are_there_have_answered(
    mesh: HotMesh, database_url: str
) -> None:
    async with (
        HotMesh.init(APP, connection=database_url) as second,
        HotMesh.init(APP, connection=database_url, engine=False, workers=[Worker("w", answer)]) as third,
        HotMesh.init("other", connection=database_url),
    ):
        begun = time.monotonic()
        found = await mesh.roll_call(30)

        assert time.monotonic() - begun < 15
        assert {(profile.engine_id, profile.get("worker_topic")) for profile in found} == {
            (mesh.guid_, None),
            (mesh.guid_, "w"),
            (second.guid_, None),
            (third.guid_, "w"),
        }
        assert {profile.engine_id for profile in await third.roll_call(30)} == {
            mesh.guid_,
            second.guid_,
            third.guid_,
        }


async def test_who_has_died_is_not_waited_for(mesh: HotMesh, database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url) as other:
        first = other._member.listener.session
        assert first in (await live_members(mesh._member.database)).engines
        async with connected(database_url) as connection:
            await connection.execute("select pg_terminate_backend($1)", first)

        async def gone() -> bool:
            return first not in (await live_members(mesh._member.database)).all

        await eventually(gone)
        # It comes back by itself.
        await eventually(lambda: other._member.listener.session not in (first, None))
        assert len(await mesh.roll_call(30)) == 3


@pytest.mark.row(232)
async def test_workers_repeat_their_profiles(mesh: HotMesh, database_url: str) -> None:
    heard = Heard()
    async with HotMesh.init(APP, connection=database_url, engine=False) as listening:
        await listening.sub_quorum(heard)
        await mesh.pub_quorum(
            {"type": "rollcall", "interval": "200 ms", "max": 2, "topic": "w", "signature": True}
        )
        await eventually(lambda: len(heard.of("pong")) == 2)
        await asyncio.sleep(0.3)

    first, second = heard.of("pong")
    for pong in (first, second):
        assert (pong["originator"], pong["guid"]) == (None, mesh.guid_)
        assert set(pong["profile"]) == WORKER | {"signature"}
        assert "test_roll_call.answer\nasync def answer(" in pong["profile"]["signature"]


@pytest.mark.row(233)
async def test_engines_repeat_their_profiles(mesh: HotMesh) -> None:
    heard = Heard()
    await mesh.sub_quorum(heard)
    await mesh.pub_quorum({"type": "rollcall", "interval": 0.2, "topic": None})

    await eventually(lambda: len(heard.of("pong")) >= 2)
    # Another roll call replaces the first; with interval 0 there is one answer.
    await mesh.pub_quorum({"type": "rollcall", "interval": 0, "topic": None, "guid": mesh.guid_})
    await eventually(lambda: not mesh._member.quorum.roll_calls.repeating and heard.of("rollcall")[1:])
    assert all(set(pong["profile"]) == ENGINE for pong in heard.of("pong"))


@pytest.mark.row(367)
async def test_a_user_message_reaches_every_member(mesh: HotMesh, database_url: str) -> None:
    async with (
        HotMesh.init(APP, connection=database_url) as second,
        HotMesh.init(APP, connection=database_url, engine=False) as third,
        HotMesh.init("other", connection=database_url) as stranger,
    ):
        members = {mesh: Heard(), second: Heard(), third: Heard(), stranger: Heard()}
        for member, heard in members.items():
            await member.sub_quorum(heard)

        sent = {"type": "user", "topic": "cache", "message": {"forget": ["prices"]}}
        assert await mesh.pub_quorum(sent) is True

        await eventually(lambda: all(members[member].of("user") for member in (mesh, second, third)))
        assert [heard.of("user") for heard in members.values()] == [[sent], [sent], [sent], []]
        assert set(members[mesh].channels) == {f"hotmesh:{APP}:q:"}

        large = {"type": "user", "topic": "cache", "message": "☕" * 20_000}
        await second.pub_quorum(large)
        await eventually(lambda: all(len(members[m].of("user")) == 2 for m in (mesh, second, third)))
        assert members[third].of("user")[1] == large

        with pytest.raises(MessageTooLargeError):
            await mesh.pub_quorum({"type": "user", "message": "x" * 2_000_000})
        with pytest.raises(PayloadError):
            await mesh.pub_quorum({"type": "user", "message": {"no": {1, 2}.pop}})
        with pytest.raises(ConfigError, match="interval of a roll call 'soon' is not a duration"):
            await mesh.pub_quorum({"type": "rollcall", "interval": "soon"})
        with pytest.raises(ConfigError, match="max of a roll call must be an integer"):
            await mesh.pub_quorum({"type": "rollcall", "max": "often"})
        with pytest.raises(ConfigError, match="needs a type, one of"):
            await mesh.pub_quorum({"message": "of no type"})


async def test_a_subscriber_that_raises_stops_no_other_and_one_that_leaves_hears_nothing(
    mesh: HotMesh,
) -> None:
    heard, left, gone = Heard(), Heard(), Heard()

    def broken(_channel: str, _message: dict[str, Any]) -> None:
        raise RuntimeError("no")

    for callback in (broken, left, gone.__call__, heard):
        await mesh.sub_quorum(callback)
    await mesh.unsub_quorum(left)
    await mesh.unsub_quorum(gone.__call__)  # a method is another object at each look
    for number in range(2):
        await mesh.pub_quorum({"type": "user", "message": number})

    await eventually(lambda: [message["message"] for message in heard.of("user")] == [0, 1])
    assert left.of("user") == gone.of("user") == []


async def test_what_is_no_message_harms_nobody(mesh: HotMesh, database_url: str) -> None:
    channel = mesh._member.listener.channel
    async with connected(database_url) as connection:
        for text in (
            '{"q": 7}',
            '{"q": {"type": "throttle", "throttle": "fast"}}',
            '{"q": {"type": "ping", "details": "?"}}',
            '{"q": {"type": "rollcall", "interval": "soon"}}',
            '{"q": {"type": "duress", "level": "bad"}}',
            '{"q": {"type": "pong"}}',
            '{"qr": 99}',
            '{"qr": "x"}',
        ):
            await connection.execute("select pg_notify($1, $2)", channel, text)

    assert len(await mesh.roll_call()) == 2
    assert (await mesh.pubsub("one", {"x": 1}, timeout=5)).data == {"y": 2}
    assert [profile.throttle for profile in await mesh.roll_call()] == [0, 0]
