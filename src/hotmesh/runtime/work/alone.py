"""Tries work alone that may be the reason why processes die, before it is given up.

When a process dies, all work that it had is handed out again, and `delivery` counts it: nobody can tell which of it was to blame. So the
last delivery is made alone. The process starts nothing more, waits until all else that it runs is over, notes on the row that
nothing is beside it, and runs it. If it dies now, that was the reason, and whoever gets the row next gives it up. If it does not,
the work is done, and everything goes on.

    delivery < last               it runs beside other work, and the claim says so on the row (beside = true)
    delivery ≥ last, beside       it is held here, runs alone, and the row says so (beside = false)
    delivery > last, not beside   it was alone when its process died: given up

Work that waits for its turn here and whose process dies of another piece meanwhile is handed out once more, and is still not
given up: its row says true. The same holds for what is given back because its process stops.

Being alone has an end, since the callback may itself wait for work of this process: after `longest_trial` seconds other work starts again, and
the row says so. What has come through so many trials without an end is alone until it is over.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import TaskGroup

from hotmesh.errors import DatabaseError
from hotmesh.postgres.connect.failures import backoff
from hotmesh.postgres.rows import HeldWork
from hotmesh.postgres.work import WorkQueue
from hotmesh.runtime.service import Flag, forever
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.work.answer_writer import AnswerWriter
from hotmesh.runtime.work.answers import Answers
from hotmesh.runtime.work.company import COMPANY, LOOK, Company, Resident
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.running import Callbacks
from hotmesh.runtime.work.served import Served, ServedWorker

logger = logging.getLogger("hotmesh.worker")


POISON: Final = "MaxRecoveryAttemptsError"
"""The type of the error of an activity that is given up."""


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """Bounds of being alone."""

    longest_trial: float = 60.0
    """Seconds for which nothing else runs in a process because of one piece of work."""
    most_trials: int = 5
    """Trials that may be longer than that and be none; the next one has no end but its own."""


class Trials:
    """What this process has to try alone. `run` starts it."""

    def __init__(
        self,
        work: WorkQueue,
        member: str,
        settings: Settings,
        served: Served,
        leases: LeaseKeeper,
        callbacks: Callbacks,
        answers: Answers,
        writer: AnswerWriter,
        limits: TrialLimits,
        company: Company = COMPANY,
    ) -> None:
        self._work = work
        self._member = member
        self._settings = settings
        self._served = served
        self._leases = leases
        self._callbacks = callbacks
        self._answers = answers
        self._writer = writer
        self._limits = limits
        self._company = company
        self._resident: Resident | None = None
        self._waiting: deque[tuple[ServedWorker, HeldWork]] = deque()
        self._wake = Flag()
        self._link = work.database.link("trials")
        self.last = work.last_delivery(settings.poison_threshold)
        """The number of the delivery that is made alone."""

    def run_claimed(self, served: ServedWorker, work: HeldWork, since: float) -> None:
        """Run claimed work: at once, or alone as soon as it can be; or give it up. It has a slot."""
        if work.delivery < self.last or self._leases.is_answered(work) or self._served.stopping:
            self._callbacks.run(served, work, since)
            return
        served.used -= 1
        if work.delivery > self.last and not work.beside:
            self._answers.bury(work, None if served.share is None else POISON)
            return
        self._leases.hold(work, since)
        self._waiting.append((served, work))
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether anything waits for being tried."""
        return bool(self._waiting)

    def run(self, tasks: TaskGroup) -> None:
        """Start it, in the instance's task group."""
        self._resident = Resident(self._served, self._served.reopened)
        self._company.join(self._resident)
        tasks.start_soon(self._run, self._resident, name="try work alone")

    async def _run(self, resident: Resident) -> None:
        try:
            await forever(
                self.run_once,
                logger,
                lost=None,
                failed="work could not be tried alone",
                longest_pause=self._settings.reconnect_max,
            )
        finally:
            self._company.leave(resident)

    async def run_once(self) -> None:
        """Wait for work that is to be tried alone; try all that there is, one after the other."""
        self._wake.clear()
        if not self._waiting:
            await self._wake.wait()
        resident = self._resident
        if resident is None:
            raise AssertionError("trials belong to an instance that runs")
        unfinished = None
        self._company.ask(resident)
        try:
            if running := self._company.running():
                self._tell_of_waiting(running)
            while self._waiting and unfinished is None and not self._served.stopping:
                await self._company.quiet(resident)
                if self._waiting and not self._served.stopping:
                    unfinished = await self._try(*self._waiting[0])
        finally:
            self._company.end(resident)
        if unfinished is not None:
            await self._over(unfinished)

    def _tell_of_waiting(self, running: int) -> None:
        work = self._waiting[0][1]
        logger.warning(
            "nothing new is started in this process until %s callbacks are over: then work of topic %s is tried alone, %s in all (job %s, "
            "activity %s)",
            running,
            work.topic,
            len(self._waiting),
            work.job_id,
            work.activity_id,
            extra={"job_id": work.job_id, "activity_id": work.activity_id, "count": len(self._waiting)},
        )

    async def _try(self, served: ServedWorker, work: HeldWork) -> HeldWork | None:
        """Run work with nothing beside it, until it is over; the work, if others may start again before."""
        alone = await self._set_beside(work, False)
        if not self._waiting or self._waiting[0][1] is not work:
            return None  # given back meanwhile: the instance stops
        self._waiting.popleft()
        since = self._leases.since(work)
        if not alone or since is None:
            self._leases.release(work.key)
            self._served.given_back([work])
            return None
        logger.warning(
            "worker %s of job %s is tried alone, because its process died or lost it %s times (activity %s); if it dies again, it is "
            "given up",
            work.topic,
            work.job_id,
            work.delivery - 1,
            work.activity_id,
            extra={
                "event": "stream-tried-alone",
                "job_id": work.job_id,
                "activity_id": work.activity_id,
                "deliveries": work.delivery - 1,
            },
        )
        served.used += 1
        self._callbacks.run(served, work, since)
        if work.delivery > self.last + self._limits.most_trials:
            await self._over(work)
            return None
        with anyio.move_on_after(max(self._limits.longest_trial, 2 * self._settings.lease)):
            await self._over(work)
            return None
        await self._admit_others(work)
        return work

    async def _admit_others(self, work: HeldWork) -> None:
        """Note that the work is not alone any more, before it is so; without a connection it stays alone."""
        failures = 0
        while self._leases.holds(work):
            try:
                await self._set_beside(work, True)
                return
            except DatabaseError:
                failures += 1
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))

    async def _set_beside(self, work: HeldWork, beside: bool) -> bool:
        async with self._link.use() as connection:
            return await self._work.set_beside(connection, self._member, work, beside)

    async def _over(self, work: HeldWork) -> None:
        """Wait until work is answered, and its answer committed; or it is in other hands."""
        while self._leases.holds(work):  # noqa: ASYNC110 - it may end in many ways, and seldom has to be waited for
            await anyio.sleep(LOOK)

    def give_back(self) -> None:
        """The instance stops: what waits here is for others."""
        while self._waiting:
            _, work = self._waiting.popleft()
            self._leases.release(work.key)
            self._writer.give_back(work)

    async def close(self) -> None:
        await self._link.close()
