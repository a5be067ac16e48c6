"""Finds the event that kills engines, among those beside it.

Nothing is reserved for an engine, and nothing is written before a step commits. So an engine that dies in the middle of a step leaves no
trace of what it was about to do, and the next one does the same. Writing it down beforehand would cost a statement for each look at
the stream. But deaths are known: a member that has died has left its row. Only while engines die one after the other (three, each within five
minutes of the one before) does each look begin with a transaction that counts what is taken (`delivery`).

What has been counted so often that once more would be the last time is taken alone, so that nothing is beside it if the engine dies again.
What was alone then is given up with its job. All else is handled as ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from hotmesh.postgres import engine_stream
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.engine_stream import Taken

logger = logging.getLogger("hotmesh.engine")

LOOK: Final = 3.0
"""Seconds between two looks whether engines die."""


class EnginesDiedError(Exception):
    """Why a job was given up: engines died of what was due for it."""


class CrashLoop:
    """What one engine knows of the deaths of others, its predecessors among them."""

    def __init__(self, database: Database, threshold: int) -> None:
        self._database = database
        self.last = max(threshold, 2)
        """How often what kills engines is taken."""
        self._careful = False
        self._looked_at: float | None = None

    async def look(self, connection: Connection) -> bool:
        """Whether engines die one after the other; asked every now and then, and before anything is taken."""
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= LOOK:
            careful = await engine_stream.note_deaths(self._database, connection)
            self._looked_at = now
            if careful and not self._careful:
                logger.warning(
                    "engines die one after the other: what they take is counted now, what has been taken %s times is taken alone, and "
                    "given up if the engine dies of it",
                    self.last - 1,
                    extra={"event": "engines-die"},
                )
            self._careful = careful
        return self._careful

    async def count(self, connection: Connection, most: int) -> Sequence[Taken]:
        """Count that what is due is taken now, of at most so many jobs; one job alone, if it is under suspicion."""
        taken = await engine_stream.count_due(self._database, connection, most, self.last)
        for one in taken:
            if one.times == self.last:
                logger.warning(
                    "what is due for job %s is handled alone, because it was taken %s times while engines died; if the engine dies "
                    "again, the job is given up",
                    one.job_id,
                    one.times - 1,
                    extra={"event": "engine-tries-alone", "job_id": one.job_id},
                )
        return taken
