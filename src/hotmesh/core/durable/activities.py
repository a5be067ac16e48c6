"""Activities on queues, as rows: the work that a call becomes, the timers that limit it, and what these come to.

    {"args": […], "workflow": "order", "queue": "orders", "options": {"start_to_close": 30.0, "retry": {…}, …}}

is the data of the work; `options` has what is given only. Its address is that of the operation, its activity id the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hotmesh.core.durable.commands import Activity
from hotmesh.core.durable.failure import CANCELLED, simple_failure
from hotmesh.core.durable.retry import DEFAULT_RETRY
from hotmesh.core.durable.retry import RetryPolicy as DurablePolicy
from hotmesh.core.durable.state import MAIN, TO_CLOSE, TO_START
from hotmesh.core.state.job import Event, Job
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.state.step import Timer, Work
from hotmesh.durable_errors import TIMEOUT_CODE

NO_END: Final = 2**31 - 1
"""Attempts of a policy without end, as its row has them."""

GONE: Final = -1
"""The attempt of a timer whose work is not there any more."""

_LIMITS: Final = {TO_START: "schedule_to_start", TO_CLOSE: "schedule_to_close"}


def activity_topic(queue: str) -> str:
    """The topic of the activities of a queue."""
    return f"{queue}-activity"


def work_of(job: Job, command: Activity) -> Work:
    """The row of a call."""
    queue = command.queue or job.queue or ""
    data: dict[str, Any] = {"args": command.input, "workflow": job.topic}
    if queue != job.queue:
        data["queue"] = job.queue
    if command.options:
        data["options"] = command.options
    policy = command.options.get("retry")
    return Work(
        job.job_id,
        job.generation,
        command.name,
        (MAIN, command.position),
        activity_topic(queue),
        data,
        command.name,
        retry_policy=None if policy is None else _as_columns(policy),
        trace_id=job.trace_id,
        span_id=job.span_id,
    )


def _as_columns(policy: Mapping[str, Any]) -> RetryPolicy:
    """As workers of graphs have it, to be asked for in SQL; the data has all of it."""
    return RetryPolicy(
        policy["maximum_attempts"] or NO_END,
        policy["backoff_coefficient"],
        policy["maximum_interval"],
        policy["initial_interval"],
    )


def policy_of(options: Mapping[str, Any]) -> DurablePolicy:
    """When the activity of a row is tried again."""
    stored = options.get("retry")
    return DEFAULT_RETRY if stored is None else DurablePolicy.from_json(stored)


def timers_of(job: Job, command: Activity) -> list[Timer]:
    """What limits a call from its start on, whoever runs it or does not."""
    where = (MAIN, command.position)
    return [
        Timer(job.job_id, job.generation, command.name, (*where, mark), command.options[option])
        for mark, option in _LIMITS.items()
        if option in command.options
    ]


def asked_to_end(name: str) -> dict[str, Any]:
    """The error of an activity that has ended because its workflow asked it to. `asked`: so the workflow knows it."""
    error = simple_failure(f"activity {name} was cancelled", type=CANCELLED)
    return error | {"ended": "cancelled", "asked": True}


def overdue(event: Event) -> dict[str, Any] | None:
    """What a limit of a call comes to that is over, as its error; None: it has come too late to say anything."""
    mark = event.dimension[2]
    if event.attempt == GONE or (mark == TO_START and event.attempt > 0):
        return None
    option = _LIMITS[mark]
    what = "had not been taken by a worker" if mark == TO_START else "had not ended"
    error = simple_failure(
        f"activity {event.activity_id} {what} when its {option}_timeout was over",
        type="DurableTimeoutError",
        code=TIMEOUT_CODE,
    )
    return error | {"timeout": option, "ended": "timeout"}
