"""Looks at what is due for the engines of an app, from where on something may be left."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from hotmesh.postgres import engine_stream
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.engine_stream import DueJob
from hotmesh.runtime.frontier import Frontier, FrontierLimits


class DueEvents:
    """The messages and timers of an app, as one process looks at them. `within`: seconds until it looks again anyway. `tenures`: those of this process."""

    def __init__(
        self,
        database: Database,
        within: float,
        limits: FrontierLimits,
        tenures: Callable[[], Collection[int]],
    ) -> None:
        self._database = database
        self._tenures = tenures
        self._within = within
        self._frontier = Frontier(limits)

    async def lock(
        self, connection: Connection, limit: int, only: Sequence[str] | None = None
    ) -> list[DueJob]:
        """Lock jobs with what is due, in the caller's transaction; `only` those of these generations."""
        if only is not None:
            return await engine_stream.lock_due_jobs(
                self._database, connection, limit, only, tenures=self._tenures()
            )
        since, began = self._frontier.since(), time.monotonic()
        due = await engine_stream.lock_due_jobs(
            self._database, connection, limit, since=since, tenures=self._tenures()
        )
        # Of the first of them more may be due than was handed out.
        first = min((item.due_at for item in due if item.due_at is not None), default=None)
        self._frontier.looked(since, time.monotonic() - began, first, exactly=True)
        return due

    async def next(self, connection: Connection) -> tuple[float | None, bool]:
        """Seconds until the next is due, if that is before the next look; and whether there are broadcasts."""
        since, began = self._frontier.since(), time.monotonic()
        found, broadcasts = await engine_stream.next_event_at(self._database, connection, since, self._within)
        self._frontier.looked(since, time.monotonic() - began, found.reached, exactly=True)
        return self._frontier.owed(found.seconds), broadcasts

    def news(self) -> None:
        """There is said to be something."""
        self._frontier.news()
