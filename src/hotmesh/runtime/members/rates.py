"""How fast consumers may start messages: the rates that are set, and which of them each consumer obeys.

A rate is the least number of milliseconds between two starts of one consumer; -1 pauses it, 0 is no limit. Rates of the
engines, of all workers, and of the workers of a topic are rows, each committed with the message that says so; whoever listens
hears that they have changed and reads them again, and everybody reads them at the start and after each reconnect. So a message
that is lost delays a rate, at most until then. The rate of one member is a message and no row: it lasts as long as the member,
unless a later one replaces it, and a member that does not hear it goes on as before.
"""

from __future__ import annotations

import logging

import anyio
from anyio.abc import TaskGroup
from msgspec import UNSET
from msgspec.structs import replace

from hotmesh.core.arguments import checked_text, is_storable
from hotmesh.core.lengths import LONGEST_TOPIC
from hotmesh.core.wire import dumps_text
from hotmesh.errors import ConfigError
from hotmesh.postgres.database import Database
from hotmesh.postgres.members import Rates, read_rates, store_rate
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.members.bus import Bus, envelope
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.members.messages import SCOPES, Throttle, checked_rate, checked_scope
from hotmesh.runtime.service import Flag
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.work.workers import Workers

logger = logging.getLogger("hotmesh.quorum")


class Throttles:
    """Sets rates, and lets the consumers of one member obey those that hold for them. `run` reads them, and follows them."""

    def __init__(
        self,
        database: Database,
        guid: str,
        settings: Settings,
        bus: Bus,
        listener: Listener,
        engine: Engine | None,
        workers: Workers,
    ) -> None:
        self._database = database
        self._guid = guid
        self._settings = settings
        self._bus = bus
        self._listener = listener
        self._engine = engine
        self._workers = workers
        self._rates = MemberRates()
        self._to_read = Flag()
        self._followers: list[Throttles] = []

    @property
    def stored(self) -> Rates:
        """The stored rates as they were read last."""
        return self._rates.stored

    async def throttle(self, rate: int, guid: str | None, topic: str | None, scope: str) -> None:
        """Set a rate; of one member as long as it lives, of all durably. Raises ConfigError."""
        message = throttle_message(rate, guid, topic, scope)
        if guid is not None:
            await self._bus.send(topic or guid, [message])
            return
        message = replace(message, stored=True)
        scopes = SCOPES["workers" if topic is not None else scope]
        await store_rate(self._database, scopes, topic, rate, dumps_text(envelope(topic or "", message)))
        # This process need not wait for its own message.
        self._rates.adopt(message)
        await self._read()
        logger.info("rate stored", extra={"rate": rate, "topic": topic, "scope": scope})

    async def stored_rate(self, topic: str | None, scope: str) -> int:
        """The stored rate of workers of a topic, of all workers, or of engines, as it is now. Raises ConfigError."""
        if scope not in ("engines", "workers"):
            raise ConfigError(f"scope must be engines or workers, not {scope!r}")
        rates = await read_rates(self._database)
        if scope == "engines":
            return rates.engines
        return rates.workers if topic is None else rates.topics.get(topic, rates.workers)

    # -- obeying -----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Read the rates, so that nothing is consumed before, and start to follow them."""
        self._to_read.clear()
        await self._read()
        tasks.start_soon(self._follow, name="follow rates")

    def connected(self) -> None:
        """Listening (again): rates may have changed meanwhile."""
        self._to_read.set()

    def followed_by(self, follower: Throttles) -> None:
        """Whatever slows this member slows that one, too."""
        self._followers.append(follower)

    def on_message(self, message: Throttle) -> None:
        """Somebody sets a rate. Raises ConfigError if it is none.

        A message that does not say `stored` sets the rate of who hears it, until a later one replaces that.
        """
        if message.guid == self._guid:
            for follower in self._followers:
                follower.on_message(replace(message, guid=follower._guid))
        elif isinstance(message.guid, str):
            return
        self._rates.adopt(message)
        if message.stored:
            self._to_read.set()
        else:
            self._apply()

    async def _follow(self) -> None:
        delay = 0.1
        while True:
            # Who hears nothing has to look.
            await self._to_read.wait(None if self._listener.hears else self._settings.poll)
            self._to_read.clear()
            try:
                await self._read()
                delay = 0.1
            except Exception as error:  # noqa: BLE001 - nothing may end this loop
                logger.warning("rates could not be read", extra={"error": str(error)})
                self._to_read.set()
                await anyio.sleep(delay)
                delay = min(delay * 2, self._settings.reconnect_max)

    async def _read(self) -> None:
        self._rates.stored = await read_rates(self._database)
        self._apply()

    def _apply(self) -> None:
        if self._engine is not None:
            self._engine.set_rate(self._rates.engine)
        self._workers.apply_rates(self._rates.worker)


class MemberRates:
    """The rates that hold for one member's consumers: those that it was given itself, else those that are stored."""

    def __init__(self) -> None:
        self.stored = Rates()
        self._engine: int | None = None
        self._workers: int | None = None
        self._topics: dict[str, int] = {}

    @property
    def engine(self) -> int:
        """The rate of the member's engine."""
        return self.stored.engines if self._engine is None else self._engine

    def worker(self, topic: str) -> int:
        """The rate of the member's workers of a topic: the topic's own if it has one."""
        own = self._topics.get(topic, self._workers)
        return self.stored.topics.get(topic, self.stored.workers) if own is None else own

    def adopt(self, message: Throttle) -> None:
        """Take the rate for the member's own; a stored one replaces that. Raises ConfigError if it is none."""
        rate = None if message.stored else checked_rate(message.throttle)
        topic = message.topic
        if topic is not UNSET and topic is not None:
            if rate is None:
                self._topics.pop(topic, None)
            else:
                self._topics[topic] = rate
            return
        if message.scope != "workers":
            self._engine = rate
        if topic is UNSET:
            self._workers = rate
            self._topics.clear()


def throttle_message(rate: int, guid: str | None, topic: str | None, scope: str) -> Throttle:
    """The message that sets a rate. Raises ConfigError if it would reach nobody."""
    checked_rate(rate)
    checked_scope(scope)
    for name, value in (("guid", guid), ("topic", topic)):
        if value is not None and (not isinstance(value, str) or not value or not is_storable(value)):
            raise ConfigError(f"{name} must be a non-empty text without NUL, not {value!r}")
    if topic is not None:
        checked_text(topic, "topic", LONGEST_TOPIC)
    if topic is not None and scope == "engines":
        raise ConfigError("engines have no topic: leave out topic=, or use scope='workers'")
    return Throttle(
        throttle=rate,
        guid=UNSET if guid is None else guid,
        topic=UNSET if topic is None and scope != "engines" else topic,
        scope=scope if topic is None and scope == "workers" else UNSET,
    )
