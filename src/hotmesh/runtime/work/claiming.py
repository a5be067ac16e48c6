"""Claims work that is on the stream for slots that are free.

Slots are held for as much as is asked for, so that nothing is claimed which could not start. What a claim reserved whose
answer was lost with its connection is given back by `lost_reservations`.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import anyio

from hotmesh.errors import DatabaseError, NoConnectionError
from hotmesh.postgres.connect.failures import backoff
from hotmesh.postgres.database import Connection
from hotmesh.postgres.rows import HeldWork
from hotmesh.postgres.work import Wanted, WorkQueue
from hotmesh.runtime import ids
from hotmesh.runtime.frontier import Frontier, FrontierLimits
from hotmesh.runtime.outage import current
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.work.answer_writer import AnswerWriter
from hotmesh.runtime.work.lost_reservations import LostReservations
from hotmesh.runtime.work.served import Run, Served, WorkSelector

logger = logging.getLogger("hotmesh.worker")


class Claims:
    """The claims of one process. `run` is its lifetime."""

    def __init__(
        self,
        work: WorkQueue,
        member: str,
        settings: Settings,
        served: Served,
        run: Run,
        writer: AnswerWriter,
        lost_reservations: LostReservations,
        last: int,
        limits: FrontierLimits,
    ) -> None:
        self._work = work
        self._member = member
        self._settings = settings
        self._served = served
        self._run = run
        self._writer = writer
        self._lost_reservations = lost_reservations
        self._last = last
        self._frontiers: defaultdict[WorkSelector, Frontier] = defaultdict(partial(Frontier, limits))
        self._link = work.database.link("claims")
        self.behind: Callable[[], bool] = _never
        """Whether many answers still wait for their commits."""
        self._turn = 0
        self.failures = 0
        """Claims that have failed in a row."""
        self.busy = False
        """Work is being claimed, or was and is about to run."""

    async def run(self) -> None:
        """Claim work for free slots: when told, when a slot becomes free, when the next is due, and by polling."""
        failures = 0
        outage = current()
        while not self._served.stopping:
            try:
                claimed = await self.run_once()
                if failures:
                    outage.back("the worker stream")
                failures = self.failures = 0
                if not claimed:
                    await self._wait()
            except NoConnectionError as error:
                failures = self.failures = failures + 1
                pause = backoff(failures, longest=self._settings.reconnect_max)
                outage.lost("the worker stream", error, pause)
                await anyio.sleep(pause)
            except Exception as error:
                failures = self.failures = failures + 1
                logger.error("worker stream could not be read", exc_info=error)
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))

    async def _wait(self) -> None:
        """Wait until there may be something to claim."""
        wake = self._served.wake
        if self._served.closed:
            await wake.wait(self._settings.poll)
            return
        # Most likely there is news at once; a statement now would only be in the way of the answers.
        if await wake.wait(BREATH):
            return
        due = await self._next_due()
        if not await wake.wait(None if due is None else wake.hesitant(due)):
            # Whatever was announced or not: the next look says whether there is work, and where there is no
            # slot for it now, it is claimed as soon as there is one.
            for served in self._served.workers.values():
                served.backlog = served.backlog or served.free <= 0

    async def run_once(self) -> int:
        """Claim what there are free slots for; how much was claimed."""
        if self._served.wake.is_set():
            for frontier in self._frontiers.values():
                frontier.news()
        self._served.wake.clear()
        while (self.behind() or self._writer.ahead > UNWRITTEN_LIMIT) and not self._served.stopping:  # noqa: ASYNC110 - a commit takes as long as a look
            # More would be held, answered and wait in memory until it is committed: others can have it meanwhile.
            await anyio.sleep(0.005)
        if self._served.stopping or self._served.closed:
            return 0
        wanted = [
            selector
            for selector, served in self._served.workers.items()
            if served.backlog and served.free > 0
        ]
        if not wanted:
            return 0
        claimed = await self._claim(wanted)
        self._served.wake.looked(found=claimed > 0)
        return claimed

    async def _claim(self, selectors: Sequence[WorkSelector]) -> int:
        """Claim work for the free slots of these selectors, and run it; how much it was."""
        limits = self._hold_slots(selectors)
        wanted = [self._wanted(selector, limit) for selector, limit in limits.items()]
        claimed: list[HeldWork] = []
        self.busy = True
        since = time.monotonic()
        reservation = ids.token()
        try:
            async with self._link.use() as connection:
                claimed = await self._work.claim(
                    connection,
                    self._member,
                    wanted,
                    self._settings.lease,
                    reservation,
                    self._last,
                )
        except NoConnectionError:
            self._lost_reservations.add(reservation)
            raise
        finally:
            self.busy = bool(claimed)
            self._served.ended.set()
            self._free_slots(limits, claimed)
        self._remember(wanted, claimed, time.monotonic() - since)
        unreadable = [work for work in claimed if work.unreadable is not None]
        for work in claimed:
            served = self._served.holder(work)
            if work.unreadable is not None:
                served.used -= 1
            else:
                self._run(served, work, since)
        self.busy = False
        self._served.ended.set()
        if unreadable:
            # Last: if it cannot be given back, its leases lapse, and all that can be read runs.
            await self._leave(unreadable)
        return len(claimed)

    def _hold_slots(self, selectors: Sequence[WorkSelector]) -> dict[WorkSelector, int]:
        """Hold all slots that are free; how many, by selector."""
        limits: dict[WorkSelector, int] = {}
        shared = sum(self._served.workers[selector].share is not None for selector in selectors)
        if shared > 1:
            # Each has its turn to be the first, for the last slot.
            self._turn = (self._turn + 1) % len(selectors)
            selectors = [*selectors[self._turn :], *selectors[: self._turn]]
        for selector in selectors:
            served = self._served.workers[selector]
            free = max(served.free, 0)
            if served.share is not None:
                free = -(-free // shared)
                shared -= 1
                if not free:
                    # The others have all of them for now: it looks again once they have what there is.
                    self._served.wake.set()
                    continue
            limits[selector] = free
            served.used += free
            served.backlog = False
        return limits

    def _free_slots(self, limits: dict[WorkSelector, int], claimed: Sequence[HeldWork]) -> None:
        """Free the slots for which nothing was claimed; where there are none, there may be more to claim."""
        for work in claimed:
            limits[self._served.holder(work).selector] -= 1
        for selector, unused in limits.items():
            served = self._served.workers[selector]
            served.used -= unused
            if not unused:
                served.backlog = True

    async def _leave(self, unreadable: Sequence[HeldWork]) -> None:
        """Give back work that this process cannot decode, for one that can; it does not count as a failure."""
        logger.error(
            "work cannot be decoded",
            extra={
                "job_id": unreadable[0].job_id,
                "topic": unreadable[0].topic,
                "messages": len(unreadable),
                "error": unreadable[0].unreadable,
            },
        )
        async with self._link.use() as connection:
            await self._work.postpone(
                connection,
                self._member,
                [
                    (w.generation, w.activity_id, w.dimension, UNREADABLE_RETRY, False, None, None)
                    for w in unreadable
                ],
                None,
            )

    def _wanted(self, selector: WorkSelector, limit: int = 1) -> Wanted:
        topic, name = selector
        others = self._served.names.get(topic, ()) if name is None else ()
        return Wanted(topic, name, others, limit, self._frontiers[selector].since())

    def _remember(self, wanted: Sequence[Wanted], claimed: Sequence[HeldWork], seconds: float) -> None:
        """Work that nobody had is claimed in the order in which it became visible, so that what was before the last is gone.

        Work of which a lease has lapsed comes before all that, in its own order; it was delivered before.
        """
        counts: dict[WorkSelector, int] = {}
        latest: dict[WorkSelector, datetime] = {}
        for work in claimed:
            selector = self._served.holder(work).selector
            counts[selector] = counts.get(selector, 0) + 1
            # No later than it became visible; how much later that was is not known any more.
            if work.created_at is not None and work.delivery <= 1:
                latest[selector] = max(latest.get(selector, work.created_at), work.created_at)
        for one in wanted:
            selector = one.topic, one.workflow_name
            full = counts.get(selector, 0) >= one.limit
            self._frontiers[selector].looked(one.since, seconds, latest.get(selector), exactly=full)

    async def _next_due(self) -> float | None:
        """Seconds until hidden work (a retry, a lapsing lease) becomes visible to a topic with free slots."""
        names = self._served.names
        free = [served for served in self._served.workers.values() if served.free > 0]
        selectors = [served.selector for served in free]
        plain = [self._wanted(selector) for selector in selectors if selector[0] not in names]
        named = [self._wanted(selector) for selector in selectors if selector[0] in names]
        if not selectors:
            return None
        async with self._link.use() as connection:
            moments = [await self._next_of(connection, asked) for asked in (plain, named) if asked]
        due = min((moment for moment in moments if moment is not None), default=None)
        if due is None:
            return None
        if due <= self._settings.poll:
            for served in free:
                served.backlog = True
        return max(due, 0.005)

    async def _next_of(self, connection: Connection, asked: Sequence[Wanted]) -> float | None:
        """Seconds until the next of this becomes visible, if that is before the next look."""
        began = time.monotonic()
        found = await self._work.next_at(connection, asked, self._settings.poll)
        seconds = time.monotonic() - began
        for one in asked:
            self._frontiers[one.topic, one.workflow_name].looked(
                one.since, seconds, found.reached, exactly=True
            )
        owed = [self._frontiers[one.topic, one.workflow_name].owed(found.seconds) for one in asked]
        return min((due for due in owed if due is not None), default=None)

    async def give_back_held(self) -> None:
        """Give back whatever this process still holds: of callbacks that do not end, of claims that were not answered."""
        if not self._served.workers:
            return
        try:
            async with self._link.use() as connection:
                count = await self._work.give_back(connection, self._member, self._served.topics)
            if count:
                logger.warning("work given back unfinished", extra={"count": count})
        except DatabaseError as error:
            # The leases lapse.
            logger.warning("work could not be given back", extra={"error": str(error)})

    async def close(self) -> None:
        await self._link.close()


def _never() -> bool:
    """No engine, no commits."""
    return False


UNREADABLE_RETRY = 1.0
"""Seconds for which a process leaves alone work that it cannot decode."""

BREATH = 0.02
"""Seconds without news after which a process asks when the next work becomes visible."""

UNWRITTEN_LIMIT = 400
"""Answers that may wait to be written before more work is claimed."""
