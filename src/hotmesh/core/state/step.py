"""What one step changes. The engine commits all of it in one statement, or none of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from hotmesh.core.state.job import ActivityRecord, Dimension, Job, Receipt
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.state.span import Span
from hotmesh.core.values import UNDEFINED, Json, Undefined


class JobChange(Struct, frozen=True, gc=False):
    """A job row to create (`created`) or to move from `expected_seq` to `job.seq`."""

    job: Job
    created: bool
    expected_seq: int = 0
    ended: bool = False
    """Status reached 0 or the job was interrupted: no further step will come."""
    dropped: bool = False
    """Whatever is still open of the job (work, messages, timers, waits) is deleted with this step."""
    descend: bool = False
    """The jobs that this one awaits are interrupted, too."""
    data_changed: bool = True
    """Whether the shared job data has to be written."""
    search: dict[str, Json] | None = None
    """Search fields and markers to set; those that the job has beside them stay."""
    started: bool = False
    """The job existed without having been started; version, key and entity are decided by this step."""
    held: bool | None = None
    """Of a durable function: whether what comes next of it exists in this process only. None: as it was."""


class RecordChange(Struct, frozen=True, gc=False):
    """A record to write; an existing one of the same address is replaced."""

    generation: str
    activity_id: str
    dimension: Dimension
    record: ActivityRecord


class Operation(Struct, frozen=True, gc=False):
    """What became of an operation of a durable function; written once."""

    generation: str
    strand: int
    position: int
    seq: int
    kind: str
    name: str
    status: Literal["done", "failed", "cancelled", "released"]
    ended_at: datetime
    result: Json | Undefined = UNDEFINED
    error: Json = None
    attempt: int | None = None
    started_at: datetime | None = None


WorkKey = tuple[str, str, Dimension]
"""What identifies a piece of work: the generation of its job, its activity, its address."""


class Work(Struct, frozen=True, gc=False):
    """A message for the workers of a topic."""

    job_id: str
    generation: str
    activity_id: str
    dimension: Dimension
    topic: str
    data: Json
    workflow_name: str
    retry: dict[str, list[Any]] | None = None
    """The `retry` map of the YAML: code → [count, kind]."""
    retry_policy: RetryPolicy | None = None
    trace_id: str | None = None
    span_id: str | None = None

    @property
    def key(self) -> WorkKey:
        return self.generation, self.activity_id, self.dimension


class Message(Struct, frozen=True, gc=False):
    """A message for the engines: a child's result, a continuation, an interrupt."""

    kind: Literal["result", "enter", "interrupt", "signal"]
    job_id: str
    message_id: str
    generation: str | None = None
    """None: whichever generation of the job is live when the message is stored; none is: nothing is stored."""
    activity_id: str = ""
    dimension: Dimension = ()
    status: str = "success"
    code: int = 200
    data: Json = None


class Timer(Struct, frozen=True, gc=False):
    """Wakes a hook `delay` seconds after the commit."""

    job_id: str
    generation: str
    activity_id: str
    dimension: Dimension
    delay: float


class Wait(Struct, frozen=True, gc=False):
    """Registers a hook for signals of `topic` under `key`."""

    job_id: str
    generation: str
    activity_id: str
    dimension: Dimension
    topic: str
    key: str
    alone: bool = False
    """Nobody else may wait under this key: the step is refused then, as for an id that is taken."""


class Signal(Struct, frozen=True, gc=False):
    """A signal sent by a flow; handed to the waiter under (`topic`, `key`), or kept for `keep` seconds."""

    topic: str
    key: str
    data: Json
    status: str = "success"
    code: int = 200
    keep: float | None = 600.0


class Escalation(Struct, frozen=True, gc=False):
    """A work item for a human, written with the wait it belongs to. `fields`: columns of the escalation table."""

    job_id: str
    generation: str
    activity_id: str
    dimension: Dimension
    fields: dict[str, Any]


class EscalationEnd(Struct, frozen=True, gc=False):
    """The wait of a work item is over: a signal came (`resolved`), its timer (`expired`), or nobody waits any more (`cancelled`)."""

    generation: str
    activity_id: str
    dimension: Dimension
    status: Literal["resolved", "expired", "cancelled"]
    payload: Json = None


class CancelRequest(Struct, frozen=True, gc=False):
    """An activity is asked to end. `error`: its answer, if nobody has it."""

    generation: str
    activity_id: str
    dimension: Dimension
    error: dict[str, Any]


class PauseChange(Struct, frozen=True, gc=False):
    """A durable function is paused, or resumed."""

    generation: str
    paused: bool


class Measure(Struct, frozen=True, gc=False):
    """One thing that is counted about a job: `value` of `facet`, under the job's key and time slice."""

    job_id: str
    generation: str
    topic: str
    key: str
    slice: str
    measure: str
    facet: str
    value: str
    number: float | None


class Broadcast(Struct, frozen=True, gc=False):
    """A signal to every job that is listed under a facet; `query` says which, `data` is sent to each."""

    topic: str
    facet: str
    query: dict[str, Any]
    data: Json


class ActivityInstance(Struct, frozen=True, gc=False):
    """An activity instance: whose timer and wait are removed."""

    generation: str
    activity_id: str
    dimension: Dimension
    awaited: bool = False
    """It has to wait still: a signal that was handed over to it meanwhile has come first, and the step is refused."""


class Consumed(Struct, frozen=True, gc=False):
    """A row that the step answers and therefore deletes; if it is gone, the step does not count."""

    generation: str
    receipt: Receipt


class Notice(Struct, frozen=True, gc=False):
    """Tell those who wait for the job or listen to its topic: the state at that moment.

    `interim` is an emission; otherwise the caller has its final answer.
    """

    job_id: str
    reply_to: str | None
    topic: str | None
    metadata: dict[str, Any]
    data: dict[str, Any]
    interim: bool = False
    seq: int = 0
    """The version of the job that has this state."""


class Step(Struct, frozen=True, gc=False):
    """Everything one or more events change. `jobs[0]` is the job they happened to."""

    jobs: tuple[JobChange, ...]
    records: tuple[RecordChange, ...] = ()
    work: tuple[Work, ...] = ()
    messages: tuple[Message, ...] = ()
    timers: tuple[Timer, ...] = ()
    waits: tuple[Wait, ...] = ()
    signals: tuple[Signal, ...] = ()
    broadcasts: tuple[Broadcast, ...] = ()
    escalations: tuple[Escalation, ...] = ()
    escalation_ends: tuple[EscalationEnd, ...] = ()
    measures: tuple[Measure, ...] = ()
    released: tuple[ActivityInstance, ...] = ()
    consumed: tuple[Consumed, ...] = ()
    notices: tuple[Notice, ...] = ()
    spans: tuple[Span, ...] = ()
    """Nothing that is written: what is recorded once the step has committed."""
    operations: tuple[Operation, ...] = ()
    """Of a durable function: those that have an outcome by this step."""
    cancels: tuple[CancelRequest, ...] = ()
    """Activities that are asked to end."""
    pauses: tuple[PauseChange, ...] = ()
    """Whether the activities of the job wait from here on, or do no longer."""
    given_up: tuple[WorkKey, ...] = ()
    """Nothing that is written: activities whose rows go with this step, whoever has them; one without a name: all of the job."""
