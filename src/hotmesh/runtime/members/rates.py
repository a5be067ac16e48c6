"""How fast consumers may start messages: the rates that are set, and what each consumer makes of its own.

A rate is the least number of milliseconds between two starts of one consumer; -1 pauses it, 0 is no limit. Rates of the
engines, of all workers, and of the workers of a topic are rows; whoever listens hears that they have changed and reads
them again, and everybody reads them at the start and after each reconnect. The rate of one member lasts as long as the
member, unless a later one replaces it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio

from hotmesh.core.arguments import is_storable
from hotmesh.enums import PAUSED
from hotmesh.errors import ConfigError
from hotmesh.postgres.members import Rates, read_rates

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store

LARGEST_RATE: Final = 2_147_483_647
"""Milliseconds."""

Scope = Literal["all", "engines", "workers"]

SCOPES: Final[dict[str, tuple[str, ...]]] = {
    "all": ("engines", "workers"),
    "engines": ("engines",),
    "workers": ("workers",),
}


def checked_rate(rate: object) -> int:
    """The rate if it is one. Raises ConfigError."""
    if isinstance(rate, bool) or not isinstance(rate, int) or rate < PAUSED:
        raise ConfigError(
            f"Throttle must be -1 (pause) or a non-negative integer (ms delay); 0 = resume; it was {rate!r}"
        )
    if rate > LARGEST_RATE:
        raise ConfigError(
            "Throttle must be -1 (pause) or a non-negative integer (ms delay); 0 = resume"
            f"; {rate} is more than {LARGEST_RATE}"
        )
    return rate


def message_for(rate: int, guid: str | None, topic: str | None, scope: str) -> dict[str, Any]:
    """The message that sets a rate. Raises ConfigError if it would reach nobody."""
    checked_rate(rate)
    if not isinstance(scope, str) or scope not in SCOPES:
        raise ConfigError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    for name, value in (("guid", guid), ("topic", topic)):
        if value is not None and (not isinstance(value, str) or not value or not is_storable(value)):
            raise ConfigError(f"{name} must be a non-empty text without NUL, not {value!r}")
    if topic is not None and scope == "engines":
        raise ConfigError("engines have no topic: leave out topic=, or use scope='workers'")
    message: dict[str, Any] = {"type": "throttle", "throttle": rate}
    if guid is not None:
        message["guid"] = guid
    if topic is not None:
        message["topic"] = topic
    elif scope == "engines":
        message["topic"] = None
    elif scope == "workers":
        message["scope"] = scope
    return message


def effective(rate: int, floor: float) -> float:
    """What a consumer obeys: its rate or the floor, whichever is slower, in milliseconds; a pause always wins."""
    return rate if rate == PAUSED else max(rate, floor, 0)


class Throttles:
    """The rates of one instance's consumers. `changed` is called whenever they may be different."""

    def __init__(self, store: Store, guid: str, changed: Callable[[], None]) -> None:
        self._store = store
        self._guid = guid
        self._changed = changed
        self._stored = Rates()
        self._engine: int | None = None
        self._workers: int | None = None
        self._topics: dict[str, int] = {}

    async def read(self) -> None:
        """Read what is stored. Raises ConnectionLostError."""
        self._stored = await read_rates(self._store)
        self._changed()

    @property
    def engine(self) -> int:
        """The rate of this instance's engine."""
        return self._stored.engines if self._engine is None else self._engine

    def worker(self, topic: str) -> int:
        """The rate of this instance's workers of a topic: the topic's own if it has one."""
        own = self._topics.get(topic, self._workers)
        return self._stored.topics.get(topic, self._stored.workers) if own is None else own

    def on_message(self, message: Mapping[str, Any]) -> bool:
        """Somebody sets a rate; whether it is a stored one, which has to be read (`read`).

        A message that does not say so sets the rate of who hears it, until a later one replaces that.
        """
        guid = message.get("guid")
        if guid is not None and guid != self._guid:
            return False
        stored = bool(message.get("stored"))
        rate = None if stored else checked_rate(message.get("throttle"))
        topic = message.get("topic")
        if topic is not None:
            if rate is None:
                self._topics.pop(topic, None)
            else:
                self._topics[topic] = rate
        else:
            engines_only = "topic" in message
            if message.get("scope") != "workers":
                self._engine = rate
            if not engines_only:
                self._workers = rate
                self._topics.clear()
        if not stored:
            self._changed()
        return stored


class Pace:
    """When one consumer may start its next message. All times by `time.monotonic`."""

    __slots__ = ("_alarm", "_changed", "_floor", "_last", "_starting", "rate")

    def __init__(self, rate: int = 0, floor: Callable[[], float] | None = None) -> None:
        self.rate = rate
        self._floor = floor
        self._last = time.monotonic()
        self._starting = False
        self._alarm: asyncio.TimerHandle | None = None
        self._changed = anyio.Event()

    @property
    def paused(self) -> bool:
        """Whether nothing may start until the rate changes."""
        return self.rate == PAUSED

    @property
    def delay(self) -> float:
        """Milliseconds between two starts, -1 for a pause: the rate, or the floor where that is more."""
        return effective(self.rate, 0 if self._floor is None else self._floor())

    def change(self, rate: int) -> None:
        """Set the rate; whoever waits for a turn looks again."""
        if self.rate == 0 and self.delay == 0:
            # How long ago the last message started was not noted as long as it did not matter.
            self._last = time.monotonic()
        self.rate = rate
        self.wake()

    def left(self) -> float:
        """Seconds until the next message may start; infinite in a pause."""
        delay = self.delay
        if delay == PAUSED or self._starting:
            return math.inf
        return self._last + delay / 1000 - time.monotonic() if delay else 0.0

    def admit(self) -> bool:
        """Whether a message may start now; no other may until it has (`started`)."""
        if self.left() > 0:
            return False
        self._starting = True
        return True

    def started(self, at: float | None = None) -> None:
        """A message starts, or did at a moment."""
        self._starting = False
        self._last = time.monotonic() if at is None else at

    async def turn(self) -> None:
        """Wait until a message may start."""
        while (left := self.left()) > 0:
            # The floor sinks by itself, so it is looked at again every now and then.
            with anyio.move_on_after(min(left, RELOOK)):
                await self._changed.wait()

    def wake(self) -> None:
        """Let whoever waits for a turn look again."""
        self._changed.set()
        self._changed = anyio.Event()

    def call(self, opened: Callable[[], None]) -> None:
        """Call a function when the next message may start, instead of the one asked for before."""
        self.silence()
        left = self.left()
        if left < math.inf:
            self._alarm = asyncio.get_running_loop().call_later(max(left, 0.0), opened)

    def silence(self) -> None:
        """Call nobody."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


RELOOK: Final = 0.5
"""Seconds after which who waits for a turn looks whether the floor has changed."""
