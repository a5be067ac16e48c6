"""The jobs that this process holds in memory, and what becomes of them when a step of theirs is through.

Everything here may be lost at any moment: each job is a row, and each event came from one.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import anyio

from hotmesh.core.codec import Payload
from hotmesh.core.state.job import Event, MessageReceipt
from hotmesh.core.state.step import Message, Notice, Step, Work, WorkKey
from hotmesh.postgres.rows import AnswerNotice
from hotmesh.postgres.steps import Batch, Committed
from hotmesh.runtime.engine.cell import CachedJob, HandedEvent, Pending
from hotmesh.runtime.telemetry.events import touched
from hotmesh.runtime.wake import HANDOVER, with_events

if TYPE_CHECKING:
    from hotmesh.runtime.definitions.plans import Plans
    from hotmesh.runtime.settings import Settings
    from hotmesh.runtime.telemetry.events import Events
    from hotmesh.runtime.telemetry.metrics import Metrics
    from hotmesh.runtime.telemetry.tracing import Telemetry
    from hotmesh.runtime.wake import Wake
    from hotmesh.runtime.work.slots import Slots

RECORD_LIMIT: Final = 256
"""Records kept in memory per job; a longer history is loaded in the parts that a step needs."""

Notify = Callable[[Notice, Mapping[str, Collection[str]]], None]
"""Told of every notice after its commit, with the members that want what is announced, by topic."""


class JobCache:
    """Jobs in memory, steps that are ready for a commit, and jobs that have to be loaded first."""

    def __init__(
        self,
        plans: Plans,
        workers: Slots,
        settings: Settings,
        notify: Notify,
        stream_wake: Wake,
        reply_channel: Callable[[], str | None],
        payload: Callable[[], Payload],
        *,
        readonly: bool,
        metrics: Metrics,
        events: Events | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._plans = plans
        self._metrics = metrics
        self._events = events
        self._telemetry = telemetry
        self._workers = workers
        self._settings = settings
        self._notify = notify
        self._readonly = readonly
        self._payload = payload
        self.stream_wake = stream_wake
        self._reply_channel = reply_channel
        self.cells: OrderedDict[str, CachedJob] = OrderedDict()
        self.bytes = 0
        self.ready: deque[CachedJob | Pending] = deque()
        self.unloaded: list[CachedJob] = []
        self.work_to_do = anyio.Event()
        self.something_to_load = anyio.Event()
        self.slowed = False
        """The engine takes its messages one by one from the stream, and none from memory."""
        self.counts: dict[int, int] = {}
        """Starts and events that have become part of a committed step here, by code."""

    def deliver(self, job_id: str, generation: str, event: Event) -> None:
        """Something happened to a job, known to this process first."""
        cell = self.cells.get(generation)
        if cell is None:
            cell = self.cells[generation] = CachedJob(job_id, generation)
        else:
            self.cells.move_to_end(generation)
        cell.events.append(event)
        if not cell.busy:
            cell.busy = True
            self.queue(cell)

    def answered_elsewhere(self, answer: AnswerNotice) -> None:
        """A worker of another process answered, and told this one, which has `HANDOVER` seconds for it."""
        event = HandedEvent(
            "answer",
            answer.activity_id,
            answer.dimension,
            answer.status,
            answer.code,
            answer.data,
            receipt=MessageReceipt(answer.message_id),
            started_at=answer.at,
            attempt=answer.work_attempt,
            # Less than all of the time: a step takes some of it.
            until=time.monotonic() + HANDOVER * 0.8,
        )
        self.deliver(answer.job_id, answer.generation, event)

    def still_ours(self, events: Sequence[Event]) -> list[Event]:
        """The events without those that came to this process alone, and lay here until they are for everybody."""
        now = time.monotonic()
        kept = [event for event in events if not isinstance(event, HandedEvent) or now < event.until]
        if len(kept) < len(events):
            self.stream_wake.set()
        return kept

    def submit(self, item: CachedJob | Pending) -> None:
        self.ready.append(item)
        self.work_to_do.set()

    def queue(self, cell: CachedJob) -> None:
        """A cell with events goes to the next commit; without what they need, it is loaded first."""
        if self.loaded(cell):
            self.submit(cell)
        else:
            self.unloaded.append(cell)
            self.something_to_load.set()

    def loaded(self, cell: CachedJob) -> bool:
        job = cell.job
        if job is None or self._plans.known_for(job) is None:
            return False
        return job.covered is None or all(map(job.covers, cell.events))

    def encode(self, batch: list[Pending]) -> tuple[Batch, str | None]:
        arguments = Batch(self._reply_channel(), self._payload())
        left: list[Work] = []
        for number, pending in enumerate(batch):
            pending.sent = time.monotonic()
            pending.local = [self._workers.hold_slot(work) for work in pending.step.work]
            for work, local in zip(pending.step.work, pending.local, strict=True):
                if not local:
                    left.append(work)
            arguments.add(number, pending.step, local=pending.local, send_delay=self._send_delay)
        wake = self._workers.wake_text(left)
        if self._readonly and any(_for_engines(pending.step) for pending in batch):
            wake = with_events(wake)
        return arguments, wake

    def watched(self, batch: Sequence[Pending]) -> Sequence[str]:
        """The jobs of whose work items somebody wants to hear; none without a sink."""
        return () if self._events is None else touched([pending.step for pending in batch])

    def _send_delay(self, generation: str | None) -> float:
        held = generation is not None and generation in self.cells and not self.slowed
        return HANDOVER if held else 0.0

    def free_slots(self, *batch: Pending) -> None:
        """Give back the slots that were kept in local workers for steps that did not commit."""
        for pending in batch:
            for work, local in zip(pending.step.work, pending.local, strict=False):
                if local:
                    self._workers.free_slot(work)
            pending.local = []

    def unanswered(self, reservations: Iterable[int]) -> None:
        """The connection was lost before it was known whether these commits reserved work for this process."""
        for reservation in reservations:
            self._workers.lost_reservations.add(reservation)

    def keep_slots(self, pending: Pending, held: Collection[WorkKey]) -> None:
        """Of the places kept for a step whose commit was not answered, keep those whose work this process holds."""
        for index, (work, local) in enumerate(zip(pending.step.work, pending.local, strict=True)):
            if local and work.key not in held:
                self._workers.free_slot(work)
                pending.local[index] = False

    def applied(self, pending: Pending, committed: Committed, arguments: Batch) -> None:
        step = pending.step
        self._metrics.applied(step)
        now = committed.committed_at
        own = pending.cell
        counts = self.counts
        if pending.request is not None:
            counts[200] = counts.get(200, 0) + 1
        for event in pending.events:
            counts[event.code] = counts.get(event.code, 0) + 1
        if own is not None:
            self._workers.answers_committed(own.generation, pending.events)
        for change in step.jobs:
            job = change.job
            if change.ended:
                gone = self.cells.pop(job.generation, None)
                if gone is not None:
                    self.bytes -= gone.size
                    gone.size = gone.job_size = 0
                    gone.job = None
                continue
            cell = self.cells.get(job.generation)
            if cell is None:
                if self._readonly or not job.live:
                    continue
                cell = (
                    own
                    if own is not None and own.generation == job.generation
                    else CachedJob(job.job_id, job.generation)
                )
                self.cells[job.generation] = cell
            # A step of another way in may have been told first.
            if cell.job is None or cell.job.seq < job.seq:
                cell.job = job
            size = max(arguments.sizes.get(job.generation, 0), cell.job_size)
            grown = size - cell.job_size + arguments.record_sizes.get(job.generation, 0)
            cell.job_size = size
            cell.size += grown
            self.bytes += grown
        for work, local in zip(step.work, pending.local, strict=True):
            if local:
                self._workers.start(work, now, pending.sent)
            else:
                self._workers.overflow(work, now)
        for message in step.messages:
            self._handed_over(message)
        for timer in step.timers:
            self.stream_wake.set_in(timer.delay)
        for notice in step.notices:
            self._notify(notice, committed.listeners)
        if committed.escalations and self._events is not None:
            for change in step.jobs:
                self._events.escalations(committed.escalations.get(change.job.job_id, ()))
        if self._telemetry is not None and step.spans:
            self._telemetry.record(step)
        if pending.done is not None:
            pending.done(step.jobs[0].job)
        if own is not None:
            own.failures = own.blocked = 0
            self.step_done(own)
        self._evict()

    def _handed_over(self, message: Message) -> None:
        """A message for a job that is in memory here is an event at once; others are found on the stream."""
        generation = message.generation
        if generation is None or self.slowed or generation not in self.cells:
            self.stream_wake.set()
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
        self.deliver(message.job_id, generation, event)

    def step_done(self, cell: CachedJob) -> None:
        """A step of the cell is through: on with the events that came meanwhile."""
        if self.cells.get(cell.generation) is not cell:
            # The job has ended; what came late means nothing any more, and its rows went with it.
            self.drop_events(cell)
        job = cell.job
        if job is not None and sum(map(len, job.records.values())) > RECORD_LIMIT:
            cell.job = None
            if self.cells.get(cell.generation) is cell:
                self.bytes -= cell.size
                cell.size = cell.job_size = 0
        if cell.events:
            self.queue(cell)
            return
        cell.busy = False
        if cell.job is None:
            self.forget(cell)

    def drop_events(self, cell: CachedJob) -> None:
        """The events of a cell mean nothing any more, or come again from their rows."""
        self._workers.answers_committed(cell.generation, cell.events)
        cell.events = []

    def forget(self, cell: CachedJob) -> None:
        if self.cells.get(cell.generation) is cell:
            del self.cells[cell.generation]
            self.bytes -= cell.size
            cell.size = cell.job_size = 0

    def _evict(self) -> None:
        """Forget the jobs that have been idle longest; each costs one load when something happens to it."""
        cells, settings = self.cells, self._settings
        if len(cells) <= settings.cache_jobs and self.bytes <= settings.cache_bytes:
            return
        for generation in list(cells):
            if len(cells) <= settings.cache_jobs * 9 // 10 and self.bytes <= settings.cache_bytes * 9 // 10:
                return
            cell = cells[generation]
            if not cell.busy:
                self.bytes -= cell.size
                del cells[generation]

    def adopt(self, pending: Pending) -> None:
        """Keep a job that came by the stream in memory if it has work here."""
        job = pending.step.jobs[0].job
        if job.generation not in self.cells and not any(pending.local):
            return
        if job.live:
            self.cells.setdefault(job.generation, CachedJob(job.job_id, job.generation))


def _for_engines(step: Step) -> bool:
    """Whether a step leaves something that an engine has to handle; one that handles nothing has to tell the others."""
    return bool(step.messages or step.signals or step.timers or step.broadcasts)
