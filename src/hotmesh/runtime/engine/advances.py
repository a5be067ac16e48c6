"""Advances jobs that are in memory: what happens to one becomes a step as soon as there is a batch for it.

All events that a job has by the time a batch is gathered become one step, and while that is on its way, further ones
wait. A job that is not in memory with what its events need is loaded first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Final

from hotmesh.core.advance.limits import Limits
from hotmesh.core.state.job import Event, Job
from hotmesh.core.state.step import Consumed, Step
from hotmesh.errors import DatabaseError
from hotmesh.foreign_errors import words_or_kind_of
from hotmesh.postgres import commits
from hotmesh.postgres.connect.failures import backoff
from hotmesh.postgres.rows import AnswerNotice
from hotmesh.postgres.steps import Committed
from hotmesh.runtime.definitions.program import Program
from hotmesh.runtime.durable.turns import Turns
from hotmesh.runtime.engine.after_commit import AfterCommit
from hotmesh.runtime.engine.group_commit import GroupCommit
from hotmesh.runtime.engine.job_cache import CachedJob, HandedEvent, JobCache, without_lapsed
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.engine.loader import JobLoader, RecordLoader
from hotmesh.runtime.engine.step_watch import StepCutOffError, StepWatch
from hotmesh.runtime.engine.ticket import Attempt, Ticket
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.telemetry.metrics import add
from hotmesh.runtime.wake import HANDOVER, Wake
from hotmesh.runtime.work.slots import Slots

logger = logging.getLogger("hotmesh.engine")


class EventsTicket(Ticket):
    """The events of a job in memory, and, from the moment it is gathered, the step that they cause."""

    __slots__ = ("_advances", "cached", "taken")

    def __init__(self, advances: Advances, cached: CachedJob) -> None:
        super().__init__(_NOT_YET)
        self.epoch = -1
        self.cached = cached
        self.taken: frozenset[str] = frozenset()
        """Ids of children that commits have found in other hands."""
        self._advances = advances

    def gather(self) -> bool:
        return self._advances.compute(self)

    def recompute(self) -> None:
        self._advances.resubmit(self)

    def applied(self, attempt: Attempt, committed: Committed) -> None:
        self._advances.applied(self, attempt, committed)

    async def refused(self, reason: str, taken: str) -> None:
        match reason:
            case "busy":
                # Another engine is working on the job: try again in a moment, with what it leaves.
                self.cached.blocked += 1
                self._advances.reload_in(self, min(0.005 * 2 ** min(self.cached.blocked, 5), 0.1))
            case "lost":
                # Another process advanced the job: read it again, and apply the events to what it is now.
                self._advances.reload(self)
            case _:
                self._advances.in_use(self.cached, taken)
                try:
                    freed = await self._advances.free_expired(taken)
                except DatabaseError as error:
                    # The other steps of the batch are settled; this one is refused again, and then asks again.
                    self._try_later(error)
                    return
                if not freed:
                    # A child's id is in other hands: the step is computed again with that fact.
                    self.taken |= {taken}
                self._advances.resubmit(self)

    def unwritten(self) -> None:
        self._advances.reload(self)

    def rejected(self, error: BaseException, *, own: bool) -> None:
        cached = self.cached
        if not own:
            # The database has no room, or two transactions were in each other's way: nothing is wrong with the step.
            self._try_later(error)
            return
        # It refuses the step itself: its events fail their activities instead.
        logger.error("step could not be stored", extra={"job_id": cached.job_id}, exc_info=error)
        self._advances.fail(cached, self.events, not_stored(error))

    def alternative(self) -> Step | None:
        """The step with the failure of its activities in place of what its events report."""
        if self.cached.refusals < DOUBTED:
            return None
        return self._advances.failing_step(self)

    def _try_later(self, error: BaseException) -> None:
        cached = self.cached
        cached.refusals += 1
        delay = self._advances.pause(cached.refusals)
        logger.warning(
            "step not stored yet", extra={"job_id": cached.job_id, "delay": delay, "error": str(error)}
        )
        self._advances.reload_in(self, delay)

    def without(self, gone: Collection[Consumed]) -> None:
        self._advances.drop_gone(self, gone)

    def give_up(self, error: BaseException) -> bool:
        return False  # nobody waits for it

    def abandon(self, error: BaseException) -> None:
        """Its events come again from their rows."""


class Advances:
    """Advances the jobs that are in memory. `run` loads those that are not."""

    def __init__(
        self,
        surroundings: Surroundings,
        slots: Slots,
        group_commit: GroupCommit,
        after_commit: AfterCommit,
        cache: JobCache,
        records: RecordLoader,
        stream_wake: Wake,
        recheck: Callable[[str], None],
        watch: StepWatch,
        step_limits: Limits,
        limits: EngineLimits,
        turns: Turns,
    ) -> None:
        self._database = surroundings.database
        self._plans = surroundings.plans
        self._settings = surroundings.settings
        self._environment = surroundings.environment
        self._metrics = surroundings.metrics
        self._slots = slots
        self._group_commit = group_commit
        self._after_commit = after_commit
        self._cache = cache
        self._stream_wake = stream_wake
        self._watch = watch
        self._step_limits = step_limits
        self._most_cuts = limits.most_cuts
        self._most_events = limits.events_per_step
        self._turns = turns
        self._loader = JobLoader(surroundings, slots, cache, records, recheck, self._submit, turns)

    async def run(self) -> None:
        await self._loader.run()

    async def close(self) -> None:
        await self._loader.close()

    def deliver(self, job_id: str, generation: str, event: Event) -> None:
        """Something happened to a job, known to this process first."""
        cached = self._cache.get_or_add(job_id, generation)
        cached.events.append(event)
        if not cached.busy:
            self._cache.occupy(cached)
            self._queue(cached)

    def deliver_notice(self, answer: AnswerNotice) -> None:
        """A worker of another process answered, and told this one, which has `HANDOVER` seconds for it."""
        event = HandedEvent(
            "answer",
            answer.activity_id,
            answer.dimension,
            answer.status,
            answer.code,
            answer.data,
            receipt=answer.receipt,
            started_at=answer.at,
            attempt=answer.work_attempt,
            # Less than all of the time: a step takes some of it.
            until=time.monotonic() + HANDOVER * 0.8,
        )
        self.deliver(answer.job_id, answer.generation, event)

    @property
    def waiting(self) -> int:
        """Jobs with events that are not in memory yet."""
        return self._loader.waiting

    # -- steps -------------------------------------------------------------------------------------------

    def compute(self, ticket: EventsTicket) -> bool:
        """Make the step of a ticket from all events that its job has by now; False: there is none to commit."""
        cached = ticket.cached
        job, program = cached.job, self._program(cached)
        if job is None or program is None:
            self._loader.add(cached)
            return False
        most = self._most_events
        due, cached.events = cached.events[:most], cached.events[most:]
        events = self.still_ours(due)
        if not events:
            self._step_done(cached)
            return False
        try:
            ticket.step = self._compute(program, job, events, ticket.taken)
        except StepCutOffError as error:
            cached.cuts += 1
            if cached.cuts < self._most_cuts:
                ticket.events = events
                self.reload_in(ticket, self.pause(cached.cuts))
            else:
                # Where failing leads to the same work again, the job ends; and others have a turn before each step.
                found = failed if cached.cuts == self._most_cuts else ending
                cached.events = [found(event, str(error)) for event in events] + cached.events
                asyncio.get_running_loop().call_later(self.pause(cached.cuts), self._queue, cached)
            return False
        except Exception as error:
            logger.error("step could not be computed", extra={"job_id": cached.job_id}, exc_info=error)
            self.fail(
                cached, events, f"the step could not be computed: {words_or_kind_of(error, MOST_WORDS)}"
            )
            return False
        ticket.events = events
        ticket.epoch = self._plans.epoch
        return True

    def _compute(self, program: Program, job: Job, events: Sequence[Event], taken: frozenset[str]) -> Step:
        return self._watch.run(
            job.job_id,
            program.advance,
            job,
            events,
            _now(),
            self._environment,
            taken=taken,
            limits=self._step_limits,
        )

    def still_ours(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events without those that others may have taken by now; whether they have, the stream tells."""
        kept = without_lapsed(events)
        if len(kept) < len(events):
            self._stream_wake.set()
        return kept

    def _queue(self, cached: CachedJob) -> None:
        """A job with events goes to the next commit; without what they need, it is loaded first."""
        if self._program(cached) is None:
            self._loader.add(cached)
        else:
            self._submit(cached)

    def _program(self, cached: CachedJob) -> Program | None:
        """The program of a job that is in memory with what its events need."""
        job = cached.job
        if job is None or not (job.covered is None or all(map(job.covers, cached.events))):
            return None
        if job.queue is not None and not self._turns.ready(job):
            return None
        return self._plans.known_program(job)

    def _submit(self, cached: CachedJob) -> None:
        self._group_commit.submit(EventsTicket(self, cached))

    # -- verdicts ----------------------------------------------------------------------------------------

    def applied(self, ticket: EventsTicket, attempt: Attempt, committed: Committed) -> None:
        cached = ticket.cached
        self._slots.answers_committed(cached.generation, ticket.events)
        self._after_commit.apply(ticket, attempt, committed, cached)
        cached.failures = cached.blocked = cached.refusals = cached.cuts = 0
        self._step_done(cached)
        self._cache.evict()

    def resubmit(self, ticket: EventsTicket) -> None:
        """Compute the step of a ticket again."""
        self._take_back(ticket)
        self._group_commit.submit(ticket)

    def reload(self, ticket: EventsTicket) -> None:
        """Read the job of a ticket again, and go on with what it is now."""
        self._take_back(ticket)
        self._cache.to_reload(ticket.cached)
        self._queue(ticket.cached)

    def reload_in(self, ticket: EventsTicket, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self.reload, ticket)

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return backoff(failures, longest=self._settings.reconnect_max)

    def in_use(self, cached: CachedJob, taken: str) -> None:
        """What a commit has found in other hands may be the id of a signal."""
        self._turns.taken.note(cached.generation, taken)

    async def free_expired(self, job_id: str) -> bool:
        """Whether the job that has the id was one whose time is over, and is gone now."""
        return await commits.free_expired_ids(self._database, [job_id]) > 0

    def failing_step(self, ticket: EventsTicket) -> Step | None:
        """What would be written if the events of a ticket failed their activities; None if that cannot be said."""
        cached, error = ticket.cached, "the result could not be stored"
        program = self._program(cached)
        if cached.job is None or program is None:
            return None
        events = [failed(event, error) for event in ticket.events]
        try:
            return self._compute(program, cached.job, events, ticket.taken)
        except Exception:  # noqa: BLE001 - then nothing can be compared
            return None

    def fail(self, cached: CachedJob, events: Sequence[Event], message: str) -> None:
        """Let events fail their activities: what they report can be neither applied nor stored."""
        cached.failures += 1
        if cached.failures > self._settings.poison_threshold:
            # Not even the error can be stored; the rows stay, and others will come to the same end by the stream.
            cached.job = None
            self._slots.answers_committed(cached.generation, events)
            self._drop_events(cached)
            self._step_done(cached)
            return
        cached.events = [failed(event, message) for event in events] + cached.events
        self._queue(cached)

    def drop_gone(self, ticket: EventsTicket, gone: Collection[Consumed]) -> None:
        """Go on with those events of a ticket that nobody else was first with."""
        cached = ticket.cached
        late = [
            event
            for event in ticket.events
            if event.receipt is not None and Consumed(cached.generation, event.receipt) in gone
        ]
        for event in late:
            add(self._metrics.refused, "answered")
            logger.warning(
                "event dropped, another process was first",
                extra={"job_id": cached.job_id, "activity_id": event.activity_id, "kind": event.kind},
            )
        self._slots.answers_committed(cached.generation, late)
        cached.events = [*(event for event in ticket.events if event not in late), *cached.events]
        self._cache.to_reload(cached)
        self._step_done(cached)

    def _take_back(self, ticket: EventsTicket) -> None:
        ticket.cached.events = [*ticket.events, *ticket.cached.events]
        ticket.events = ()

    def _step_done(self, cached: CachedJob) -> None:
        """A step of the job is through: on with the events that came meanwhile."""
        if not self._cache.holds(cached):
            # The job has ended; what came late means nothing any more, and its rows went with it.
            self._drop_events(cached)
        self._cache.shorten(cached)
        if cached.events:
            self._queue(cached)
        else:
            self._cache.vacate(cached)

    def _drop_events(self, cached: CachedJob) -> None:
        """The events of a job mean nothing any more, or come again from their rows."""
        self._slots.answers_committed(cached.generation, cached.events)
        cached.events = []


def failed(event: Event, message: str) -> Event:
    """The event as the failure of its activity; of one that has no activity, the end of its job."""
    if event.kind not in ("answer", "added", "result", "signal", "timer", "step", "wake"):
        return ending(event, message)
    return Event(
        event.kind,
        event.activity_id,
        event.dimension,
        "error",
        500,
        {"message": message, "code": 500},
        event.message_id,
        event.receipt,
        event.started_at,
        event.attempt,
    )


def ending(event: Event, message: str) -> Event:
    """The event as the end of its job."""
    return Event("interrupt", data={"reason": message, "code": 500}, receipt=event.receipt)


def not_stored(error: BaseException) -> str:
    return f"the result could not be stored: {words_or_kind_of(error, MOST_WORDS)}"


def _now() -> datetime:
    return datetime.now(UTC)


MOST_WORDS: Final = 1_000
"""Characters of an error that its activity fails with."""

DOUBTED: Final = 3
"""Refusals in a row, of which it is not known whose fault they are, before that is found out."""

_NOT_YET: Final = Step(())
"""The step of events that have not been gathered."""
