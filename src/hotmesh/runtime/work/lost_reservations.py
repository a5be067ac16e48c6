"""Gives back what a claim or a commit may have reserved whose answer was lost with its connection.

Nobody here knows of such work, and until its lease lapses nobody else may take it. The server may still be writing when
the connection is gone, so it is asked several times, at growing intervals, until something was found or has lapsed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Final

from hotmesh.postgres.work import WorkQueue
from hotmesh.runtime.service import Flag

logger = logging.getLogger("hotmesh.worker")

SOONEST: Final = 0.05
"""Seconds between the first two looks; each interval is four times the one before."""


class LostReservations:
    """Reservations of one instance of which it does not know whether they were made. `run` is its lifetime."""

    def __init__(
        self,
        work: WorkQueue,
        member: str,
        lease: float,
        topics: Callable[[], Collection[str]],
        given_back: Callable[[], None],
    ) -> None:
        self._work = work
        self._member = member
        self._lease = lease
        self._topics = topics
        self._given_back = given_back
        self._lost: dict[int, float] = {}
        """Reservation → when it was given up, by `time.monotonic`."""
        self._wake = Flag()
        self._link = work.database.link("unanswered")

    def add(self, reservation: int) -> None:
        """A claim or commit with this reservation got no answer, and will not be asked after otherwise."""
        self._lost[reservation] = time.monotonic()
        self._wake.set()

    async def run(self) -> None:
        """Look for lost reservations as long as there are any."""
        pause = SOONEST
        while True:
            if not self._lost:
                await self._wake.wait()
            if self._wake.is_set():
                self._wake.clear()
                pause = SOONEST
            await self._look()
            await self._wake.wait(pause)
            pause *= 4

    async def _look(self) -> None:
        lost = dict(self._lost)
        topics = self._topics()
        if topics:
            try:
                async with self._link.use() as connection:
                    count = await self._work.give_back(connection, self._member, topics, lost)
            except Exception as error:  # noqa: BLE001 - nothing may end this loop
                logger.warning("lost reservations could not be looked for", extra={"error": str(error)})
                return
            if count:
                logger.info("work of lost reservations given back", extra={"count": count})
                self._given_back()
        lapsed = time.monotonic() - self._lease
        self._lost = {
            reservation: since
            for reservation, since in self._lost.items()
            if since > lapsed or reservation not in lost
        }

    async def close(self) -> None:
        await self._link.close()
