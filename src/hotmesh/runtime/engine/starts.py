"""Begins jobs: a step is computed at once, and its caller waits until it is committed.

A start is computed again when the definitions have changed, or when it has to know that an id is taken. While a
transaction of somebody's holds its id, it waits for the end of that; for as long as there may be no connection, too,
and no longer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final, Protocol

from hotmesh.core.advance.limits import Limits
from hotmesh.core.state.job import Job, StartRequest
from hotmesh.core.state.step import Consumed, Step
from hotmesh.errors import (
    ConnectionLostError,
    DatabaseError,
    DuplicateJobError,
    HotMeshError,
    NoConnectionError,
)
from hotmesh.postgres import commits
from hotmesh.postgres.connect.failures import backoff, id_is_held
from hotmesh.postgres.steps import Committed
from hotmesh.runtime.definitions.program import Program
from hotmesh.runtime.engine.after_commit import AfterCommit
from hotmesh.runtime.engine.group_commit import GroupCommit
from hotmesh.runtime.engine.in_flight import InFlight
from hotmesh.runtime.engine.job_cache import JobCache
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.engine.recovery import found_written
from hotmesh.runtime.engine.step_watch import StepWatch
from hotmesh.runtime.engine.ticket import STOPPED, Attempt, Ticket
from hotmesh.runtime.service import Flag, forever
from hotmesh.runtime.surroundings import Surroundings

logger = logging.getLogger("hotmesh.engine")


class Starter(Protocol):
    """Who hears what becomes of a start; one of the two is called, once, and must not raise."""

    def created(self, job: Job) -> None:
        """The job exists, durably."""

    def not_created(self, error: BaseException) -> None:
        """It does not, or that is not known."""


class _Awaiting:
    """A coroutine that waits for the job."""

    __slots__ = ("verdict",)

    def __init__(self) -> None:
        self.verdict: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        """A bare future: the commit loop answers some thousand of these a second."""

    def created(self, job: Job) -> None:
        if not self.verdict.done():
            self.verdict.set_result(job)

    def not_created(self, error: BaseException) -> None:
        if not self.verdict.done():
            self.verdict.set_exception(error)


class StartTicket(Ticket):
    """The step that creates a job, for a caller who waits."""

    __slots__ = (
        "_starts",
        "held_until",
        "lost",
        "over",
        "refusals",
        "request",
        "set_aside_at",
        "starter",
        "taken",
    )

    def __init__(
        self, starts: Starts, request: StartRequest, step: Step, epoch: int, starter: Starter
    ) -> None:
        super().__init__(step)
        self.epoch = epoch
        self.request = request
        self._starts = starts
        self.starter = starter
        self.taken: frozenset[str] = frozenset()
        """Ids that commits have found in other hands."""
        self.lost = False
        """The answer to a commit of it was lost; it may yet come through."""
        self.over = False
        """The caller has been told."""
        self.held_until: float | None = None
        """Until when to wait for its id, which is in an open transaction, by `time.monotonic`."""
        self.refusals = 0
        """Refusals of the database that were nothing of the step's."""
        self.set_aside_at = 0.0
        """When it was last put off until it can be computed again, likewise."""

    def tell(self, result: Job | BaseException) -> None:
        """Tell the caller; what comes second is nothing to anybody."""
        if self.over:
            return
        self._starts.settled(self)
        if isinstance(result, BaseException):
            self.starter.not_created(result)
        else:
            self.starter.created(result)

    def recompute(self) -> None:
        self._starts.again(self)

    def applied(self, attempt: Attempt, committed: Committed) -> None:
        self._starts.applied(self, attempt, committed)
        self.tell(self.step.jobs[0].job)

    async def refused(self, reason: str, taken: str) -> None:
        del reason  # that an id is taken is all there can be: it changes no job
        try:
            if self.lost and await self._starts.is_written(self):
                # The commit whose answer was lost came through after all.
                self.local = [False] * len(self.step.work)
                self.applied(Attempt(self.epoch), found_written(self.epoch))
                return
            freed = await self._starts.free_expired(taken)
        except NoConnectionError:
            # The other steps of the batch are settled; this one is refused again, and then asks again.
            freed = True
        except DatabaseError as error:
            self._try_later(error)
            return
        if not freed and self.step.jobs[0].job.job_id == taken:
            self.tell(DuplicateJobError(taken))
            return
        if not freed:
            # A child's id is in other hands: the step is computed again with that fact.
            self.taken |= {taken}
        self._starts.again(self)

    def unwritten(self) -> None:
        self.lost = True
        if not self.over:
            self._starts.resubmit(self)

    def rejected(self, error: BaseException, *, own: bool) -> None:
        if id_is_held(error):
            self._starts.wait_for_id(self)
        elif own:
            self._fail(error)
        else:
            self._try_later(error)

    def _try_later(self, error: BaseException) -> None:
        """Try a few times, and not longer: the caller is there, and can act on it."""
        self.refusals += 1
        if self.refusals > MOST_REFUSALS:
            self._fail(error)
        else:
            self._starts.again_in(self, backoff(self.refusals - 1, longest=1.0))

    def _fail(self, error: BaseException) -> None:
        job_id = self.step.jobs[0].job.job_id
        logger.error("step could not be stored", extra={"job_id": job_id}, exc_info=error)
        self.tell(error)

    def without(self, gone: Collection[Consumed]) -> None:
        raise AssertionError("a start answers no row")

    def give_up(self, error: BaseException) -> bool:
        self.tell(ConnectionLostError(str(error)))
        return True

    def abandon(self, error: BaseException) -> None:
        self.tell(error)


