"""Duress: an engine whose messages take long slows down, and tells the other engines of the app.

Each engine keeps a moving average of what a message of each kind costs: the time of a commit or of a look at the stream,
divided by the messages in it. The slowest kind decides the level, and the level a floor under the delay between two
looks at the stream; an engine that is slowed also leaves its memory out, so that other engines can take what it
may not. A worse level counts at once, a better one when it was seen some times in a row. What callers start is never
slowed. A floor that another engine caused sinks by itself, so that one message which got lost slows nobody for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from hotmesh.core.state.job import Event
from hotmesh.runtime.settings import Settings

logger = logging.getLogger("hotmesh.engine")

Level = Literal["healthy", "mild", "moderate", "severe"]

LEVELS: Final[tuple[Level, ...]] = get_args(Level)

FLOORS: Final[tuple[tuple[float, float], ...]] = ((0, 0), (100, 500), (500, 2_000), (2_000, 5_000))
"""Of each level: the floor where it begins and where it ends, in milliseconds."""

HALF_LIFE: Final = 5.0
"""Seconds in which a floor that another engine caused sinks to its half."""

LEAST_FLOOR: Final = 10.0
"""Milliseconds below which a sinking floor is none."""

QUIET: Final = 5.0
"""Seconds after which an engine in duress looks again even if few messages have come."""


STATE_STALE: Final = 30.0
"""Seconds after which what was seen of a kind of message, or of all, says nothing any more."""


@dataclass(frozen=True, slots=True)
class DuressState:
    """How an engine fares; times in milliseconds."""

    level: Level
    score: float
    floor: float
    per_type: dict[str, float]


class Duress:
    """How the engine of this process fares, and what it has heard from others. `clock` in seconds."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._ceilings = [
            ceiling * 1_000
            for ceiling in (settings.duress_healthy, settings.duress_mild, settings.duress_moderate)
        ]
        self._averages: dict[str, float] = {}
        self._seen_at: dict[str, float] = {}
        self._since_look = 0
        self._looked_at = clock()
        self._better = 0
        self._level: Level = "healthy"
        self._floor = 0.0
        self._remote: tuple[Level, float, float] = ("healthy", 0.0, 0.0)
        self._told_at: float | None = None
        self._told: Level = "healthy"
        self.notify: Callable[[Level, float, float], None] = _nobody
        """Called when the other engines have to know: with the level, the average and the floor."""

    # -- this engine -------------------------------------------------------------------------------------

    def took(self, events: Sequence[Event], seconds: float) -> None:
        """Events were handled together in this time."""
        if not self._settings.duress_interval or not events:
            return
        each = seconds * 1_000 / len(events)
        for kind in {event.kind for event in events}:
            self.record(kind, each)
        self._since_look += len(events)
        due = self._since_look >= self._settings.duress_interval
        if due or (self._level != "healthy" and self._clock() - self._looked_at >= QUIET):
            self.look()

    def record(self, kind: str, milliseconds: float) -> None:
        """One more message of a kind; more than what the severest floor is for counts as that."""
        sample = min(milliseconds, 2 * self._ceilings[2])
        known = self._averages.get(kind)
        alpha = self._settings.duress_alpha
        self._averages[kind] = sample if known is None else alpha * sample + (1 - alpha) * known
        self._seen_at[kind] = self._clock()

    def look(self) -> None:
        """Work out the level from the averages, and tell the others if there is something to tell."""
        self._since_look, self._looked_at = 0, self._clock()
        for kind, seen_at in list(self._seen_at.items()):
            if seen_at <= self._looked_at - STATE_STALE:
                del self._averages[kind], self._seen_at[kind]
        score = max(self._averages.values(), default=0.0)
        level, floor = self.grade(score)
        before = self._level
        if LEVELS.index(level) >= LEVELS.index(self._level):
            self._better = 0
            self._level, self._floor = level, floor
        else:
            self._better += 1
            if self._better >= self._settings.duress_patience:
                self._better = 0
                self._level, self._floor = level, floor
        if self._level != before:
            logger.warning(
                "duress changed", extra={"duress": self._level, "average": score / 1_000, "before": before}
            )
        self._tell_if_due(score)

    def grade(self, score: float) -> tuple[Level, float]:
        """The level of an average, and its floor: linear inside the level, and greatest at twice where the last begins."""
        healthy, mild, moderate = self._ceilings
        bounds = ((0.0, healthy), (healthy, mild), (mild, moderate), (moderate, 2 * moderate))
        for level, (low, high), (first, last) in zip(LEVELS, bounds, FLOORS, strict=True):
            if score < high or level == LEVELS[-1]:
                share = min((score - low) / (high - low), 1.0) if high > low else 1.0
                return level, first + share * (last - first)
        raise AssertionError("the last level takes every score")

    def _tell_if_due(self, score: float) -> None:
        if self._level == self._told == "healthy":
            return
        now = self._clock()
        if self._told_at is not None and now - self._told_at < self._settings.duress_broadcast:
            return
        self._told_at, self._told = now, self._level
        self.notify(self._level, score, self._floor)

    # -- other engines -----------------------------------------------------------------------------------

    def adopt(self, level: Level, floor: float) -> bool:
        """Another engine says how it fares; adopted, and True, if that is worse than what holds here."""
        # The same again, from an engine that is still in it, keeps up a floor that has begun to sink.
        known = max(LEVELS.index(self._level), LEVELS.index(self._remote_level()))
        worse = LEVELS.index(level) > known
        again = level == self._remote[0] != "healthy" and floor > self.remote_floor()
        if not (worse or again):
            return False
        self._remote = (level, min(floor, FLOORS[-1][1]), self._clock())
        return True

    def remote_floor(self) -> float:
        """What is left of the floor that another engine caused, in milliseconds."""
        _, floor, since = self._remote
        left = floor * 0.5 ** ((self._clock() - since) / HALF_LIFE)
        return left if left >= LEAST_FLOOR else 0.0

    def _remote_level(self) -> Level:
        return self._remote[0] if self.remote_floor() else "healthy"

    def floor(self) -> float:
        """The least delay between two looks at the stream, in milliseconds."""
        if self._floor == self._remote[1] == 0:
            return 0.0
        own = self._floor if self._clock() - self._looked_at < STATE_STALE else 0.0
        return max(own, self.remote_floor())

    def reading(self) -> DuressState:
        """How the engine fares now; changes nothing."""
        remote = self._remote_level()
        level = remote if LEVELS.index(remote) > LEVELS.index(self._level) else self._level
        averages = {kind: round(average, 3) for kind, average in self._averages.items()}
        return DuressState(level, max(averages.values(), default=0.0), self.floor(), averages)


def _nobody(_level: Level, _score: float, _floor: float) -> None:
    """There are no other engines."""
