"""Writes steps: one call of `commit_steps` for any number of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, overload

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
    Operation,
    RecordChange,
    Signal,
    Step,
    Timer,
    Wait,
    Work,
)
from hotmesh.core.values import UNDEFINED
from hotmesh.core.wire import dumps_rows, dumps_text
from hotmesh.errors import MessageTooLargeError
from hotmesh.postgres import extras
from hotmesh.postgres.arrays import array, text_array
from hotmesh.postgres.escalations import EscalationRow
from hotmesh.postgres.sections import (
    SECTIONS,
    After,
    AnsweredWork,
    Before,
    ChangedJob,
    ConsumedMessage,
    CreatedJob,
    DroppedJob,
    FiredTimer,
    OperationRow,
    QueuedWork,
    Record,
    RegisteredWait,
    ReleasedInstance,
    Row,
    SentMessage,
    SentSignal,
    SetTimer,
    WorkToReserve,
)

INVENTED_ID: Final = 23
"""Length of a job id that nobody chose: `H` and 22 characters."""

RECORD_BYTES: Final = 500
"""What a record without data takes in memory, roughly."""

LARGEST_STATEMENT: Final = 1_000_000_000
"""Bytes of values in one commit: Postgres takes a message of 1 GiB and no larger one, and ends the session."""

NOBODY: Final[Mapping[str, Collection[str]]] = {}


class Committed(Struct, frozen=True, gc=False):
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
        self._rows: defaultdict[type[Row], list[Row]] = defaultdict(list)
        self._beside: defaultdict[type[Row], list[tuple[str | None, ...]]] = defaultdict(list)
        self._named: bool | None = None
        self.size = 0
        """Characters of all values."""
        self._extras: dict[str, list[dict[str, Any]]] = {}
        self._published: set[str] = set()
        self.holder = -1
        """The tenure of this process; none: a commit that names it is refused."""
        self.tenure: int | None = None
        """The same, if a step of the batch holds a job by it."""
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
        if step.operations:
            self._add_operations(number, step.operations)
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
        if (
            step.escalations
            or step.escalation_ends
            or step.measures
            or step.broadcasts
            or step.cancels
            or step.pauses
        ):
            self._add_extras(number, step)
        if step.notices:
            self._add_published(step.notices)

    def reserve(self, generation: str, activity_id: str, dimension: Dimension) -> None:
        """Also reserve a row of the worker stream, if nobody has."""
        self._row(WorkToReserve(-1, generation, activity_id, array(dimension)))

    def arguments(
        self,
        app_id: str,
        member: str,
        epoch: int,
        token: int,
        lease: float,
        wake: str | None,
    ) -> list[Any]:
        """The arguments of `COMMIT`, in order. Raises MessageTooLargeError if no statement can hold them."""
        # A character has at most four bytes.
        if 4 * self.size > LARGEST_STATEMENT and self._bytes() > LARGEST_STATEMENT:
            raise MessageTooLargeError(
                f"a step has {self._bytes():,} bytes of values, more than one commit can hold ({LARGEST_STATEMENT:,})"
            )
        found: list[Any] = [*astuple(Before(app_id, member, epoch, token, lease))]
        for section in SECTIONS.values():
            rows = self._rows.get(section)
            if rows is None:
                found += (None,) * (1 + len(section.beside))
                continue
            found.append(dumps_rows(rows))
            if section.beside:
                # What nobody has goes as null, not as an array of nulls: the driver looks at each element.
                count = len(rows)
                found += [
                    None if column[0] is None and column.count(None) == count else column
                    for column in zip(*self._beside[section], strict=True)
                ]
        few = dumps_text(self._extras) if self._extras else None
        published = list(self._published) or None
        found += astuple(After(self._named, few, wake, published, self._reply_channel, self.tenure))
        return found

    def _bytes(self) -> int:
        return sum(
            len(value.encode())
            for rows in self._beside.values()
            for beside in rows
            for value in beside
            if value is not None
        )

    def _row(self, row: Row, *beside: str | None) -> None:
        """Put a row into its section, and beside it the values that its type names, in that order."""
        section = type(row)
        self._rows[section].append(row)
        if beside:
            self._beside[section].append(beside)
            for value in beside:
                if value is not None:
                    self.size += len(value)

    def _add_jobs(self, number: int, changes: Sequence[JobChange]) -> None:
        for change in changes:
            job = change.job
            if change.held:
                self.tenure = self.holder
            if change.created:
                self._add_created(number, change)
            else:
                self._add_changed(number, change)
                if change.search is not None:
                    self._extra("searches", extras.search(number, change))
            if change.started:
                self._extra("starts", extras.start(number, change, self._payload))
            if change.dropped:
                self._row(DroppedJob(number, job.generation, change.descend, job.job_id))

    def _add_created(self, number: int, change: JobChange) -> None:
        job = change.job
        payload = self._payload.dumps(job.input)
        data = self._payload.dumps(job.data) if job.data else None
        self.sizes[job.generation] = len(payload) + len(data or "")
        if len(job.job_id) != INVENTED_ID or job.job_id[0] != "H":
            self._named = True
        self._row(
            CreatedJob(
                step=number,
                job_id=job.job_id,
                generation=job.generation,
                version=job.version,
                topic=job.topic,
                status=job.status,
                ended=change.ended,
                expire=seconds(job.expire),
                created=job.created_at,
                extra=extras.job_extra(change),
            ),
            payload,
            data,
            None if job.error is None else self._payload.dumps(job.error),
        )

    def _add_changed(self, number: int, change: JobChange) -> None:
        job = change.job
        data = self._payload.dumps(job.data) if change.data_changed else None
        self.sizes[job.generation] = len(data or "")
        self._row(
            ChangedJob(
                step=number,
                job_id=job.job_id,
                generation=job.generation,
                seq=change.expected_seq,
                status=job.status,
                ended=change.ended,
                expire=seconds(job.expire),
                held=change.held,
            ),
            data,
            None if job.error is None else self._payload.dumps(job.error),
            None if job.open is None else dumps_text(job.open),
        )

    def _add_records(self, number: int, changes: Sequence[RecordChange]) -> None:
        dumps = self._payload.dumps
        sizes = self.record_sizes
        for change in changes:
            record = change.record
            output = None if record.output is UNDEFINED else dumps(record.output)
            hook = None if record.hook is UNDEFINED else dumps(record.hook)
            size = RECORD_BYTES + len(output or "") + len(hook or "")
            sizes[change.generation] = sizes.get(change.generation, 0) + size
            self._row(
                Record(
                    step=number,
                    generation=change.generation,
                    activity=change.activity_id,
                    dimension=array(change.dimension),
                    type=record.type,
                    state=record.state,
                    code=record.code,
                    seen=text_array(record.seen) if record.seen else None,
                    started=record.started_at,
                    ended=record.ended_at,
                    attempt=record.attempt,
                ),
                output,
                hook,
                None if record.error is None else dumps(record.error),
            )

    def _add_operations(self, number: int, operations: Sequence[Operation]) -> None:
        dumps = self._payload.dumps
        for item in operations:
            self._row(
                OperationRow(
                    step=number,
                    generation=item.generation,
                    strand=item.strand,
                    position=item.position,
                    seq=item.seq,
                    kind=item.kind,
                    name=item.name,
                    status=item.status,
                    attempt=item.attempt,
                    started=item.started_at,
                    ended=item.ended_at,
                ),
                None if item.result is UNDEFINED else dumps(item.result),
                None if item.error is None else dumps(item.error),
            )

    def _add_work(self, number: int, works: Sequence[Work], local: Sequence[bool]) -> None:
        for index, work in enumerate(works):
            self._row(
                QueuedWork(
                    step=number,
                    job_id=work.job_id,
                    generation=work.generation,
                    activity=work.activity_id,
                    dimension=array(work.dimension),
                    topic=work.topic,
                    name=work.workflow_name,
                    local=local[index],
                    extra=extras.work_extra(work),
                ),
                self._payload.dumps(work.data),
            )

    def _add_consumed(self, number: int, consumed: Sequence[Consumed]) -> None:
        for item in consumed:
            generation = item.generation
            match item.receipt:
                case WorkReceipt(activity_id, dimension, holder, reservation):
                    self._row(
                        AnsweredWork(number, generation, activity_id, array(dimension), holder, reservation)
                    )
                case MessageReceipt(message_id):
                    self._row(ConsumedMessage(number, generation, message_id))
                case TimerReceipt(activity_id, dimension):
                    self._row(FiredTimer(number, generation, activity_id, array(dimension)))

    def _add_messages(
        self, number: int, messages: Sequence[Message], send_delay: Callable[[str | None], float]
    ) -> None:
        for message in messages:
            self._row(
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
                    delay=seconds(send_delay(message.generation)),
                ),
                self._payload.dumps(message.data),
            )

    def _add_timers(self, number: int, timers: Sequence[Timer]) -> None:
        for timer in timers:
            self._row(
                SetTimer(
                    step=number,
                    job_id=timer.job_id,
                    generation=timer.generation,
                    activity=timer.activity_id,
                    dimension=array(timer.dimension),
                    delay=seconds(timer.delay),
                )
            )

    def _add_waits(self, number: int, waits: Sequence[Wait]) -> None:
        for wait in waits:
            self._row(
                RegisteredWait(
                    step=number,
                    job_id=wait.job_id,
                    generation=wait.generation,
                    activity=wait.activity_id,
                    dimension=array(wait.dimension),
                    topic=wait.topic,
                    key=wait.key,
                    alone=wait.alone,
                )
            )

    def _add_released(self, number: int, released: Sequence[ActivityInstance]) -> None:
        for item in released:
            self._row(
                ReleasedInstance(
                    number, item.generation, item.activity_id, array(item.dimension), item.awaited
                )
            )

    def _add_signals(self, number: int, signals: Sequence[Signal]) -> None:
        for signal in signals:
            self._row(
                SentSignal(
                    step=number,
                    topic=signal.topic,
                    key=signal.key,
                    status=signal.status,
                    code=signal.code,
                    keep=seconds(signal.keep),
                ),
                self._payload.dumps(signal.data),
            )

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
            "cancels": step.cancels,
            "pauses": step.pauses,
        }
        for kind, items in kinds.items():
            for item in items:
                self._extra(kind, {"step": number, **extras.plain(kind, item, self._payload)})

    def _extra(self, kind: str, item: dict[str, Any]) -> None:
        self._extras.setdefault(kind, []).append(item)


@overload
def seconds(value: float) -> float | str: ...


@overload
def seconds(value: float | None) -> float | str | None: ...


def seconds(value: float | None) -> float | str | None:
    """A duration for a row. JSON has no infinity: it would be written as null, without a word. As text it is one."""
    return value if value is None or math.isfinite(value) else str(value)
