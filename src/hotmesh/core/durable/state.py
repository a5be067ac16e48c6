"""What the row of a durable function's job says in `open`: failed attempts, why it is parked, what has reached it unasked.

    {"attempt": 2, "parked": {"reason": "changed", "message": …, "position": 3, "expected": …, "actual": …, "attempts": 4},
     "events": 3, "cancel": true, "paused": {"since": …, "reason": …}, "delayed": true}

Nothing of it is there as long as all goes well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

from msgspec import Struct

T = TypeVar("T", bound=Struct)

LONGEST_PAUSE: Final = 60.0
"""Seconds between two tries of a parked workflow, at most."""

TURN: Final = ""
"""The activity id of what is the function itself: its turn, and the timer of its next attempt."""

MAIN: Final = 0
"""The strand of the main function."""

TIMEOUT: Final = 1
"""Behind the address of a wait: the timer that ends it."""

TO_START: Final = 2
TO_CLOSE: Final = 3
"""Behind the address of an activity: the timers until a worker has taken it, and until it has ended."""

EXECUTION: Final = "$execution"
RUN: Final = "$run"
"""The timers of the whole, and of one run of the function."""

BY_ID: Final = "$signal"
"""The topic of signals that are sent to an id, whoever waits for it."""

OF_WORKFLOW: Final = "$job"
"""The topic under which a wait for a signal of one workflow is registered, to be seen: such signals are events of the workflow."""


class Paused(Struct, frozen=True, omit_defaults=True):
    """Somebody has paused it: what happens is recorded, and it does not go on."""

    since: str
    """In ISO 8601."""
    reason: str | None = None


class Parked(Struct, frozen=True, omit_defaults=True):
    """Why a workflow does not go on: its code does not fit its history (`changed`), or did not come to an end (`blocked`)."""

    reason: str
    message: str
    attempts: int = 1
    position: int | None = None
    expected: str | None = None
    actual: str | None = None

    @property
    def delay(self) -> float:
        """Seconds until it is tried again."""
        return float(min(2.0 ** min(self.attempts - 1, 10), LONGEST_PAUSE))

    def as_dict(self) -> dict[str, Any]:
        """For the row."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


class State(Struct, frozen=True, gc=False):
    """What is in `open`."""

    attempt: int = 0
    """Attempts of the function that have failed in a row."""
    parked: Parked | None = None
    events: int = 0
    """What has reached it unasked so far; the next one has the position below."""
    cancelled: bool = False
    """It was asked to end."""
    paused: Paused | None = None
    """What happens is recorded, and it does not go on."""
    delayed: bool = False
    """The delay of its start is not over: likewise, and there is a timer for its first turn."""

    @property
    def retried(self) -> bool:
        """Whether there is, or was, a timer for its next turn."""
        return self.attempt > 0 or self.parked is not None or self.delayed

    @property
    def waits(self) -> bool:
        """Whether its code does not go on, whatever happens to it."""
        return self.paused is not None or self.delayed

    @classmethod
    def of(cls, open_: Mapping[str, Any] | None) -> State:
        """That of a row."""
        if not open_:
            return NOTHING
        return cls(
            int(open_.get("attempt", 0)),
            _read(Parked, open_.get("parked")),
            int(open_.get("events", 0)),
            open_.get("cancel") is True,
            _read(Paused, open_.get("paused")),
            open_.get("delayed") is True,
        )

    def as_open(self) -> dict[str, Any] | None:
        """For the row; None where there is nothing to say."""
        found: dict[str, Any] = {}
        if self.attempt:
            found["attempt"] = self.attempt
        if self.parked is not None:
            found["parked"] = self.parked.as_dict()
        if self.events:
            found["events"] = self.events
        if self.cancelled:
            found["cancel"] = True
        if self.paused is not None:
            found["paused"] = {"since": self.paused.since, "reason": self.paused.reason}
        if self.delayed:
            found["delayed"] = True
        return found or None


def _read(kind: type[T], stored: Mapping[str, Any] | None) -> T | None:
    """One of these, also as a newer release has stored it."""
    if stored is None:
        return None
    known: Any = kind
    return cast("T", known(**{name: stored[name] for name in known.__struct_fields__ if name in stored}))


NOTHING: Final = State()
