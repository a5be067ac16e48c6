"""The words and codes of hotmesh, for programs that compare with them. A member equals its plain value:

output.metadata.js == JobStatus.COMPLETE
Response({"reason": "card declined"}, code=402).status == MessageStatus.SUCCESS
error.code == Code.TIMEOUT
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final


class Code(IntEnum):
    """Outcomes that hotmesh gives by itself. A worker may answer with any other integer; ranges mean nothing."""

    SUCCESS = 200
    PENDING = 202
    """More answers will come."""
    NOT_FOUND = 404
    """There is no such job, signal, dead letter or login."""
    DUPLICATE = 409
    """A live job has the id."""
    INTERRUPTED = 410
    """The job was interrupted, or has already ended."""
    UNKNOWN = 500
    """An error that says no more; an exception without a code."""
    TIMEOUT = 504
    """`pubsub` got no answer in time, or a callback did not return within the timeout of its worker."""
    UNCAUGHT = 597
    """What `$error` is mapped with where no transition takes an error."""
    LOST = 598
    """A message was given up, or its lease has expired."""


class MessageStatus(StrEnum):
    """What an answer or a signal is."""

    SUCCESS = "success"
    PENDING = "pending"
    ERROR = "error"


STATUS_CODES: Final = {
    MessageStatus.SUCCESS.value: Code.SUCCESS.value,
    MessageStatus.PENDING.value: Code.PENDING.value,
    MessageStatus.ERROR.value: Code.UNKNOWN.value,
}
"""The code of an answer that names only its status."""


class JobStatus(IntEnum):
    """Landmarks of the status of a job; above 0 it is the number of open obligations."""

    COMPLETE = 0
    PENDING = -1
    """Created, and waits for `resume`."""
    INTERRUPTED = -1_000_000_000
    """Added to the status when the job is interrupted: far below 0, whatever was open."""


class JobState(StrEnum):
    """The status of a job in words, as the commands and `explain` say it."""

    RUNNING = "running"
    PENDING = "pending"
    COMPLETE = "complete"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class ActivityType(StrEnum):
    """The types of activities."""

    TRIGGER = "trigger"
    WORKER = "worker"
    AWAIT = "await"
    HOOK = "hook"
    SIGNAL = "signal"
    CYCLE = "cycle"
    INTERRUPT = "interrupt"


class SignalSubtype(StrEnum):
    """Whom a signal activity tells: one job by its key, or all that an index lists."""

    ONE = "one"
    ALL = "all"


class Gate(StrEnum):
    """How the conditions of a transition go together."""

    AND = "and"
    OR = "or"


class Measure(StrEnum):
    """What the statistics of a graph count."""

    COUNT = "count"
    SUM = "sum"
    AVG = "avg"
    MDN = "mdn"
    MIN = "min"
    MAX = "max"
    INDEX = "index"


class Granularity(StrEnum):
    """How long a time slice of statistics is."""

    FIVE_MINUTES = "5m"
    TEN_MINUTES = "10m"
    FIFTEEN_MINUTES = "15m"
    HALF_AN_HOUR = "30m"
    AN_HOUR = "1h"
    INFINITY = "infinity"


class ThrottleScope(StrEnum):
    """Whom a rate is for."""

    ALL = "all"
    ENGINES = "engines"
    WORKERS = "workers"


class DuressLevel(StrEnum):
    """How an engine fares."""

    HEALTHY = "healthy"
    MILD = "mild"
    MODERATE = "moderate"
    SEVERE = "severe"


class EscalationStatus(StrEnum):
    """What has become of a work item; whether somebody has claimed it is told by `assigned_to` and `assigned_until`."""

    PENDING = "pending"
    RESOLVED = "resolved"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


PAUSED: Final = -1
"""The rate of a paused consumer."""
