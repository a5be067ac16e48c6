"""What few rows and few steps have, as JSON objects: columns in `extra`, and the parts of `commit_extras.sql`."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from hotmesh.core.codec import Payload
from hotmesh.core.state.step import JobChange, Work
from hotmesh.core.wire import dumps_text
from hotmesh.postgres.arrays import array

_CONCEALED: Final = {"ends": ("payload",), "cancels": ("error",), "broadcasts": ("query", "data")}
"""Members of the extras that are user values."""


def plain(kind: str, item: Struct, payload: Payload) -> dict[str, Any]:
    """A work item, a measure or a broadcast of a step, with what is the user's concealed."""
    found = asdict(item)
    if "dimension" in found:
        found["dimension"] = array(found["dimension"])
    for name in _CONCEALED.get(kind, ()):
        found[name] = payload.conceal(found[name])
    if "envelope" in found.get("fields", ()):
        envelope = payload.conceal(found["fields"]["envelope"])
        found["fields"] = {**found["fields"], "envelope": envelope}
    return found


def job_extra(change: JobChange) -> str | None:
    """The columns that few jobs have, as one JSON object."""
    job = change.job
    payload = job.input if isinstance(job.input, dict) else {}
    found: dict[str, Any] = {
        "job_key": job.key,
        "entity": job.entity,
        "open": job.open,
        "reply_to": job.reply_to,
        "trace_id": job.trace_id,
        "span_id": job.span_id,
        "search": change.search,
        "origin_id": _text(payload.get("originJobId")),
        "parent_id": _text(payload.get("parentWorkflowId")),
    }
    if job.queue is not None:
        found |= {"queue": job.queue, "settings": job.settings or None, "held": change.held}
    if job.parent is not None:
        found["parent_job_id"] = job.parent.job_id
        found["parent_generation"] = job.parent.generation
        found["parent_activity"] = job.parent.activity_id
        found["parent_dimension"] = array(job.parent.dimension)
        found["severed"] = job.parent.severed
    given = {name: value for name, value in found.items() if value is not None}
    return dumps_text(given) if given else None


def work_extra(work: Work) -> str | None:
    """The columns that little work has, as one JSON object."""
    if work.retry is None and work.retry_policy is None and work.trace_id is None:
        return None
    return dumps_text(
        {
            "retry": work.retry,
            "retry_policy": work.retry_policy,
            "trace_id": work.trace_id,
            "span_id": work.span_id,
        }
    )


def search(number: int, change: JobChange) -> dict[str, Any]:
    """Search fields that are set for a job that was there before."""
    job = change.job
    return {"step": number, "job_id": job.job_id, "generation": job.generation, "search": change.search}


def start(number: int, change: JobChange, payload: Payload) -> dict[str, Any]:
    """What is settled when a job that was there before is started."""
    job = change.job
    given = job.input if isinstance(job.input, dict) else {}
    return {
        "step": number,
        # From SQL it may have come in clear.
        "input": None if payload.codec is None else payload.conceal(job.input),
        "job_id": job.job_id,
        "generation": job.generation,
        "version": job.version,
        "job_key": job.key,
        "entity": job.entity,
        "origin_id": _text(given.get("originJobId")),
        "parent_id": _text(given.get("parentWorkflowId")),
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and "\0" not in value else None