class Starts:
    """The starts of one engine. `run` computes those again that need it."""

    def __init__(
        self,
        surroundings: Surroundings,
        group_commit: GroupCommit,
        after_commit: AfterCommit,
        cache: JobCache,
        in_flight: InFlight,
        watch: StepWatch,
        step_limits: Limits,
        limits: EngineLimits,
    ) -> None:
        self._database = surroundings.database
        self._plans = surroundings.plans
        self._settings = surroundings.settings
        self._environment = surroundings.environment
        self._group_commit = group_commit
        self._after_commit = after_commit
        self._cache = cache
        self._in_flight = in_flight
        self._watch = watch
        self._step_limits = step_limits
        self._id_held_retry = limits.id_held_retry
        self._again: list[StartTicket] = []
        self._news = Flag()
        self._held: set[StartTicket] = set()
        """Starts that wait because their id is in an open transaction."""
        self._paused: set[StartTicket] = set()
        """Starts that are tried again in a moment."""
        self._closed = False

    async def run(self) -> None:
        """Compute again what was set aside for that; the definitions may have to be read first."""
        await forever(
            self.run_once,
            logger,
            lost=None,
            failed="step could not be computed",
            longest_pause=self._settings.reconnect_max,
        )

    def close(self) -> None:
        """Abandon what waits here, and take no more."""
        self._closed = True
        for ticket in (*self._again, *self._paused, *self._held):
            ticket.abandon(HotMeshError(STOPPED))
        self._again.clear()
        self._paused.clear()
        self._held.clear()

    async def start(self, request: StartRequest) -> Job:
        """Create a job; returns once it is durable.

        Raises TopicNotFoundError, MappingError, DuplicateJobError, AppNotFoundError, ConnectionLostError.
        """
        awaiting = _Awaiting()
        await self.begin(request, awaiting)
        return await awaiting.verdict

    async def begin(self, request: StartRequest, starter: Starter) -> None:
        """Have a job created; returns as soon as its step is on its way. Raises as `start` what is known by then."""
        if self._closed:
            raise HotMeshError(STOPPED)
        program = await self._program(request)
        step = self._compute(program, request, frozenset())
        ticket = StartTicket(self, request, step, self._plans.epoch, starter)
        self._in_flight.begin()
        self._group_commit.submit(ticket)

    async def run_once(self) -> None:
        """Wait until there is something to compute again, and do that."""
        if not self._again:
            self._news.clear()
            await self._news.wait()
        for ticket in tuple(self._again):
            try:
                program = await self._program(ticket.request)
            except DatabaseError as error:
                self._again = [one for one in self._again if self._is_patient(one, error)]
                raise
            except Exception as error:  # noqa: BLE001 - it is the caller's
                if ticket in self._again:
                    self._again.remove(ticket)
                    ticket.tell(error)
                continue
            # Finding the program may wait: meanwhile it may have been given up.
            if ticket in self._again:
                self._again.remove(ticket)
                self._compute_again(program, ticket)

    @property
    def waiting_for_id(self) -> int:
        """Starts that wait for the end of somebody's transaction."""
        return len(self._held)

    def give_up(self, error: BaseException) -> None:
        """There has been no connection for as long as a caller waits."""
        for ticket in self._take_again():
            ticket.give_up(error)

    # -- verdicts ----------------------------------------------------------------------------------------

    def applied(self, ticket: StartTicket, attempt: Attempt, committed: Committed) -> None:
        self._after_commit.apply(ticket, attempt, committed)
        self._cache.evict()

    def settled(self, ticket: StartTicket) -> None:
        if not ticket.over:
            ticket.over = True
            if ticket not in self._held:
                self._in_flight.end()

    def resubmit(self, ticket: StartTicket) -> None:
        """Commit the same step once more."""
        self._group_commit.submit(ticket)

    async def is_written(self, ticket: StartTicket) -> bool:
        """Whether the job that a start should create is the one that an earlier commit of it created."""
        job = ticket.step.jobs[0].job
        async with self._database.connection() as connection:
            written = await commits.written(self._database, connection, [job.job_id])
        return written.get(job.job_id, ("",))[0] == job.generation

    async def free_expired(self, job_id: str) -> bool:
        """Whether the job that has the id was one whose time is over, and is gone now."""
        return await commits.free_expired_ids(self._database, [job_id]) > 0

    # -- once more ---------------------------------------------------------------------------------------

    def again(self, ticket: StartTicket) -> None:
        """Compute a start again; the active version may have to be read first."""
        ticket.set_aside_at = time.monotonic()
        self._again.append(ticket)
        self._news.set()

    def again_in(self, ticket: StartTicket, delay: float) -> None:
        """Compute a start again after a pause."""
        if self._closed:
            ticket.abandon(HotMeshError(STOPPED))
        else:
            self._paused.add(ticket)
            asyncio.get_running_loop().call_later(delay, self._end_pause, ticket)

    def _end_pause(self, ticket: StartTicket) -> None:
        if ticket in self._paused:
            self._paused.remove(ticket)
            self.again(ticket)

    def wait_for_id(self, ticket: StartTicket) -> None:
        """A transaction of somebody's has the id and is still open: whether it is taken is known when that ends."""
        now = time.monotonic()
        if ticket.held_until is None:
            ticket.held_until = now + self._settings.connect_timeout
        elif now >= ticket.held_until:
            ticket.tell(DuplicateJobError(ticket.step.jobs[0].job.job_id))
            return
        self._held.add(ticket)
        # How long that takes is up to others: an engine that is to stop does not wait for it.
        self._in_flight.end()
        asyncio.get_running_loop().call_later(self._id_held_retry, self._try_id_again, ticket)

    def _try_id_again(self, ticket: StartTicket) -> None:
        if ticket in self._held:
            self._held.remove(ticket)
            self._in_flight.begin()
            self.again(ticket)

    def _take_again(self) -> list[StartTicket]:
        taken, self._again = self._again, []
        return taken

    def _is_patient(self, ticket: StartTicket, error: BaseException) -> bool:
        """Whether the start has not waited for `connect_timeout` yet; if it has, its caller is told."""
        if time.monotonic() - ticket.set_aside_at < self._settings.connect_timeout:
            return True
        if isinstance(error, NoConnectionError):
            return not ticket.give_up(error)
        ticket.tell(error)
        return False

    async def _program(self, request: StartRequest) -> Program:
        """Who decides the step. Raises AppNotFoundError if it is of a graph, and no version is active."""
        if request.queue is not None:
            return self._plans.of_functions()
        return await self._plans.active_program()

    def _compute(self, program: Program, request: StartRequest, taken: frozenset[str]) -> Step:
        return self._watch.run(
            request.job_id or f"to start by {request.topic}",
            program.start,
            request,
            _now(),
            self._environment,
            taken=taken,
            limits=self._step_limits,
        )

    def _compute_again(self, program: Program, ticket: StartTicket) -> None:
        try:
            step = self._compute(program, ticket.request, ticket.taken)
        except Exception as error:  # noqa: BLE001 - it is the caller's
            ticket.tell(error)
            return
        ticket.step, ticket.epoch = step, self._plans.epoch
        self._group_commit.submit(ticket)


MOST_REFUSALS: Final = 4
"""How often a start is tried again that the database refuses for reasons of its own: for about a second and a half."""


def _now() -> datetime:
    return datetime.now(UTC)
