"""What jobs and activities say of themselves, under the published short names (`jid`, `gid`, `aid`, …)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from hotmesh.core.plan.compile import ActivityPlan, GraphPlan
from hotmesh.core.state.job import ActivityRecord, Dimension, Parent, dimension_text, timestamp
from hotmesh.core.time_slice import time_slice
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps_text


class DescribedJob(Protocol):
    """What is told of a job: a `Job` as it was committed, or the draft of one."""

    @property
    def app_id(self) -> str: ...
    @property
    def job_id(self) -> str: ...
    @property
    def generation(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def key(self) -> str | None: ...
    @property
    def error(self) -> Json: ...
    @property
    def reply_to(self) -> str | None: ...
    @property
    def trace_id(self) -> str | None: ...
    @property
    def span_id(self) -> str | None: ...
    @property
    def parent(self) -> Parent | None: ...
    @property
    def expire(self) -> float | None: ...


def job_metadata(job: DescribedJob, graph: GraphPlan, updated_at: datetime) -> dict[str, Any]:
    """A job's metadata."""
    found: dict[str, Any] = {
        "jid": job.job_id,
        "gid": job.generation,
        "tpc": graph.topic,
        "app": job.app_id,
        "vrs": job.version,
        "aid": graph.trigger.id,
        "jc": timestamp(job.created_at),
        "ju": timestamp(updated_at),
        "ts": time_slice(job.created_at, graph.statistics.granularity),
        "js": job.status,
    }
    if job.key is not None:
        found["key"] = job.key
    if job.error is not None:
        found["err"] = dumps_text(job.error)
    if job.reply_to is not None:
        found["ngn"] = job.reply_to
    if job.trace_id is not None:
        found["trc"] = job.trace_id
    if job.span_id is not None:
        found["spn"] = job.span_id
    if job.parent is not None:
        found["pj"] = job.parent.job_id
        found["pg"] = job.parent.generation
        found["pd"] = dimension_text(job.parent.dimension)
        found["pa"] = job.parent.activity_id
        if job.parent.severed:
            found["px"] = True
    if job.expire is not None:
        found["expire"] = job.expire
    return found


def trigger_metadata(graph: GraphPlan, created_at: datetime) -> dict[str, Any]:
    """The metadata of a job's trigger, which leaves no record of its own in the first pass."""
    created = timestamp(created_at)
    return {"aid": graph.trigger.id, "atp": "trigger", "dad": ",0", "ac": created, "au": created}


def record_metadata(
    record: ActivityRecord, activity: ActivityPlan | None, address: Dimension, now: datetime
) -> dict[str, Any]:
    """An activity's metadata. `activity`: None where the version has it no more."""
    metadata: dict[str, Any] = {"dad": dimension_text(address), "au": timestamp(record.ended_at or now)}
    if activity is not None:
        metadata["aid"] = activity.id
        metadata["atp"] = activity.type
        if activity.spec.subtype is not None:
            metadata["stp"] = activity.spec.subtype
        elif isinstance(activity.spec.topic, str):
            metadata["stp"] = activity.spec.topic
    if record.started_at is not None:
        metadata["ac"] = timestamp(record.started_at)
    if record.error is not None:
        metadata["err"] = dumps_text(record.error)
        metadata["$error"] = {**record.error, "is_stream_error": True}
    return metadata
