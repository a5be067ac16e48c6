"""Rows of the database as the core's data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from hotmesh.core.codec import CLEAR, Payload
from hotmesh.core.durable.activities import GONE
from hotmesh.core.state.job import (
    ActivityRecord,
    Event,
    Job,
    MessageReceipt,
    Parent,
    Receipt,
    TimerReceipt,
    WorkReceipt,
)
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.state.step import WorkKey
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.core.wire import loads
from hotmesh.errors import CodecError


class Row(Protocol):
    """What the driver gives for a row, as far as it is used here."""

    def __getitem__(self, name: str, /) -> Any: ...


class HeldWork(Struct, frozen=True, gc=False):
    """A worker message that this process holds until its lease lapses."""

    job_id: str
    generation: str
    activity_id: str
    dimension: tuple[int, ...]
    topic: str
    data: Json
    workflow_name: str
    attempt: int = 0
    """Failed attempts so far."""
    delivery: int = 1
    """How often it was handed out since the last answer; above 1, a holder died or lost it."""
    retry: Mapping[str, list[Any]] | None = None
    retry_policy: RetryPolicy | None = None
    trace_id: str | None = None
    span_id: str | None = None
    created_at: datetime | None = None
    unreadable: str | None = None
    """Why its data cannot be decoded here."""
    beside: bool | None = None
    """Whether other work ran beside it in the process that had it last; False: it was alone. None: nobody has said."""
    reply_channel: str | None = None
    """Where the engine that sent it hears of its answer; None: it does not, or it was not claimed."""
    reservation: int | None = None
    """By which it is held, if it was claimed."""
    cancelled: bool | None = None
    """Its workflow has asked it to end, and waits for that."""
    heartbeat: Json = None
    """What the heartbeats of the attempts before have said."""
    handed_over: str | None = None
    """A token was to end the attempt, and this limit has ended it instead."""
    paused: bool | None = None
    """Its workflow is paused."""

    @property
    def key(self) -> WorkKey:
        return self.generation, self.activity_id, self.dimension


def work_from(row: Row, payload: Payload = CLEAR) -> HeldWork:
    """A row of worker_stream; if its data cannot be decoded, `unreadable` says why."""
    data: Json = None
    unreadable = None
    try:
        data = None if row["data"] is None else payload.loads(row["data"])
    except CodecError as error:
        unreadable = str(error)
    policy = None if row["retry_policy"] is None else loads(row["retry_policy"])
    return HeldWork(
        row["job_id"],
        str(row["generation"]),
        row["activity_id"],
        tuple(row["dimension"]),
        row["topic"],
        data,
        row["workflow_name"],
        row["attempt"],
        row["delivery"],
        None if row["retry"] is None else loads(row["retry"]),
        None if policy is None else RetryPolicy(**policy),
        row["trace_id"],
        row["span_id"],
        row["created_at"],
        unreadable,
        row["beside"],
        row["reply_channel"],
        row["reservation"],
        row["cancelled"],
        None if row["heartbeat"] is None or unreadable else _said(row["heartbeat"], payload),
        row["handed_over"],
        row["paused"],
    )


def _said(details: str, payload: Payload) -> Json:
    try:
        return payload.loads(details)
    except CodecError:
        return None  # they only help


def job_from(row: Row, payload: Payload = CLEAR) -> Job:
    """A row of job, without records. Raises CodecError."""
    parent = None
    if row["parent_generation"] is not None:
        parent = Parent(
            row["parent_job_id"],
            str(row["parent_generation"]),
            row["parent_activity"],
            tuple(row["parent_dimension"]),
            row["severed"],
        )
    return Job(
        app_id=row["app_id"],
        job_id=row["job_id"],
        generation=str(row["generation"]),
        version=row["version"],
        topic=row["topic"],
        seq=row["seq"],
        status=row["status"],
        input=value(row["input"], payload),
        data=value(row["data"], payload) or {},
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        error=value(row["error"], payload),
        key=row["job_key"],
        entity=row["entity"],
        reply_to=row["reply_to"],
        parent=parent,
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        expire=row["expire"],
        open=_json(row["open"]),
        covered=frozenset(),
        queue=row["queue"],
        settings=_json(row["settings"]),
        held=row["held"],
        tenure=row["tenure"],
        recoveries=row["recoveries"],
    )


def records_from(
    rows: Iterable[Row], payload: Payload = CLEAR
) -> dict[str, dict[str, dict[tuple[int, ...], ActivityRecord]]]:
    """Rows of activity: generation → activity id → address → record. Raises CodecError."""
    found: dict[str, dict[str, dict[tuple[int, ...], ActivityRecord]]] = {}
    for row in rows:
        record = ActivityRecord(
            row["state"],
            UNDEFINED if row["output"] is None else payload.loads(row["output"]),
            UNDEFINED if row["hook"] is None else payload.loads(row["hook"]),
            value(row["error"], payload),
            row["code"],
            row["type"],
            row["started_at"],
            row["ended_at"],
            tuple(row["seen"] or ()),
            row["attempt"],
        )
        activities = found.setdefault(str(row["generation"]), {})
        activities.setdefault(row["activity_id"], {})[tuple(row["dimension"])] = record
    return found


class _DueEvent(Struct):
    kind: str
    message_id: str
    activity_id: str
    dimension: tuple[int, ...]
    status: str
    code: int
    data: Any
    attempt: int
    at: datetime
    work_attempt: int | None = None


class DueEvent(Struct, frozen=True, gc=False):
    """An event from the engine stream or a timer, and how often handling it has failed."""

    event: Event
    attempt: int


def events_from(text: str, payload: Payload = CLEAR) -> list[DueEvent]:
    """The events of a due job, as `lock_due_jobs` returns them. Raises CodecError."""
    found = []
    for due in msgspec.json.decode(text, type=list[_DueEvent]):
        if due.kind == "timer":
            receipt: TimerReceipt | MessageReceipt = TimerReceipt(due.activity_id, due.dimension)
            data: Json = {"timestamp": int(due.at.timestamp() * 1000)}
            if due.work_attempt is None and len(due.dimension) == 3:
                due.work_attempt = GONE
        else:
            receipt = MessageReceipt(due.message_id)
            data = payload.reveal(due.data)
        event = Event(
            due.kind,  # type: ignore[arg-type]  # a constraint of the table
            due.activity_id,
            due.dimension,
            due.status,
            due.code,
            data,
            # Only what may be repeated under its own id has to be recognised again.
            due.message_id if due.kind in ("added", "result") else "",
            receipt,
            due.at,
            due.work_attempt or 0,
        )
        found.append(DueEvent(event, due.attempt))
    return found


class AnswerNotice(Struct, omit_defaults=True):
    """An answer as the engine that has the job in memory is told it: by `answer_work`, which has written it as a message,
    or by a worker that holds the work until the engine's step has taken it.
    """

    job_id: str
    generation: str
    activity_id: str
    dimension: tuple[int, ...]
    status: str
    code: int
    data: Any
    at: datetime | None
    work_attempt: int = 0
    """Tries that failed before the answer."""
    message_id: str = ""
    """The message that it is."""
    holder: str | None = None
    """Who holds the work, if it is no message yet."""
    reservation: int | None = None
    """By which reservation."""

    @property
    def receipt(self) -> Receipt:
        """The row that the step deletes."""
        if self.holder is None:
            return MessageReceipt(self.message_id)
        return WorkReceipt(self.activity_id, self.dimension, self.holder, self.reservation)


def value(text: str | None, payload: Payload) -> Json:
    """What a column with JSON holds, or None. Raises CodecError."""
    return None if text is None else payload.loads(text)


def _json(text: str | None) -> Json:
    return None if text is None else loads(text)


class Next(NamedTuple):
    """When the next is due."""

    seconds: float | None
    """Until then; None: nothing is, for now."""
    reached: datetime
    """Of what could be seen nothing is left that was due before this moment; of the database's clock."""


def next_from(row: Any) -> Next:
    """What a look for the next one found."""
    if row is None:
        raise AssertionError("a select without from answers with one row")
    return Next(None if row["due"] is None else float(row["due"]), row["reached"])
