"""A lost connection is told once, and once that it is back, however many services of a member miss it."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from typing import Final

logger = logging.getLogger("hotmesh.postgres")


class Outage:
    """What the services of one member say about their connections. The first one that loses its own speaks for all."""

    def __init__(self) -> None:
        self._missing: set[str] = set()
        self._since = 0.0

    def lost(self, service: str, error: BaseException, pause: float) -> None:
        """A service has no connection, and tries again after this pause (in seconds)."""
        if not self._missing:
            self._since = time.monotonic()
            logger.warning(
                "no connection to Postgres (%s), next try in %s s; noticed by %s",
                error,
                f"{pause:.2g}",
                service,
                extra={"error": str(error), "service": service},
            )
        self._missing.add(service)

    def back(self, service: str) -> None:
        """A service has had its connection; nothing is said unless it, or another one, had lost it."""
        if service in self._missing:
            # The others will find theirs at their next try: what they lose from now on is news.
            self._missing.clear()
            away = time.monotonic() - self._since
            logger.warning(
                "connected to Postgres again after %s s", f"{away:.1f}", extra={"seconds": round(away, 3)}
            )


_outage: Final[ContextVar[Outage | None]] = ContextVar("hotmesh_outage", default=None)


def begin() -> None:
    """From here on, the services that this task starts tell of their connections together."""
    _outage.set(Outage())


def current() -> Outage:
    """The outage of this member; one of its own where there is no member."""
    found = _outage.get()
    if found is None:
        found = Outage()
        _outage.set(found)
    return found
