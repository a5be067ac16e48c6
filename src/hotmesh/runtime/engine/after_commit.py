"""What a committed step means for this process: who is told, what starts, what is remembered.

None of it is needed for correctness: what is not done here because the process dies is found in the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from hotmesh.core.state.job import Event, MessageReceipt
from hotmesh.core.state.step import Message, Notice, Step
from hotmesh.postgres.steps import Committed
from hotmesh.runtime.durable.turns import Turns
from hotmesh.runtime.engine.job_cache import CachedJob, JobCache
from hotmesh.runtime.engine.rate import EngineRate
from hotmesh.runtime.engine.ticket import Attempt, UncommittedStep
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.telemetry.metrics import add
from hotmesh.runtime.wake import Wake
from hotmesh.runtime.work.answers import Deliver
from hotmesh.runtime.work.slots import Slots

Notify = Callable[[Notice, Mapping[str, Collection[str]]], None]
"""Called after the commit with each notice and `{topic: members elsewhere that subscribed}`."""


class AfterCommit:
    """Carries out what follows from a commit, in one go and without waiting for anything."""

    def __init__(
        self,
        surroundings: Surroundings,
        slots: Slots,
        cache: JobCache,
        rate: EngineRate,
        stream_wake: Wake,
        notify: Notify,
        deliver: Deliver,
        turns: Turns,
    ) -> None:
        self._metrics = surroundings.metrics
        self._events = surroundings.events
        self._telemetry = surroundings.telemetry
        self._slots = slots
        self._cache = cache
        self._rate = rate
        self._stream_wake = stream_wake
        self._notify = notify
        self._deliver = deliver
        self._turns = turns
        self.counts: dict[int, int] = {}
        """Starts and events that have become part of a committed step here, by code."""

    def apply(
        self, item: UncommittedStep, attempt: Attempt, committed: Committed, own: CachedJob | None = None
    ) -> None:
        """`own`: the job in memory whose events the step consumed."""
        step = item.step
        self._count(item)
        self._cache.update(step, attempt.arguments, own)
        if step.jobs[0].job.queue is not None:
            self._turns.committed(step)
        self._start_work(item, attempt, committed)
        for message in step.messages:
            self._hand_over(message)
        for timer in step.timers:
            self._stream_wake.set_in(timer.delay)
        for notice in step.notices:
            self._notify(notice, committed.listeners)
        if committed.escalations:
            self._report_escalations(step, committed)
        if self._telemetry is not None and step.spans:
            self._telemetry.record(step)

    def _count(self, item: UncommittedStep) -> None:
        self._metrics.applied(item.step)
        if item.step.jobs[0].created:
            add(self.counts, 200)
        for event in item.events:
            add(self.counts, event.code)

    def _start_work(self, item: UncommittedStep, attempt: Attempt, committed: Committed) -> None:
        """Run what is reserved for this process, and remember what it left to everybody."""
        created_at = committed.committed_at
        for work, local in zip(item.step.work, item.local, strict=True):
            if local:
                self._slots.start(work, created_at, attempt.since)
            else:
                self._slots.overflow(work, created_at)

    def _hand_over(self, message: Message) -> None:
        """A message for a job that is in memory here is an event at once; others are found on the stream."""
        generation = message.generation
        if generation is None or self._rate.slowed or generation not in self._cache:
            self._stream_wake.set()
            return
        event = Event(
            message.kind,
            message.activity_id,
            message.dimension,
            message.status,
            message.code,
            message.data,
            message.message_id if message.kind == "result" else "",
            MessageReceipt(message.message_id),
        )
        self._deliver(message.job_id, generation, event)

    def _report_escalations(self, step: Step, committed: Committed) -> None:
        if self._events is not None:
            for change in step.jobs:
                self._events.escalations(committed.escalations.get(change.job.job_id, ()))
