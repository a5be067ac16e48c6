"""The pace of one consumer: when it may start its next message, by its rate and by the floor that duress puts under that.

A rate is the least number of milliseconds between two starts; -1 is a pause, 0 no limit. Nothing here costs anything as
long as there is neither rate nor floor.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from hotmesh.enums import PAUSED
from hotmesh.runtime.service import Flag

RELOOK: Final = 0.5
"""Seconds after which who waits for a turn looks whether the floor has changed."""


class Pace:
    """When one consumer may start its next message. All times by `time.monotonic`."""

    __slots__ = ("_alarm", "_changed", "_floor", "_last", "_starting", "rate")

    def __init__(self, rate: int = 0, floor: Callable[[], float] | None = None) -> None:
        self.rate = rate
        self._floor = floor
        self._last = time.monotonic()
        self._starting = False
        self._alarm: asyncio.TimerHandle | None = None
        self._changed = Flag()

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
            await self._changed.wait(min(left, RELOOK))

    def wake(self) -> None:
        """Let whoever waits for a turn look again."""
        self._changed.set()
        self._changed.clear()

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


def effective(rate: int, floor: float) -> float:
    """What a consumer obeys: its rate or the floor, whichever is slower, in milliseconds; a pause always wins."""
    return rate if rate == PAUSED else max(rate, floor, 0)
