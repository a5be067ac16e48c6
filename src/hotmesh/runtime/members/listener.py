"""The listening connection: hints and results from other processes.

NOTIFY is a hint and the table is the truth. A connection that breaks is made again, subscribed again, and followed by
one look at everything, so that nothing is missed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from hotmesh.core.wire import loads
from hotmesh.errors import ConfigError, ConnectionLostError, HotMeshError
from hotmesh.postgres import notifications
from hotmesh.postgres.connect.driver import is_closed, terminate
from hotmesh.postgres.connect.failures import backoff, translated
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.members import (
    count_members,
    give_back_gone,
    gone_members,
    join_mesh,
    leave_mesh,
    take_guid,
)
from hotmesh.runtime.outage import Outage, current
from hotmesh.runtime.service import Flag

logger = logging.getLogger("hotmesh.listener")


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """Times in seconds."""

    probe_period: float = 15.0
    """Between two checks that the connection is alive, and for its answer."""
    guid_held_retry: float = 3.0
    """In which Postgres notices that a process was killed, and lets go of its guid."""
    look_period: float = 3.0
    """Between two looks of an engine for members that have died."""
    confirm_after: float = 1.0
    """Until the second look at one that has lost its lock, because it may be connecting anew."""
    steady_after: float = 5.0
    """From then on a connection was a good one, and its loss is the first."""


def _nobody(_engines: int, _members: int) -> None:
    """Nobody wants to know."""


LISTENER: Final = "the listener"
"""How it is called in the log."""


class Listener:
    """Listens on the app's channel and on the member's own, on a connection that keeps its session.

    Where there is none (`direct_connection=False`) nothing is heard, and all is found by polling.
    """

    def __init__(
        self,
        database: Database,
        member: str,
        heard: Callable[[dict[str, Any]], None],
        connected: Callable[[], None],
        *,
        counted: Callable[[int, int], None] = _nobody,
        engine: bool = False,
        longest_pause: float = 5.0,
        limits: ListenerLimits,
    ) -> None:
        """`counted` is told now and then how many engines the app has, and how many members."""
        self._database = database
        self._member = member
        self._heard = heard
        self._connected = connected
        self._counted = counted
        self._engine = engine
        self._longest_pause = longest_pause
        self._limits = limits
        self._started = False
        self._outage = Outage()
        self.reconnects = 0
        self.channel = ""
        self.session: int | None = None
        """The session that listens, by which `live_members` knows this member; None while there is none."""
        self.own_channel: str | None = None
        """This member's own channel, while it listens there."""

    @property
    def hears(self) -> bool:
        """Whether there is a way to hear anything."""
        return self._database.source.direct is not None

    async def run(self, tasks: TaskGroup) -> None:
        """Start to listen; returns once there is a connection."""
        await tasks.start(self._serve, name="listen")

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        source = self._database.source.direct
        if source is None:
            await self._go_without(task_status)
            return
        failures = 0
        self._outage = current()
        while True:
            since = anyio.current_time()
            error: Exception = ConnectionLostError("the session that listens has ended")
            try:
                await self._listen(source, task_status)
            except Exception as failure:
                # A function that connects is the users', and may raise anything.
                if not self._started:
                    raise
                error = failure
            steady = anyio.current_time() - since > self._limits.steady_after
            pause = 0.0 if steady else backoff(failures, longest=self._longest_pause)
            failures = 0 if steady else failures + 1
            self._outage.lost(LISTENER, error, pause)
            await anyio.sleep(pause)

    async def _go_without(self, task_status: TaskStatus[None]) -> None:
        logger.warning(
            "no notifications: what other processes do is found by polling, and their messages to subscribers are lost"
        )
        async with self._database.connection() as connection:
            self.channel = await notifications.channel(self._database, connection)
        self._started = True
        task_status.started()
        await anyio.sleep_forever()

    async def _listen(self, source: ConnectionSource, task_status: TaskStatus[None]) -> None:
        connection = await source.connect()
        lost = Flag()

        def ended(_connection: object) -> None:
            lost.set()

        try:
            connection.add_termination_listener(ended)
            with translated(), anyio.fail_after(self._limits.probe_period):
                self.channel = await notifications.channel(self._database, connection)
                for channel in (self.channel, member_channel(self.channel, self._member)):
                    await connection.add_listener(channel, self._receive)
                owns = await self._take_guid(connection)
                # Only now: who counts as a member hears everything.
                self.session = await join_mesh(self._database, connection, engine=self._engine)
                self._counted(*await count_members(self._database, connection))
            self.own_channel = member_channel(self.channel, self._member)
            self._connected()
            if not self._started:
                self._started = True
                task_status.started()
            else:
                self.reconnects += 1
                self._outage.back(LISTENER)
            probe_at = anyio.current_time() + self._limits.probe_period
            suspected: frozenset[str] = frozenset()
            while not await lost.wait(self._pause(probe_at, suspected)):
                if self._engine:
                    suspected = await self._look_for_the_dead(connection, suspected)
                if anyio.current_time() >= probe_at:
                    await self._probe(connection)
                    owns = owns or await self._take_guid(connection)
                    probe_at = anyio.current_time() + self._limits.probe_period
        finally:
            self.session = None
            self.own_channel = None
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await self._close(source, connection, ended)

    def _pause(self, probe_at: float, suspected: frozenset[str]) -> float:
        """Seconds until there is something to do on the connection."""
        pause = max(probe_at - anyio.current_time(), 0.0)
        if not self._engine:
            return pause
        return min(pause, self._limits.confirm_after if suspected else self._limits.look_period)

    async def _look_for_the_dead(self, connection: Connection, suspected: frozenset[str]) -> frozenset[str]:
        """Let others have what members held that have died; whom to look at again soon: they may be connecting anew."""
        with translated(), anyio.fail_after(self._limits.probe_period):
            gone = await gone_members(self._database, connection)
            confirmed = gone & suspected
            given = await give_back_gone(self._database, connection, confirmed) if confirmed else ()
        for guid, held in given:
            if held:
                logger.warning(
                    "work given back of a member that is gone", extra={"gone": guid, "count": held}
                )
        return gone - confirmed

    async def _take_guid(self, connection: Connection) -> bool:
        """Have the guid on this connection; whether it was free. Raises ConfigError at the start if another instance has it.

        Later that is most likely the connection that was lost, of which the server does not know yet.
        """
        until = anyio.current_time() + (0.0 if self._started else self._limits.guid_held_retry)
        with translated(), anyio.fail_after(self._limits.probe_period):
            while (
                holder := await take_guid(self._database, connection, self._member, engine=self._engine)
            ) is not None:
                if anyio.current_time() >= until:
                    break
                await anyio.sleep(0.05)
        if holder is None:
            return True
        if not self._started:
            raise ConfigError(
                f"config.guid [{self._member}] is in use by another instance of app {self._database.app_id}, which runs in "
                f"another process (its session of Postgres is {holder}, see pg_stat_activity): leave guid out, or stop "
                "that one first. One whose machine has died is gone after half a minute"
            )
        logger.warning("guid is held by another session", extra={"guid": self._member, "session": holder})
        return False

    async def _probe(self, connection: Connection) -> None:
        """A half-open connection says nothing for ever; a statement finds out.

        It also finds a server that a failover left behind: nothing is announced there any more.
        """
        with translated(), anyio.fail_after(self._limits.probe_period):
            if not await notifications.is_writable(self._database, connection):
                raise ConnectionLostError(
                    "the listening connection leads to a server that is read-only by now"
                )
            self._counted(*await count_members(self._database, connection))

    async def _close(
        self, source: ConnectionSource, connection: Connection, ended: Callable[[object], None]
    ) -> None:
        """Close the connection; one of a user's pool goes back as it came."""
        try:
            with translated():
                if not is_closed(connection):
                    connection.remove_termination_listener(ended)
                    for channel in (self.channel, member_channel(self.channel, self._member)):
                        await connection.remove_listener(channel, self._receive)
                    await leave_mesh(self._database, connection, self._member, engine=self._engine)
                    await source.release(connection)
        except (HotMeshError, OSError):
            terminate(connection)

    def _receive(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        try:
            message = loads(str(payload))
        except msgspec.DecodeError:
            logger.warning("notification is not ours", extra={"channel": channel})
            return
        if isinstance(message, dict):
            try:
                self._heard(message)
            except (HotMeshError, AttributeError, KeyError, TypeError, ValueError):
                # Whoever knows a channel may send there what he likes.
                logger.warning("notification is not ours", extra={"channel": channel})


def member_channel(channel: str, member: str) -> str:
    """The channel of one process: the app's channel cannot be part of it whole, names have 63 bytes."""
    return "hotmesh:" + blake2b(f"{channel}/{member}".encode(), digest_size=20).hexdigest()
