"""The listening connection: what it hands on, and that it is there again after a loss."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from harness import connected, eventually
from hotmesh import HotMesh
from hotmesh.errors import ConfigError
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.runtime.members.listener import Listener, ListenerLimits, member_channel

pytestmark = pytest.mark.anyio

APP = "listens"

QUICK = ListenerLimits(probe_period=2.0, guid_held_retry=0.1)


class Heard:
    """What a listener hands on."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.connections = 0
        self.counts: list[tuple[int, int]] = []

    def message(self, message: dict[str, Any]) -> None:
        if "odd" in message:
            raise KeyError("what it lacks")
        self.messages.append(message)

    def connected(self) -> None:
        self.connections += 1

    def counted(self, engines: int, members: int) -> None:
        self.counts.append((engines, members))


@asynccontextmanager
async def listening(url: str, heard: Heard, **ways: Any) -> AsyncIterator[Listener]:
    database = Database(ConnectionSource(url, **ways), "hotmesh", APP)
    listener = Listener(
        database,
        "me",
        heard.message,
        heard.connected,
        counted=heard.counted,
        longest_pause=0.1,
        limits=QUICK,
    )
    async with anyio.create_task_group() as tasks:
        await listener.run(tasks)
        yield listener
        tasks.cancel_scope.cancel()
    await database.close()


async def notify(url: str, channel: str, message: Any) -> None:
    async with connected(url) as connection:
        text = message if isinstance(message, str) else json.dumps(message)
        await connection.execute("select pg_notify($1, $2)", channel, text)


async def test_what_is_for_all_and_what_is_for_it_alone_is_handed_on(database_url: str) -> None:
    heard = Heard()
    async with listening(database_url, heard) as listener:
        assert listener.own_channel == member_channel(listener.channel, "me")
        await notify(database_url, listener.channel, {"e": 1})
        await notify(database_url, listener.own_channel, {"a": 1})
        await notify(database_url, member_channel(listener.channel, "another"), {"a": 2})
        await eventually(lambda: len(heard.messages) == 2)

    assert heard.messages == [{"e": 1}, {"a": 1}]
    assert not listener.own_channel
    assert not listener.session


async def test_what_is_not_ours_is_no_message(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    async with listening(database_url, heard) as listener:
        for odd in ("no JSON", "[1]", {"odd": 1}, {"e": 1}):
            await notify(database_url, listener.channel, odd)
        await eventually(lambda: heard.messages == [{"e": 1}])

    assert caplog.text.count("notification is not ours") == 2


async def test_a_connection_that_was_lost_is_made_again_and_everything_looked_at(database_url: str) -> None:
    heard = Heard()
    async with listening(database_url, heard) as listener, connected(database_url) as connection:
        for losses in (1, 2):
            await connection.execute("select pg_terminate_backend($1)", listener.session)
            await eventually(lambda: listener.reconnects == losses, what="a new connection")  # noqa: B023
            assert heard.connections == losses + 1
        await notify(database_url, listener.channel, {"e": 1})
        await eventually(lambda: heard.messages == [{"e": 1}])


async def test_a_guid_that_another_has_is_refused_at_the_start(database_url: str) -> None:
    async with listening(database_url, Heard()):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with listening(database_url, Heard()):
                pass
        assert caught.group_contains(ConfigError, match="in use by another instance")
    async with listening(database_url, Heard()) as again:
        assert again.session is not None


async def test_where_no_session_is_kept_nothing_is_heard(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    async with listening(database_url, heard, direct=False) as listener:
        assert not listener.hears
        assert listener.own_channel is None
        assert listener.channel
    assert heard.connections == 0
    assert "no notifications" in caplog.text


async def test_it_says_how_many_members_hear_the_same_hints(database_url: str) -> None:
    heard = Heard()
    async with listening(database_url, heard):
        assert heard.counts == [(0, 1)]
        async with (
            HotMesh.init(APP, connection=database_url),
            HotMesh.init(APP, connection=database_url, engine=False),
        ):
            await eventually(lambda: heard.counts[-1] == (1, 3))
