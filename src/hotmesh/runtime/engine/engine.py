"""The engine of one app in one process: the parts of this room, put together."""

from __future__ import annotations

import logging
from collections.abc import Callable

from anyio.abc import TaskGroup

from hotmesh.core.advance.limits import Limits
from hotmesh.core.state.job import Event, Job, StartRequest
from hotmesh.errors import CodecError
from hotmesh.postgres.rows import AnswerNotice
from hotmesh.runtime.durable.turns import Turns
from hotmesh.runtime.engine.advances import Advances, EventsTicket
from hotmesh.runtime.engine.after_commit import AfterCommit, Notify
from hotmesh.runtime.engine.duress import Duress, Level
from hotmesh.runtime.engine.group_commit import GroupCommit
from hotmesh.runtime.engine.in_flight import InFlight
from hotmesh.runtime.engine.job_cache import JobCache
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.engine.loader import RecordLoader
from hotmesh.runtime.engine.rate import EngineRate
from hotmesh.runtime.engine.starts import Starter, Starts
from hotmesh.runtime.engine.step_watch import StepWatch
from hotmesh.runtime.engine.stream import EngineStream
from hotmesh.runtime.engine.writer import CommitWriter
from hotmesh.runtime.frontier import FrontierLimits
from hotmesh.runtime.pace import Pace
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.wake import HANDOVER, Wake
from hotmesh.runtime.work.slots import Slots

logger = logging.getLogger("hotmesh.engine")


