"""Retention: deletes what has been over for long enough, by itself, in small batches.

Of all the instances of an app that are set to do so, one at a time is at it. Whose turn it is stands in a row of `upkeep`:
who finds it due takes it for `turn_lease` seconds, and renews that with every batch. If that process dies, the next one that
asks after the lease goes on. Two at once, after a process stood still for longer, do no harm: batches wait for each
other, and skip what somebody works on. An instance that waits reads one row per interval.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import anyio
from anyio.abc import TaskGroup

from hotmesh.errors import NoConnectionError
from hotmesh.postgres.database import Database
from hotmesh.postgres.pruning import Selection, end_turn, prune_batch, take_turn
from hotmesh.runtime.outage import current
from hotmesh.runtime.upkeep.dba import LONGEST_AGE

logger = logging.getLogger("hotmesh.retention")

RETENTION_TASK: Final = "retention"


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """Times in seconds."""

    turn_lease: float = 60.0
    """A batch is over long before."""
    rows: int = 1_000
    """Rows of each kind in one transaction."""
    pause_per_batch: float = 3.0
    """How many times as long as a batch took nothing happens after it, so that at most a quarter of a core is used."""
    shortest_pause: float = 0.05
    shortest_interval: float = 1.0


class Retention:
    """Keeps the tables of one app small, beside other processes. `run` starts it, until its tasks are cancelled."""

    def __init__(
        self, database: Database, member: str, keep: float, interval: float, limits: RetentionLimits
    ) -> None:
        self._database = database
        self._member = member
        self._limits = limits
        self._interval = max(interval, limits.shortest_interval)
        self._selection = Selection(timedelta(seconds=min(keep, LONGEST_AGE)), limit=limits.rows)
        self._link = database.link("retention")

    async def run(self, tasks: TaskGroup) -> None:
        """Start to take a turn whenever one is due."""
        tasks.start_soon(self._turn_loop, name="retention")

    async def _turn_loop(self) -> None:
        while True:
            wait = self._interval
            try:
                wait = await self.run_once()
                current().back("retention")
            except NoConnectionError as error:
                current().lost("retention", error, wait)
            except Exception as error:
                logger.error("retention failed, and is tried again", exc_info=error)
            # Not all of them at the same moment.
            await anyio.sleep(wait * (1 + random.random() / 10))  # noqa: S311 - no secret

    async def run_once(self) -> float:
        """Delete all there is to delete, if it is this process's turn; seconds until it should ask again."""
        due = await self._take_turn()
        if due is not None:
            return min(max(due, self._limits.shortest_interval), self._interval)
        try:
            return await self._prune()
        finally:
            with anyio.move_on_after(2, shield=True):
                await self._link.close()

    async def _take_turn(self) -> float | None:
        """Take the turn, or keep it; seconds until it may be taken if another process has it."""
        return await take_turn(self._database, RETENTION_TASK, self._member, self._limits.turn_lease)

    async def _prune(self) -> float:
        jobs = rows = 0
        since = time.monotonic()
        while True:
            started = time.monotonic()
            async with self._link.use() as connection:
                batch = await prune_batch(self._database, connection, self._selection)
            jobs += batch.jobs
            rows += batch.engine_streams + batch.worker_streams + batch.signals + batch.subscriptions
            if not batch.more:
                break
            pause = (time.monotonic() - started) * self._limits.pause_per_batch
            await anyio.sleep(max(pause, self._limits.shortest_pause))
            due = await self._take_turn()
            if due is not None:
                # This process stood still for longer than its lease, and another one has gone on.
                return min(due, self._interval)
        await end_turn(self._database, RETENTION_TASK, self._member, self._interval)
        if jobs or rows:
            logger.info(
                "pruned",
                extra={
                    "app_id": self._database.app_id,
                    "jobs": jobs,
                    "rows": rows,
                    "duration": time.monotonic() - since,
                },
            )
        return self._interval
