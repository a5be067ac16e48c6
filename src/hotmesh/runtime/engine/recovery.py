"""What becomes of a commit that had no answer, and of one whose events somebody else was first with.

A commit is written as a whole or not at all, and each job's row names the commit that wrote it last. So after a lost
connection one look tells which steps are through; the others go out again, and if the lost commit comes through after
all, they are refused and settled then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

import anyio

from hotmesh.core.state.step import Consumed, WorkKey
from hotmesh.errors import DatabaseError, NoConnectionError
from hotmesh.postgres import commits
from hotmesh.postgres.connect.failures import backoff
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.steps import Committed
from hotmesh.runtime.engine.ticket import Attempt, Ticket
from hotmesh.runtime.engine.writer import CommitWriter
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.wake import Wake
from hotmesh.runtime.work.slots import Slots

logger = logging.getLogger("hotmesh.engine")

Written = Mapping[str, tuple[str, int, int]]
"""Job id → generation, seq and token of its row."""


class Recovery:
    """Settles attempts that failed as a whole.

    `give_up_waiting` is called when there has been no connection for `connect_timeout`: it is for the tickets that are in
    no attempt.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        slots: Slots,
        writer: CommitWriter,
        stream_wake: Wake,
        give_up_waiting: Callable[[BaseException], None],
    ) -> None:
        self._database = surroundings.database
        self._plans = surroundings.plans
        self._member = surroundings.member
        self._settings = surroundings.settings
        self._slots = slots
        self._writer = writer
        self._stream_wake = stream_wake
        self._give_up_waiting = give_up_waiting
        self._losses = 0
        """Connections lost in a row, without a commit in between."""
        self._lost_since = 0.0
        self._unseen = 0
        """How often in a row it could not be looked up which events were answered elsewhere."""

    def came_through(self) -> None:
        """A commit has been answered."""
        self._losses = 0

    # -- no answer ---------------------------------------------------------------------------------------

    async def after_loss(
        self, link: Link, batch: Sequence[Ticket], attempt: Attempt, error: BaseException
    ) -> None:
        """The connection broke: find out which steps were written, and carry on with the others.

        Waiting callers are told only once `connect_timeout` has passed without a connection.
        """
        reserved = {work.key for work in attempt.overflow}.union(*(ticket.reserved for ticket in batch))
        # Reading may work where writing does not: a server that is read-only must not be asked in a busy loop.
        if self._losses:
            await anyio.sleep(backoff(self._losses, longest=self._settings.reconnect_max))
            self._give_up(batch, error)
        else:
            self._lost_since = attempt.since
        self._losses += 1
        written, held = await self._find_out(link, batch, attempt, reserved, error)
        # It was written as a whole or not at all.
        seen = bool(held) or any(token == attempt.token for *_, token in written.values())
        self._settle_reservations(attempt, reserved, held, seen=seen)
        for ticket in batch:
            job = ticket.step.jobs[0].job
            # Held rows tell it, too, when the job has been advanced by others since.
            if written.get(job.job_id) == (job.generation, job.seq, attempt.token) or held & ticket.reserved:
                self._writer.free_slots_but(ticket, held)
                ticket.applied(attempt, found_written(self._plans.epoch))
            else:
                self._writer.free_slots((ticket,))
                ticket.unwritten()
        self._stream_wake.set()

    async def _find_out(
        self,
        link: Link,
        batch: Sequence[Ticket],
        attempt: Attempt,
        reserved: Collection[WorkKey],
        error: BaseException,
    ) -> tuple[Written, set[WorkKey]]:
        """The rows of the batch's jobs, and what this process holds of the reserved work; asks until there is an answer."""
        failures = 0
        while True:
            try:
                async with (
                    link.use() as connection,
                    # One snapshot: the server may be writing it just now.
                    connection.transaction(isolation="repeatable_read", readonly=True),
                ):
                    written = await commits.written(
                        self._database, connection, [ticket.step.jobs[0].job.job_id for ticket in batch]
                    )
                    if not reserved:
                        return written, set()
                    return written, await commits.reserved_by(
                        self._database, connection, self._member, attempt.token, reserved
                    )
            except DatabaseError as failure:
                # Whatever the server says: without an answer, nothing can be done about the batch.
                if not isinstance(failure, NoConnectionError):
                    logger.warning("lost commit could not be looked up", extra={"error": str(failure)})
                self._give_up(batch, error)
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))
                failures += 1

    def _settle_reservations(
        self, attempt: Attempt, reserved: Collection[WorkKey], held: Collection[WorkKey], *, seen: bool
    ) -> None:
        overflow = attempt.overflow
        if seen:
            claimed = [position for position, work in enumerate(overflow) if work.key in held]
            self._slots.overflow_claimed(overflow, claimed, attempt.since)
        else:
            self._slots.overflow_refused(overflow)
            if reserved:
                self._slots.lost_reservations.add(attempt.token)
        attempt.overflow = []

    def _give_up(self, batch: Sequence[Ticket], error: BaseException) -> None:
        """Tell those who wait for a commit, once there has been no database for `connect_timeout`."""
        if time.monotonic() - self._lost_since < self._settings.connect_timeout:
            return
        for ticket in batch:
            ticket.give_up(error)
        self._give_up_waiting(error)

    # -- answers given elsewhere -------------------------------------------------------------------------

    async def answered_elsewhere(self, link: Link, batch: Sequence[Ticket]) -> list[list[Ticket]]:
        """Rows that some of the steps answer are gone: what those events report does not count.

        Returns the batches in which all other tickets are to go out again.
        """
        try:
            async with link.use() as connection:
                gone = await commits.gone(
                    self._database,
                    connection,
                    self._member,
                    [item for ticket in batch for item in ticket.step.consumed],
                )
        except DatabaseError as error:
            # Nothing was written, and it comes to light again.
            gone = set[Consumed]()
            logger.warning("events answered elsewhere could not be looked up", extra={"error": str(error)})
            await anyio.sleep(backoff(self._unseen, longest=self._settings.reconnect_max))
            self._unseen += 1
        else:
            self._unseen = 0
        late = {ticket for ticket in batch if not gone.isdisjoint(ticket.step.consumed)}
        for ticket in late:
            ticket.without(gone)
        if late:
            others = [ticket for ticket in batch if ticket not in late]
            return [others] if others else []
        if len(batch) > 1:
            return [[ticket] for ticket in batch]
        batch[0].unwritten()
        return []


def found_written(epoch: int) -> Committed:
    """The verdict on a step that was found written after its answer was lost."""
    return Committed({}, epoch, woken=True, listeners={}, committed_at=datetime.now(UTC))