class Engine:
    """Advances the jobs of an app. `run` starts it, `drain` and `close` end it.

    `notify` is called after each commit with what is announced; `recheck`, by generation, with a job that has ended
    unnoticed. `reply_channel` is where this process hears of answers by others. `readonly`: it starts jobs, and
    leaves the rest to others. Its parts are public, for whoever asks about one of them.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        slots: Slots,
        notify: Notify,
        recheck: Callable[[str], None],
        reply_channel: Callable[[], str | None],
        *,
        readonly: bool = False,
        limits: EngineLimits,
        frontier_limits: FrontierLimits,
    ) -> None:
        settings, telemetry = surroundings.settings, surroundings.telemetry
        self._watch = watch = StepWatch(limits.long_step, limits.longest_step)
        step_limits = Limits(
            seen=limits.seen_answers,
            max_cycles=settings.max_cycles,
            expire=settings.expire,
            max_payload=settings.max_payload,
            trace=None if telemetry is None else telemetry.mode,
            enough=watch.enough,
        )
        self._database = surroundings.database
        self._telemetry = telemetry
        self._own_channel = reply_channel
        self._recheck = recheck
        self._readonly = readonly
        self._most_uncommitted = limits.uncommitted_jobs
        self._stopping = False
        self._in_flight = InFlight()
        self.stream_wake = wake = Wake(settings.poll)
        self.rate = rate = EngineRate(settings, slots)
        self.cache = cache = JobCache(settings, self._in_flight, limits, readonly=readonly)
        self.turns = turns = Turns(
            surroundings.database.app_id,
            self.deliver,
            slots.takes,
            limits.local_steps,
            limits.kept_functions,
            settings.cleaning_up,
        )
        turns.watched = watch.run
        surroundings.plans.durable = turns
        writer = CommitWriter(
            surroundings, slots, self._reply_channel, self._send_delay, limits, readonly=readonly, turns=turns
        )
        self.after_commit = after_commit = AfterCommit(
            surroundings, slots, cache, rate, wake, notify, self.deliver, turns
        )
        self.group_commit = group_commit = GroupCommit(
            surroundings, slots, writer, rate, self._in_flight, wake, limits, self._on_outage
        )
        self.starts = Starts(
            surroundings, group_commit, after_commit, cache, self._in_flight, watch, step_limits, limits
        )
        records = RecordLoader(surroundings)
        self.advances = Advances(
            surroundings, slots, group_commit, after_commit, cache, records, wake, recheck, watch, step_limits, limits, turns
        )  # fmt: skip
        self.stream = EngineStream(
            surroundings,
            cache,
            records,
            writer,
            after_commit,
            rate,
            wake,
            watch,
            step_limits,
            limits,
            frontier_limits,
            turns,
        )

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start the loops in the instance's task group; cancelling them rolls back what is not committed."""
        self._watch.start()
        await self.group_commit.run(tasks)
        tasks.start_soon(self.starts.run, name="start again")
        tasks.start_soon(self.advances.run, name="load")
        if not self._readonly:
            tasks.start_soon(self.stream.run, name="stream")

    async def drain(self) -> None:
        """Take no more from the stream, and return once every step in memory has been committed."""
        self._stopping = True
        self.stream.stop()
        await self._in_flight.none()

    async def close(self) -> None:
        """End what is left. The loops have ended; callers who still wait are told so."""
        self._watch.close()
        self.starts.close()
        await self.group_commit.close()
        await self.advances.close()
        await self.stream.close()
        self.turns.close()

    # -- what happens to jobs ----------------------------------------------------------------------------

    async def start(self, request: StartRequest) -> Job:
        """Create a job; returns once it is durable.

        Raises TopicNotFoundError, MappingError, DuplicateJobError, AppNotFoundError, ConnectionLostError.
        """
        if self._telemetry is None:
            return await self.starts.start(request)
        request = self._telemetry.begin(request)
        try:
            return await self.starts.start(request)
        finally:
            self._telemetry.forget(request.generation)

    async def begin(self, request: StartRequest, starter: Starter) -> None:
        """Have a job created, and its starter told. Raises as `start` what is known at once."""
        if self._telemetry is None:
            await self.starts.begin(request, starter)
        else:
            starter.created(await self.start(request))

    def deliver(self, job_id: str, generation: str, event: Event) -> None:
        """Something happened to a job, known to this process first."""
        self.advances.deliver(job_id, generation, event)

    def answered(self, answer: AnswerNotice) -> None:
        """A worker elsewhere answered for a job that this process had in memory when it sent the work."""
        if self.leaves_to_others:
            return
        try:
            answer.data = self._database.payload.reveal(answer.data)
        except CodecError as error:
            # Its row is soon there for an engine that can.
            logger.error("answer cannot be decoded", extra={"job_id": answer.job_id, "error": str(error)})
            return
        self.advances.deliver_notice(answer)

    def ended_elsewhere(self, generation: str) -> None:
        """A durable function was ended by another process, which knows that its steps may run here."""
        if self.turns.known(generation):
            self.turns.gone(generation)
        self._recheck(generation)

    def wake(self) -> None:
        """There may be something on the engine stream."""
        self.stream_wake.set()

    def hint(self, delay: float) -> None:
        """There may be something on the engine stream, for one of all engines, now or in some seconds."""
        self.stream_wake.hint(delay)

    # -- workers -----------------------------------------------------------------------------------------

    def slot_free(self) -> None:
        """A local worker can take more of what overflowed."""
        self.group_commit.look_again()

    def behind(self) -> bool:
        """True when more than `uncommitted_jobs` jobs have uncommitted events; workers then stop claiming."""
        loading = self.advances.waiting
        if loading + self.group_commit.waiting <= self._most_uncommitted:
            return False
        return loading + self.group_commit.waiting_of(EventsTicket) > self._most_uncommitted

    # -- rates -------------------------------------------------------------------------------------------

    def set_rate(self, rate: int) -> None:
        """Take at most one message per `rate` milliseconds from now on, or none (-1). Starts by callers go on."""
        self.rate.set(rate)

    def on_duress(self, level: Level, floor: float) -> None:
        """Another engine says how it fares. One that consumes nothing has nothing to slow."""
        if not self._readonly:
            self.rate.on_duress(level, floor)

    # -- figures -----------------------------------------------------------------------------------------

    @property
    def pace(self) -> Pace:
        return self.rate.pace

    @property
    def duress(self) -> Duress:
        return self.rate.duress

    @property
    def counts(self) -> dict[int, int]:
        """Starts and events that have become part of a committed step here, by code."""
        return self.after_commit.counts

    @property
    def error_count(self) -> int:
        """Failures in a row to read the engine stream."""
        return self.stream.failures

    @property
    def load(self) -> tuple[int, int, int]:
        """Jobs in memory, about how many bytes they take, and steps that wait for a commit."""
        return len(self.cache), self.cache.bytes, self.group_commit.waiting

    # -- what the parts ask ------------------------------------------------------------------------------

    @property
    def leaves_to_others(self) -> bool:
        """Whether it goes on with nothing from memory just now."""
        return self._readonly or self._stopping or self.rate.slowed

    def _reply_channel(self) -> str | None:
        """Where workers of other processes tell this one their answers; None: to all engines."""
        return None if self.leaves_to_others else self._own_channel()

    def _send_delay(self, generation: str | None) -> float:
        """For how long others leave a message for a job: as long as this process may go on with it from memory."""
        held = generation is not None and generation in self.cache and not self.rate.slowed
        return HANDOVER if held else 0.0

    def _on_outage(self, error: BaseException) -> None:
        self.starts.give_up(error)
