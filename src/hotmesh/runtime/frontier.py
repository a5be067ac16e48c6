"""From which moment on a queue is looked at.

A queue is read in the order in which its rows become due. What has been handled is deleted, but stays in the index until it can
be vacuumed, and that can be never while a session holds an old snapshot. So who has looked at a queue remembers up to where nothing was
left, and begins there the next time.

Rows may still appear below that: of a transaction that took its time, or of one that had locked rows and was rolled back; or the
clock of the database was set. So now and then a look begins at the beginning. All such looks together take a fiftieth of the time: where
nothing is in their way, nearly each look is one. Who has heard that there is something and found nothing owes one as soon as it may be.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

SLACK: Final = timedelta(seconds=0.5)
"""Rows become visible to others with the commit, due with the statement: so much later at most, as a rule."""


@dataclass(frozen=True, slots=True)
class FrontierLimits:
    """How often a look begins at the beginning."""

    share: float = 50
    """A whole look is followed by the next one after so many times what it took, ..."""
    longest: float = 10.0
    """... but after no more than so many seconds."""


class Frontier:
    """Up to where nothing is left of one queue. `since` is asked before each look, `looked` is told after it."""

    __slots__ = ("_heard", "_limits", "_moment", "_whole_at")

    def __init__(self, limits: FrontierLimits) -> None:
        self._limits = limits
        self._moment: datetime | None = None
        self._whole_at = 0.0
        self._heard = True

    def news(self) -> None:
        """There is said to be something."""
        self._heard = True

    def owed(self, seconds: float | None) -> float | None:
        """Seconds until the next look: at the latest when what was heard of can be looked for from the beginning."""
        if not self._heard:
            return seconds
        whole = max(0.0, self._whole_at - time.monotonic())
        return whole if seconds is None else min(seconds, whole)

    def since(self) -> datetime | None:
        """Where the next look begins, by the clock of the database. None: at the beginning."""
        return self._moment if time.monotonic() < self._whole_at else None

    def looked(
        self, since: datetime | None, seconds: float, reached: datetime | None, *, exactly: bool
    ) -> None:
        """A look that began at `since` took so many seconds, and left nothing before `reached`; None: it cannot tell.

        `exactly`: there may be something at that moment or soon after it.
        """
        if since is None:
            self._whole_at = time.monotonic() + min(self._limits.share * seconds, self._limits.longest)
            self._heard = False
        if reached is None:
            return
        moment = reached - SLACK
        if self._moment is None or moment > self._moment or (since is None and exactly):
            self._moment = moment
