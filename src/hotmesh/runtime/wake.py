"""Waking up: an event with a time limit, and the hints that processes send each other.

A hint is a small JSON object on the app's NOTIFY channel. It is never needed for correctness: whoever misses one
finds the rows by polling.

All members of an app hear the same hint, and one of them is enough. So who has looked in vain after the last hints waits a little
after the next one: the more members there are, the longer, each for another time, so that the first of them looks at once or nearly.
Who finds something looks at once from then on.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Collection
from typing import Any, Final

import anyio

from hotmesh.core.state.step import WorkKey
from hotmesh.runtime.service import Flag

EVENTS = '{"e":1}'
"""There is something on the engine stream."""

HANDOVER = 0.5
"""Seconds after which others take a message that one process means to handle from memory."""

DEFINITIONS = '{"d":1}'
"""Something was deployed or activated."""

EVERY_TOPIC = "*"

SMALL_CROWD: Final = 4
"""So many members all look at once."""

TURN: Final = 0.01
"""Seconds for each member beyond these, in which all of them look who have looked in vain."""

AT_ONCE: Final = 3
"""How many of them, about, look at once."""

EAGER: Final = 4
"""Looks in vain, in a row, after which a member takes turns with the others."""


def with_events(hint: str | None) -> str:
    """The hint, and that there is something on the engine stream."""
    return EVENTS if hint is None else EVENTS[:-1] + "," + hint[1:]


def with_ended(hint: str | None, generations: Collection[str]) -> str:
    """The hint, and that these jobs have ended whose steps may run elsewhere; of very many only some."""
    ended = json.dumps({"g": list(generations)[:100]}, separators=(",", ":"))
    return ended if hint is None else f"{ended[:-1]},{hint[1:]}"


def with_cut_off(hint: str | None, keys: Collection[tuple[WorkKey, bool]]) -> str:
    """The hint, and that these activities are to end, wherever they run; `True`: because they are asked to. Of very many only some.

    Who does not hear it finds out when the lease is renewed.
    """
    told: list[Any] = []
    size = 0
    for key, asked in keys:
        one = [*key, asked]
        size += len(json.dumps(one))
        if size > LONGEST_CUT_OFF:
            break
        told.append(one)
    cut_off = json.dumps({"c": told}, separators=(",", ":"))
    return cut_off if hint is None else f"{cut_off[:-1]},{hint[1:]}"


LONGEST_CUT_OFF: Final = 3_000
"""Characters."""


def work_hint(topics: Collection[str]) -> str:
    """There is work on these topics."""
    text = json.dumps({"w": sorted(topics)}, separators=(",", ":"))
    return text if len(text.encode()) <= 7_000 else json.dumps({"w": [EVERY_TOPIC]})


class Wake(Flag):
    """Something to wait for: `set` by whoever knows, or the time is up.

    Who waits for what many may have says `looked` after each look, and hears of it by `hint`.
    """

    __slots__ = ("_alarm", "_longest", "_looked_at", "_place", "_told", "_vain", "crowd")

    def __init__(self, longest: float) -> None:
        super().__init__()
        self._longest = longest
        self._alarm: asyncio.TimerHandle | None = None
        self.crowd = 1
        """How many may hear the same hint."""
        self._told = False
        self._vain = 0
        """Looks in a row for which there was a reason, and that found nothing."""
        self._looked_at = float("-inf")
        self._place = 0.0
        """Where in the time in which all of the crowd look this one does: from 0 to 1."""

    def hint(self, seconds: float = 0.0) -> None:
        """There may be something for one of the crowd, now or in some seconds."""
        pause = self.hesitant(seconds)
        if pause > 0:
            self.set_in(pause)
        else:
            self.set()

    def hesitant(self, seconds: float) -> float:
        """In how many seconds to look for what is there in `seconds` for one of the crowd.

        The same until the next look, so that many hints do not bring it nearer.
        """
        self._told = True
        span = min((self.crowd - SMALL_CROWD) * TURN, self._longest)
        if self._vain < EAGER or span <= 0 or self._place <= 0:
            return seconds
        now = asyncio.get_running_loop().time()
        # Where hints come all the time, one look in each span; else all would look as often as half of it.
        rested = self._looked_at + span * (0.5 + self._place) - now
        return max(seconds + span * self._place, rested)

    def looked(self, *, found: bool) -> None:
        """A look is over."""
        if found:
            self._vain = 0
        elif self._told:
            self._vain += 1
        self._told = False
        self._looked_at = asyncio.get_running_loop().time()
        # Some look at once, so that the last hint after a long time is as fast as the first.
        chance = random.random()  # noqa: S311 - no secret
        self._place = 0.0 if chance * self.crowd < AT_ONCE else random.random()  # noqa: S311

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
