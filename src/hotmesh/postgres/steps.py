"""Writes steps: one call of `commit_steps` for any number of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import astuple

from hotmesh.core.codec import CLEAR, Payload
from hotmesh.core.state.job import Dimension, MessageReceipt, TimerReceipt, WorkReceipt
from hotmesh.core.state.step import (
    ActivityInstance,
    Consumed,
    JobChange,
    Message,
    Notice,
    RecordChange,
    Signal,
    Step,
    Timer,
    Wait,
    Work,
)
from hotmesh.core.values import UNDEFINED
from hotmesh.core.wire import dumps_text
from hotmesh.postgres import extras
from hotmesh.postgres.arrays import array, text_array
from hotmesh.postgres.escalations import EscalationRow
from hotmesh.postgres.sections import (
    SECTIONS,
    After,
    Before,
    ChangedJob,
    ConsumedMessage,
    CreatedJob,
    DroppedJob,
    InstanceRow,
    QueuedWork,
    Record,
    RegisteredWait,
    SentMessage,
    SentSignal,
    SetTimer,
)

INVENTED_ID: Final = 23
"""Length of a job id that nobody chose: `H` and 22 characters."""

RECORD_BYTES: Final = 500
"""What a record without data takes in memory, roughly."""

NOBODY: Final[Mapping[str, Collection[str]]] = {}


class Committed(Struct, frozen=True):
    """What became of a batch. `refused` maps the number of a step to (reason, taken id)."""

    refused: dict[int, tuple[str, str]]
    epoch: int | None
    woken: bool
    listeners: Mapping[str, Collection[str]]
    """Topic (or topic and job id: `topic.id`) → the members elsewhere that want what is announced there."""
    committed_at: datetime | None
    held: frozenset[int] = frozenset()
    """Of the rows that were to be reserved (`Batch.reserve`), the positions of those that now are."""
    escalations: dict[str, list[EscalationRow]] = {}
    """Work items that were written, by job, if the caller asked for them."""


class Batch:
    """The arguments of one call. `local` says whether a step's work is reserved for this process at once.

    `reply_channel`: where the engine of this process hears of answers by others. `payload`: how values are encoded.
    """

    def __init__(self, reply_channel: str | None = None, payload: Payload = CLEAR) -> None:
        self._reply_channel = reply_channel
        self._payload = payload
        self._rows: dict[type[Struct], list[Any]] = {row: [] for row in SECTIONS.values()}
        self._extras: dict[str, list[dict[str, Any]]] = {}
        self._published: set[str] = set()
        self.sizes: dict[str, int] = {}
        """Bytes of input and data of each job, by generation."""
        self.record_sizes: dict[str, int] = {}
        """Bytes of the records of each job, likewise, with what the objects take in memory."""

    def add(
        self, number: int, step: Step, *, local: Sequence[bool], send_delay: Callable[[str | None], float]
    ) -> None:
        """Put a step into the batch. `send_delay` answers, by generation, how long others must leave a message."""
        self._add_jobs(number, step.jobs)
        if step.records:
            self._add_records(number, step.records)
        if step.work:
            self._add_work(number, step.work, local)
        if step.consumed:
            self._add_consumed(number, step.consumed)
        if step.messages:
            self._add_messages(number, step.messages, send_delay)
        if step.timers:
            self._add_timers(number, step.timers)
        if step.waits:
            self._add_waits(number, step.waits)
        if step.released:
            self._add_released(number, step.released)
        if step.signals:
            self._add_signals(number, step.signals)
        if step.escalations or step.escalation_ends or step.measures or step.broadcasts:
            self._add_extras(number, step)
        if step.notices:
            self._add_published(step.notices)

    def reserve(self, generation: str, activity_id: str, dimension: Dimension) -> None:
        """Also reserve a row of the worker stream, if nobody has."""
        self._rows[InstanceRow].append(InstanceRow(-1, "reserve", generation, activity_id, array(dimension)))

    def arguments(
        self,
        app_id: str,
        member: str,
        epoch: int,
        token: int,
        lease: float,
        wake: str | None,
    ) -> list[Any]:
        """The arguments of `COMMIT`, in order."""
        found: list[Any] = [*astuple(Before(app_id, member, epoch, token, lease))]
        for section, rows in self._rows.items():
            if rows:
                # A column that nobody uses goes as null, not as an array of nulls: the driver looks at each element.
                count = len(rows)
                found += [
                    None if column[0] is None and column.count(None) == count else column
                    for column in zip(*map(astuple, rows), strict=True)
                ]
            else:
                found += (None,) * len(section.__struct_fields__)
        few = dumps_text(self._extras) if self._extras else None
        found += astuple(After(few, wake, list(self._published) or None, self._reply_channel))
        return found

    def _add_jobs(self, number: int, changes: Sequence[JobChange]) -> None:
        for change in changes:
            job = change.job
            if change.created:
                self._rows[CreatedJob].append(self._created(number, change))
            else:
                self._rows[ChangedJob].append(self._changed(number, change))
                if change.search is not None:
                    self._extra("searches", extras.search(number, change))
            if change.started:
                self._extra("starts", extras.start(number, change, self._payload))
            if change.dropped:
                self._rows[DroppedJob].append(DroppedJob(number, job.generation, change.descend, job.job_id))

    def _created(self, number: int, change: JobChange) -> CreatedJob:
        job = change.job
        payload = self._payload.dumps(job.input)
        data = self._payload.dumps(job.data) if job.data else None
        self.sizes[job.generation] = len(payload) + len(data or "")
        return CreatedJob(
            step=number,
            job_id=job.job_id,
            generation=job.generation,
            version=job.version,
            topic=job.topic,
            status=job.status,
            input=payload,
            data=data,
            error=None if job.error is None else self._payload.dumps(job.error),
            ended=change.ended,
            expire=job.expire,
            created=job.created_at,
            extra=extras.job_extra(change),
            named=None if len(job.job_id) == INVENTED_ID and job.job_id[0] == "H" else True,
        )

    def _changed(self, number: int, change: JobChange) -> ChangedJob:
        job = change.job
        data = self._payload.dumps(job.data) if change.data_changed else None
        self.sizes[job.generation] = len(data or "")
        return ChangedJob(
            step=number,
            job_id=job.job_id,
            generation=job.generation,
            seq=change.expected_seq,
            status=job.status,
            data=data,
            error=None if job.error is None else self._payload.dumps(job.error),
            open=None if job.open is None else dumps_text(job.open),
            ended=change.ended,
            expire=job.expire,
        )

    def _add_records(self, number: int, changes: Sequence[RecordChange]) -> None:
        rows = self._rows[Record]
        dumps = self._payload.dumps
        sizes = self.record_sizes
        for change in changes:
            record = change.record
            output = None if record.output is UNDEFINED else dumps(record.output)
            hook = None if record.hook is UNDEFINED else dumps(record.hook)
            size = RECORD_BYTES + len(output or "") + len(hook or "")
            sizes[change.generation] = sizes.get(change.generation, 0) + size
            rows.append(
                Record(
                    step=number,
                    generation=change.generation,
                    activity=change.activity_id,
                    dimension=array(change.dimension),
                    type=record.type,
                    state=record.state,
                    code=record.code,
                    output=output,
                    hook=hook,
                    error=None if record.error is None else dumps(record.error),
                    seen=text_array(record.seen) if record.seen else None,
                    started=record.started_at,
                    ended=record.ended_at,
                    attempt=record.attempt,
                )
            )

    def _add_work(self, number: int, works: Sequence[Work], local: Sequence[bool]) -> None:
        rows = self._rows[QueuedWork]
        for index, work in enumerate(works):
            rows.append(
                QueuedWork(
                    step=number,
                    job_id=work.job_id,
                    generation=work.generation,
                    activity=work.activity_id,
                    dimension=array(work.dimension),
                    topic=work.topic,
                    data=self._payload.dumps(work.data),
                    name=work.workflow_name,
                    local=local[index],
                    extra=extras.work_extra(work),
                )
            )

    def _add_consumed(self, number: int, consumed: Sequence[Consumed]) -> None:
        for item in consumed:
            generation = item.generation
            match item.receipt:
                case WorkReceipt(activity_id, dimension):
                    row = InstanceRow(number, "answered", generation, activity_id, array(dimension))
                    self._rows[InstanceRow].append(row)
                case MessageReceipt(message_id):
                    self._rows[ConsumedMessage].append(ConsumedMessage(number, generation, message_id))
                case TimerReceipt(activity_id, dimension):
                    row = InstanceRow(number, "timer", generation, activity_id, array(dimension))
                    self._rows[InstanceRow].append(row)

    def _add_messages(
        self, number: int, messages: Sequence[Message], send_delay: Callable[[str | None], float]
    ) -> None:
        self._rows[SentMessage] += [
            SentMessage(
                step=number,
                job_id=message.job_id,
                generation=message.generation,
                message=message.message_id,
                kind=message.kind,
                activity=message.activity_id,
                dimension=array(message.dimension),
                status=message.status,
                code=message.code,
                data=self._payload.dumps(message.data),
                delay=send_delay(message.generation),
            )
            for message in messages
        ]

    def _add_timers(self, number: int, timers: Sequence[Timer]) -> None:
        self._rows[SetTimer] += [
            SetTimer(
                step=number,
                job_id=timer.job_id,
                generation=timer.generation,
                activity=timer.activity_id,
                dimension=array(timer.dimension),
                delay=timer.delay,
            )
            for timer in timers
        ]

    def _add_waits(self, number: int, waits: Sequence[Wait]) -> None:
        self._rows[RegisteredWait] += [
            RegisteredWait(
                step=number,
                job_id=wait.job_id,
                generation=wait.generation,
                activity=wait.activity_id,
                dimension=array(wait.dimension),
                topic=wait.topic,
                key=wait.key,
            )
            for wait in waits
        ]

    def _add_released(self, number: int, released: Sequence[ActivityInstance]) -> None:
        self._rows[InstanceRow] += [
            InstanceRow(number, "release", item.generation, item.activity_id, array(item.dimension))
            for item in released
        ]

    def _add_signals(self, number: int, signals: Sequence[Signal]) -> None:
        self._rows[SentSignal] += [
            SentSignal(
                step=number,
                topic=signal.topic,
                key=signal.key,
                data=self._payload.dumps(signal.data),
                status=signal.status,
                code=signal.code,
                keep=signal.keep,
            )
            for signal in signals
        ]

    def _add_published(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            if notice.topic is not None:
                self._published.add(notice.topic)
                self._published.add(f"{notice.topic}.{notice.job_id}")

    def _add_extras(self, number: int, step: Step) -> None:
        """What few steps have goes as JSON: an array of objects by kind."""
        kinds: dict[str, Sequence[Struct]] = {
            "escalations": step.escalations,
            "ends": step.escalation_ends,
            "measures": step.measures,
            "broadcasts": step.broadcasts,
        }
        for kind, items in kinds.items():
            for item in items:
                self._extra(kind, {"step": number, **extras.plain(kind, item, self._payload)})

    def _extra(self, kind: str, item: dict[str, Any]) -> None:
        self._extras.setdefault(kind, []).append(item)
