"""The state of one job, and what can happen to it.

A job is one versioned row (`Job`), the records its activities left (`ActivityRecord`), and the obligations still open
outside of it: work, messages, timers, waits and children, each of which comes back as one `Event`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from msgspec import Struct

from hotmesh.core.values import UNDEFINED, Json, Undefined
from hotmesh.enums import JobStatus

Dimension = tuple[int, ...]
"""Which pass through each ancestor an activity instance belongs to; the trigger is at `(0,)`."""

PassKey = tuple[str, Dimension]
"""What identifies a pass of a job: its activity, its address (for one that is still to be entered: that of its parent)."""

INTERRUPTED: Final = JobStatus.INTERRUPTED.value
"""Added to the status of an interrupted job, so that it stays far below zero whatever was open."""

PENDING_STATUS: Final = JobStatus.PENDING.value
"""Status of a job that was created in pending mode and waits for `resume`."""

RecordState = Literal["open", "pending", "closed"]


class ActivityRecord(Struct, frozen=True, gc=False):
    """What one pass of an activity left behind.

    `open`: entered, waits for its first answer. `pending`: answered 202, takes further answers; `seen` holds the ids
    of the answers so far. `closed`: takes nothing any more.
    """

    state: RecordState
    output: Json | Undefined = UNDEFINED
    hook: Json | Undefined = UNDEFINED
    error: Json = None
    code: int | None = None
    type: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    seen: tuple[str, ...] = ()
    attempt: int | None = None
    """Tries of the worker that failed before its answer; None: none did."""


class Parent(Struct, frozen=True, gc=False):
    """The await activity that started a job. `severed`: the parent did not wait and is told nothing."""

    job_id: str
    generation: str
    activity_id: str
    dimension: Dimension
    severed: bool = False


class History(Struct, frozen=True, gc=False):
    """What is recorded of a durable function: its outcomes as `core.durable` has them, and what is open by a row."""

    recorded: tuple[Any, ...]
    opened: tuple[Any, ...]


Records = Mapping[str, Mapping[Dimension, ActivityRecord]]
"""Activity id → address → record."""


class Job(Struct, frozen=True, gc=False):
    """A job as last committed (`seq` counts its steps), with the records that have been loaded.

    `covered` names the places at which a step may start from what is loaded; None: any, all of it is here.
    """

    app_id: str
    job_id: str
    generation: str
    version: str
    topic: str
    seq: int
    status: int
    input: Json
    data: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    error: Json = None
    key: str | None = None
    entity: str | None = None
    reply_to: str | None = None
    parent: Parent | None = None
    trace_id: str | None = None
    span_id: str | None = None
    expire: float | None = None
    """Seconds the job is kept after it ends; None or not above 0: until pruned."""
    open: Mapping[str, Any] | None = None
    """Open branches and what has gathered at joins (see `join_state.py`); kept for graphs with joins only."""
    records: Records = {}
    covered: frozenset[PassKey] | None = None
    queue: str | None = None
    """Of a durable function: where it runs; `topic` is its name then. None: a graph."""
    settings: Mapping[str, Any] | None = None
    """Of a durable function: what its start said beyond the columns."""
    held: bool = False
    """What comes next of it exists in the process of `tenure` only."""
    tenure: int | None = None
    recoveries: int = 0
    """How often in a row it was taken from a process that had died."""
    history: History | None = None
    """Of a durable function: its operations, where they have been loaded for a step from this very version."""

    def covers(self, event: Event) -> bool:
        """Whether the records that a step on this event reads are loaded."""
        return (
            self.covered is None
            or not event.activity_id
            or (event.activity_id, event.dimension) in self.covered
        )

    @property
    def complete(self) -> bool:
        return self.status == 0

    @property
    def interrupted(self) -> bool:
        return self.status < INTERRUPTED // 10

    @property
    def live(self) -> bool:
        """Whether the job still accepts steps."""
        return self.status > 0


EventKind = Literal[
    "answer",
    "added",
    "result",
    "signal",
    "timer",
    "enter",
    "interrupt",
    "resume",
    "start",
    "step",
    "wake",
    "cancel",
    "pause",
]


class WorkReceipt(Struct, frozen=True, gc=False):
    """The event answers a worker message that this process holds; the step deletes it.

    `holder`, `reservation`: the member elsewhere that holds it, where that has told its answer, and by which reservation.
    """

    activity_id: str
    dimension: Dimension
    holder: str | None = None
    reservation: int | None = None


class MessageReceipt(Struct, frozen=True, gc=False):
    """The event is a row of the engine stream; the step deletes it."""

    message_id: str


class TimerReceipt(Struct, frozen=True, gc=False):
    """The event is a due timer; the step deletes it."""

    activity_id: str
    dimension: Dimension


Receipt = WorkReceipt | MessageReceipt | TimerReceipt
"""The row an event came from. Deleting it belongs to the step: the event counts once, or not at all."""


class Event(Struct, frozen=True, gc=False):
    """Something that happened to a job.

    `dimension` is the address of the activity that is meant (for `enter`: of its parent). `status` is success,
    pending or error; `data` the answer, the signal's payload, the error object, or the options of an interrupt.
    """

    kind: EventKind
    activity_id: str = ""
    dimension: Dimension = ()
    status: str = "success"
    code: int = 200
    data: Json | Undefined = UNDEFINED
    message_id: str = ""
    receipt: Receipt | None = None
    started_at: datetime | None = None
    """When the activity was entered, if the row knows; set_at for timers."""
    attempt: int = 0
    """Of an answer: tries that failed before it."""


class StartRequest(Struct, frozen=True, gc=False):
    """A job to be created. `generation` and `default_id` come from outside, so that the core invents nothing."""

    topic: str
    data: Json
    generation: str
    default_id: str
    job_id: str | None = None
    reply_to: str | None = None
    parent: Parent | None = None
    trace_id: str | None = None
    span_id: str | None = None
    entity: str | None = None
    search: Json = None
    pending: float | None = None
    queue: str | None = None
    """Of a durable function, whose name is the topic: where it runs."""
    settings: Mapping[str, Any] | None = None
    expire: float | None = None
    """Of a durable function: seconds for which it is kept after its end."""
    delay: float = 0.0
    """Of a durable function: seconds until its first turn."""


def timestamp(moment: datetime) -> str:
    """`YYYYMMDDHHMMSS.mmm` in UTC, the form of `jc`, `ju`, `ac` and `au`."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    # Not strftime: this runs several times per job, and costs a fifth this way.
    return (
        f"{utc.year:04d}{utc.month:02d}{utc.day:02d}{utc.hour:02d}{utc.minute:02d}{utc.second:02d}"
        f".{utc.microsecond // 1000:03d}"
    )


def dimension_text(dimension: Dimension) -> str:
    """`(0, 2, 1)` as `,0,2,1`."""
    return "".join(f",{index}" for index in dimension)


def dimension_of(text: str) -> Dimension:
    """`,0,2,1` as `(0, 2, 1)`; raises ValueError for anything else."""
    return tuple(int(part) for part in text.split(",")[1:])
