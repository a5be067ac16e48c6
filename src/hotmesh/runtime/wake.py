"""Waking up: an event with a time limit, and the hints that processes send each other.

A hint is a small JSON object on the app's NOTIFY channel. It is never needed for correctness: whoever misses one
finds the rows by polling.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection

import anyio

from hotmesh.runtime.service import Flag

EVENTS = '{"e":1}'
"""There is something on the engine stream."""

HANDOVER = 0.5
"""Seconds after which others take a message that one process means to handle from memory."""

DEFINITIONS = '{"d":1}'
"""Something was deployed or activated."""

EVERY_TOPIC = "*"


def with_events(hint: str | None) -> str:
    """The hint, and that there is something on the engine stream."""
    return EVENTS if hint is None else EVENTS[:-1] + "," + hint[1:]


def work_hint(topics: Collection[str]) -> str:
    """There is work on these topics."""
    text = json.dumps({"w": sorted(topics)}, separators=(",", ":"))
    return text if len(text.encode()) <= 7_000 else json.dumps({"w": [EVERY_TOPIC]})


class Wake(Flag):
    """Something to wait for: `set` by whoever knows, or the time is up."""

    __slots__ = ("_alarm", "_longest")

    def __init__(self, longest: float) -> None:
        super().__init__()
        self._longest = longest
        self._alarm: asyncio.TimerHandle | None = None

    def set_in(self, seconds: float) -> None:
        """Set after some time, unless that is sooner already, or later than whoever waits looks anyway."""
        if seconds > self._longest:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._alarm is not None and loop.time() < self._alarm.when() <= when:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_later(seconds, self.set)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until set, at most `timeout` seconds and never longer than the poll; whether it was set."""
        limit = self._longest if timeout is None else min(max(timeout, 0.0), self._longest)
        with anyio.move_on_after(limit):
            await self._event.wait()
        return self._event.is_set()
