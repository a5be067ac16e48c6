"""The group commit: whatever is ready goes out with one statement; what becomes ready meanwhile goes with the next.

It serves tickets (`ticket.py`) and knows nothing of what their steps are about. Who has a step hands it in with
`submit`; the loops *gather* what is ready into a batch, *attempt* to commit it, and *settle* each ticket by what
became of it.

States of a ticket: ready (in the queue), in a batch, settled. What commits together: all steps of an attempt, in one
statement and one transaction; each counts by itself, as a whole or not at all. A batch that fails as a whole is
divided, so that a step which cannot be stored harms no other.

A crash leaves          because
nothing of a batch      before its statement, or in the middle of it: no row names its token, and all that it would have
                        consumed is still there
all of a batch          after the statement: work that is reserved for this process is found when its lease lapses, and
                        a caller who was not told reads the job's row
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

import anyio
from anyio.abc import TaskGroup

from hotmesh.errors import DatabaseError, HotMeshError, NoConnectionError
from hotmesh.postgres.commits import AnsweredElsewhereError
from hotmesh.postgres.connect.failures import backoff, fault
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.database import Database
from hotmesh.postgres.members import live_members
from hotmesh.postgres.steps import Committed
from hotmesh.runtime.engine.in_flight import InFlight
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.engine.rate import EngineRate
from hotmesh.runtime.engine.recovery import Recovery
from hotmesh.runtime.engine.ticket import STOPPED, Attempt, Ticket
from hotmesh.runtime.engine.trial import is_to_blame
from hotmesh.runtime.engine.writer import BatchTooLargeError, CommitWriter
from hotmesh.runtime.service import Flag
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.wake import Wake
from hotmesh.runtime.work.slots import Slots

logger = logging.getLogger("hotmesh.engine")


class GroupCommit:
    """Commits tickets. `run` starts its two loops.

    `on_outage` is called when there has been no connection for as long as a caller waits.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        slots: Slots,
        writer: CommitWriter,
        rate: EngineRate,
        in_flight: InFlight,
        stream_wake: Wake,
        limits: EngineLimits,
        on_outage: Callable[[BaseException], None],
    ) -> None:
        self._plans = surroundings.plans
        self._most = surroundings.settings.batch
        self._longest_pause = surroundings.settings.reconnect_max
        self._slots = slots
        self._writer = writer
        self._rate = rate
        self._in_flight = in_flight
        self._stream_wake = stream_wake
        self._limits = limits
        self._on_outage = on_outage
        self._recovery = Recovery(surroundings, slots, writer, stream_wake, self._give_up_waiting)
        self._company = Company(surroundings.database, limits.company_known_for)
        self._ready: deque[Ticket] = deque()
        self._news = Flag()
        self._links = [surroundings.database.link("commit 1"), surroundings.database.link("commit 2")]
        self._dispatched = 0
        """Batches on their way, at most one of each loop."""
        self._unread = 0
        """How often in a row the definitions, which have changed, could not be read."""
        self._began = 0.0
        """When the last batch was dispatched, by `time.monotonic`."""

    async def run(self, tasks: TaskGroup) -> None:
        """Start the loops; cancelling them rolls back what is not committed."""
        for number, link in enumerate(self._links):
            tasks.start_soon(self._loop, number, link, name=f"commit {number}")

    async def close(self) -> None:
        """Abandon what has not been committed. The loops have ended."""
        for ticket in self._ready:
            ticket.abandon(HotMeshError(STOPPED))
        for link in self._links:
            await link.close()

    def submit(self, ticket: Ticket) -> None:
        """Have a ticket committed, with the next batch that has room for it."""
        self._ready.append(ticket)
        self._news.set()

    def look_again(self) -> None:
        """A local worker can take more of what overflowed."""
        self._news.set()

    @property
    def waiting(self) -> int:
        """Tickets that wait for a batch."""
        return len(self._ready)

    def waiting_of(self, kind: type[Ticket]) -> int:
        """How many of them are of one kind."""
        return sum(isinstance(ticket, kind) for ticket in self._ready)

    @property
    def in_company(self) -> bool:
        """Whether the app had other engines at the last look."""
        return self._company.found

    # -- gather ------------------------------------------------------------------------------------------

    async def _loop(self, number: int, link: Link) -> None:
        """Commit whatever is ready, all of it at once.

        The second loop joins only when there is enough for a batch of its own: two small commits cost more than one.
        And it leaves everything to the first where other engines keep the database busy meanwhile, unless that is
        held up.
        """
        enough = 1 if number == 0 else self._limits.second_commit
        while True:
            if len(self._ready) < enough and not (number == 0 and self._slots.can_take):
                self._news.clear()
                await self._news.wait()
                continue
            if number and not self._held_up() and await self._company.look():
                await anyio.sleep(self._limits.held_up_after / 2)
                continue
            batch = self._gather()
            if not batch and not self._slots.can_take:
                continue
            self._dispatched += 1
            self._in_flight.begin()
            self._began = time.monotonic()
            try:
                await self._dispatch(link, batch)
            except Exception as error:
                # Nothing may end this loop. What is through already is found to be so when it is looked at again.
                logger.error("commit failed, and is tried again", exc_info=error)
                await anyio.sleep(0.1)
                for ticket in batch:
                    ticket.unwritten()
            except BaseException:
                for ticket in batch:
                    ticket.abandon(HotMeshError(STOPPED))
                raise
            finally:
                self._dispatched -= 1
                self._in_flight.end()
            if self._ready:
                self._news.set()

    def _held_up(self) -> bool:
        """Whether a commit of the first loop takes so long that the second must not wait for it."""
        return self._dispatched > 0 and time.monotonic() - self._began > self._limits.held_up_after

    def _gather(self) -> list[Ticket]:
        """Take what is ready.

        With nothing in flight, half of a larger batch is left to the other loop: while Postgres writes one half,
        this process prepares the other.
        """
        ready, most = self._ready, self._most
        if not self._dispatched and not self._company.found and len(ready) >= 2 * self._limits.second_commit:
            most = min(most, (len(ready) + 1) // 2)
        batch: list[Ticket] = []
        while ready and len(batch) < most:
            ticket = ready.popleft()
            if ticket.gather():
                batch.append(ticket)
        return batch

    # -- attempt -----------------------------------------------------------------------------------------

    async def _dispatch(self, link: Link, batch: list[Ticket]) -> None:
        """Get a batch through; if it fails as a whole, one by one, so that a poisoned step harms no other."""
        try:
            await self._attempt(link, batch)
        except AnsweredElsewhereError:
            for rest in await self._recovery.answered_elsewhere(link, batch):
                await self._dispatch(link, rest)
        except BatchTooLargeError:
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                await self._dispatch(link, half)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other jobs go on
            await self._refused(link, batch, error)

    async def _refused(self, link: Link, batch: list[Ticket], error: Exception) -> None:
        """Postgres refuses the statement: find out whose fault that is."""
        if not batch:
            # Nothing but reservations of work that overflowed, which is given back.
            logger.warning("work could not be reserved", extra={"error": str(error)})
            await anyio.sleep(0.1)
            return
        if len(batch) > 1:
            for ticket in batch:
                await self._dispatch(link, [ticket])
            return
        ticket = batch[0]
        blame = fault(error)
        own = blame == "values"
        if blame == "either":
            other = ticket.alternative()
            own = other is not None and await is_to_blame(self._writer, link, ticket, other)
        ticket.rejected(error, own=own)

    async def _attempt(self, link: Link, batch: list[Ticket]) -> None:
        """One commit: these steps, and reservations for work that overflowed before."""
        epoch = self._plans.epoch
        stale = [ticket for ticket in batch if ticket.epoch != epoch]
        if stale:
            # In place: whoever called handles what goes wrong with those that are left.
            batch[:] = [ticket for ticket in batch if ticket.epoch == epoch]
            for ticket in stale:
                ticket.recompute()
        overflow = self._slots.offer_overflow()
        if not batch and not overflow:
            return
        attempt = Attempt(epoch, overflow)
        try:
            async with link.use() as connection:
                committed = await self._writer.write(connection, batch, attempt)
            await self._settle(batch, attempt, committed)
        except NoConnectionError as error:
            await self._recovery.after_loss(link, batch, attempt, error)
        except BaseException:
            self._writer.return_overflow(attempt)
            raise

    # -- settle ------------------------------------------------------------------------------------------

    async def _settle(self, batch: Sequence[Ticket], attempt: Attempt, committed: Committed) -> None:
        """Postgres has answered: tell each ticket what became of it."""
        if not await self._is_current(batch, attempt, committed):
            for ticket in batch:
                ticket.recompute()
            return
        self._recovery.came_through()
        self._measure(batch, time.monotonic() - attempt.since)
        self._slots.overflow_claimed(attempt.overflow, committed.held, attempt.since)
        attempt.overflow = []  # settled: whatever goes wrong from here on
        for number, ticket in enumerate(batch):
            refusal = committed.refused.get(number)
            if refusal is None:
                ticket.applied(attempt, committed)
            else:
                self._writer.free_slots((ticket,))
                await ticket.refused(*refusal)
        if committed.woken:
            self._stream_wake.set()

    async def _is_current(self, batch: Sequence[Ticket], attempt: Attempt, committed: Committed) -> bool:
        """Whether the steps were computed under the definitions that hold. Else those are read, if they can be."""
        try:
            current = await self._writer.check_epoch(batch, attempt, committed)
        except NoConnectionError:
            raise
        except DatabaseError as error:
            # Nothing was written. The steps are refused again, and the definitions are read then.
            logger.warning("definitions could not be read", extra={"error": str(error)})
            await anyio.sleep(backoff(self._unread, longest=self._longest_pause))
            self._unread += 1
            return False
        self._unread = 0
        return current

    def _measure(self, batch: Sequence[Ticket], seconds: float) -> None:
        """Note how long each event of a commit took; starts are not consumed, so they do not count."""
        events = [event for ticket in batch for event in ticket.events]
        if events:
            self._rate.took(events, seconds)

    def _give_up_waiting(self, error: BaseException) -> None:
        self._ready = deque(ticket for ticket in self._ready if not ticket.give_up(error))
        self._on_outage(error)


class Company:
    """Whether the app has other engines, which keep the database busy while this one prepares its next commit."""

    def __init__(self, database: Database, known_for: float) -> None:
        self._database = database
        self._known_for = known_for
        self._look_at = 0.0
        self.found = False

    async def look(self) -> bool:
        """Whether there are others; looked up again after a while."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + self._known_for
            try:
                self.found = len((await live_members(self._database)).engines) > 1
            except DatabaseError as error:
                logger.debug("other engines could not be counted", extra={"error": str(error)})
        return self.found
