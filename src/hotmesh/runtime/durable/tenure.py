"""The right of this process on jobs whose steps run in it, and what is done about processes that have died.

A tenure is a row, renewed by a thread of its own, which a blocked event loop does not hold up. Jobs with running steps name it.
Whoever does not renew it in time, or whose session is gone, loses it: another process hands its jobs over, which shuts the old
one out. That one learns of it from a renewal, or from the refusal of a commit; it lets its steps go, and opens another tenure.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import TaskGroup

from hotmesh.postgres import durable
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.members import gone_members
from hotmesh.runtime.service import Flag, forever

logger = logging.getLogger("hotmesh.durable")

NONE: Final = -1
"""The number of no tenure: a commit that names it is refused."""


@dataclass(frozen=True, slots=True)
class TenureLimits:
    """Bounds; times in seconds."""

    look_period: float = 0.5
    """Between two looks for processes that have died."""
    per_statement: int = 1_000
    """Jobs that are handed over at once."""
    most_recoveries: int = 50
    """How often in a row a job is taken from processes that died with it."""
    length: float = 600.0
    """After which a new one is opened, so that few jobs have the same."""
    forgotten_after: float = 15.0
    """For so long a job that is held must not have changed before it is looked whether it is known here."""
    sweep_period: float = 10.0


class Tenures:
    """The tenures of one process. `lost` is called when jobs of it are for others; `wake` with a job that was forgotten.

    `working` are the jobs of which steps run here; `gone` is called with one that is not held here any more.
    """

    def __init__(
        self,
        database: Database,
        member: str,
        lease: float,
        lost: Callable[[], None],
        known: Callable[[str], bool],
        wake: Callable[[str, str], None],
        working: Callable[[], Collection[str]],
        gone: Callable[[str], None],
        limits: TenureLimits,
    ) -> None:
        self._database = database
        self._source = database.source.apart()
        self._member = member
        self._lease = lease
        self._on_lost = lost
        self._known = known
        self._wake = wake
        self._working = working
        self._gone = gone
        self._doubted: frozenset[str] = frozenset()
        """Jobs of which steps run here that were not held here at the last look."""
        self._limits = limits
        self._link = database.link("tenures")
        self.number = NONE
        """The one that new jobs name."""
        self._mine: set[int] = set()
        self._renewed = 0.0
        self._opened = 0.0
        self._swept = 0.0
        self._suspected: frozenset[str] = frozenset()
        self._needs_new = Flag()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def begun(self) -> bool:
        """Whether this process may hold jobs."""
        return self._loop is not None

    @property
    def mine(self) -> Collection[int]:
        """Those that jobs may name which are held here."""
        return self._mine

    def holds(self, tenure: int | None) -> bool:
        """Whether a job that names it is held here."""
        return tenure in self._mine

    async def begin(self, tasks: TaskGroup) -> None:
        """Have a tenure from here on."""
        if self._loop is not None:
            return
        await durable.mark_app(self._database)
        await self._open()
        self._loop = asyncio.get_running_loop()
        watch = copy_context().run
        self._thread = threading.Thread(
            target=watch, args=(self._watch,), name="hotmesh tenures", daemon=True
        )
        self._thread.start()
        tasks.start_soon(self._run, name="tenures")

    def refused(self, tenure: int) -> None:
        """A commit says that this tenure is over."""
        self._lose({tenure})

    async def end(self) -> None:
        """Nothing runs here any more: let others have what is still held."""
        self._closed = True
        self._stop.set()
        mine, self._mine, self.number = self._mine, set(), NONE
        if mine:
            with anyio.move_on_after(5):
                async with self._link.use() as connection:
                    await durable.lapse_tenures(self._database, connection, (), mine)
                    for tenure in sorted(mine):
                        await self._hand_over(connection, tenure)

    async def close(self) -> None:
        """Close what is open."""
        self._closed = True
        self._stop.set()
        if self._thread is not None:
            await anyio.to_thread.run_sync(self._thread.join, 5.0)
        await self._link.close()

    # -- on the event loop ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        since = time.monotonic()
        number = await durable.open_tenure(self._database, self._member, self._lease)
        self._mine.add(number)
        self.number = number
        self._renewed = self._opened = since

    def _lose(self, gone: set[int]) -> None:
        """Jobs of these tenures are for others."""
        gone &= self._mine
        if not gone or self._closed:
            return
        self._mine -= gone
        if self.number in gone:
            self.number = NONE
            self._needs_new.set()
        logger.warning(
            "the tenure of this process was over: others have its workflows, and its steps count no more",
            extra={"event": "tenure-lost"},
        )
        self._on_lost()

    async def _run(self) -> None:
        await forever(
            self._run_once, logger, lost=None, failed="tenures could not be looked at", longest_pause=5.0
        )

    async def _run_once(self) -> None:
        await self._needs_new.wait(self._limits.look_period)
        if self._closed:
            await anyio.sleep_forever()
        if self._needs_new.is_set() or time.monotonic() - self._opened > self._limits.length:
            self._needs_new.clear()
            try:
                await self._open()
            except BaseException:
                self._needs_new.set()
                raise
        async with self._link.use() as connection:
            await self._look(connection)
            now = time.monotonic()
            if now - self._swept > self._limits.sweep_period:
                self._swept = now
                await self._sweep(connection)

    async def _look(self, connection: Connection) -> None:
        """Hand over what others have left who have died."""
        confirmed: frozenset[str] = frozenset()
        others = await durable.other_tenures(self._database, connection, self._member)
        if others:
            gone = await gone_members(self._database, connection) & others
            confirmed = gone & self._suspected
            self._suspected = gone - confirmed
        for tenure in await durable.lapse_tenures(self._database, connection, confirmed):
            if tenure in self._mine:
                self._lose({tenure})
            await self._hand_over(connection, tenure)

    async def _hand_over(self, connection: Connection, tenure: int) -> None:
        limits = self._limits
        while found := await durable.hand_over(
            self._database, connection, tenure, limits.per_statement, limits.most_recoveries
        ):
            logger.warning(
                "%s workflows handed over whose process has died or stood still",
                found,
                extra={"event": "workflows-handed-over", "count": found},
            )
            if found < limits.per_statement:
                return

    async def _sweep(self, connection: Connection) -> None:
        """Wake jobs that are held here and known to nobody; let go of those that are known and not held.

        Give up old tenures of which nothing is held.
        """
        mine = set(self._mine)
        await self._let_go(connection, mine)
        if not mine:
            return
        limits = self._limits
        jobs = await durable.held_jobs(
            self._database, connection, mine, limits.forgotten_after, limits.per_statement
        )
        for job_id, generation in jobs:
            if not self._known(generation):
                logger.warning("workflow was forgotten, and goes on", extra={"job_id": job_id})
                self._wake(job_id, generation)
        for tenure in sorted(mine - {self.number}):
            if not await durable.held_jobs(self._database, connection, {tenure}, 0.0, 1):
                self._mine.discard(tenure)
                await durable.lapse_tenures(self._database, connection, (), {tenure})

    async def _let_go(self, connection: Connection, mine: set[int]) -> None:
        """Of what another process has ended, and this one has not heard of, the steps count for nothing."""
        working = set(self._working())
        held = await durable.held_of(self._database, connection, working, mine) if working else set()
        # At two looks in a row: what has just been committed may not be known here yet.
        gone = (working - held) & self._doubted
        self._doubted = frozenset(working - held - gone)
        for generation in gone:
            self._gone(generation)

    # -- in the thread -------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stop.wait(self._lease / 12):
            if time.monotonic() - self._renewed < self._lease / 3:
                continue
            mine = set(self._mine)
            if not mine:
                continue
            try:
                anyio.run(self._renew, mine)
            except Exception as error:  # noqa: BLE001 - without this thread, tenures would lapse for ever
                logger.warning("tenures could not be renewed", extra={"error": str(error)})

    async def _renew(self, mine: set[int]) -> None:
        link = Link(self._source, name="tenures")
        since = time.monotonic()
        try:
            async with link.use() as connection:
                kept = await durable.renew_tenures(self._database, connection, mine, self._lease)
        finally:
            await link.close()
        self._renewed = since
        if kept < mine and self._loop is not None and not self._closed:
            self._loop.call_soon_threadsafe(self._lose, mine - kept)
