"""How fast an engine takes what happens to jobs: its rate, the floor that duress puts under it, and what follows.

An engine that is slowed leaves its memory out: what it may not take must be where others find it, on the stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from hotmesh.core.state.job import Event
from hotmesh.runtime.engine.duress import Duress, Level
from hotmesh.runtime.pace import Pace
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.work.slots import Slots


class EngineRate:
    """What slows the engine of a process."""

    def __init__(self, settings: Settings, slots: Slots) -> None:
        self._slots = slots
        self.duress = Duress(settings)
        self.pace = Pace(floor=self.duress.floor)
        self.slowed = False
        """The engine takes its messages one by one from the stream, and none from memory."""

    def set(self, rate: int) -> None:
        """Take at most one message per `rate` milliseconds from now on, or none (-1). Starts by callers go on."""
        if rate != self.pace.rate:
            self.pace.change(rate)
        self.apply()

    def took(self, events: Sequence[Event], seconds: float) -> None:
        """Events were handled together in this time."""
        self.duress.took(events, seconds)
        self.apply()

    def on_duress(self, level: Level, floor: float) -> None:
        """Another engine says how it fares."""
        if self.duress.adopt(level, floor):
            self.apply()

    def apply(self) -> None:
        """Look whether anything slows this engine now; a floor sinks by itself."""
        slowed = self.pace.delay != 0
        if slowed != self.slowed:
            self.slowed = slowed
            self._slots.answer_by_stream(slowed)
