"""The metadata of a durable function's job, and the notice of its end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hotmesh.core.durable.state import TURN
from hotmesh.core.state.job import Job, timestamp
from hotmesh.core.state.step import Notice
from hotmesh.core.wire import dumps_text


def notice(job: Job, now: datetime) -> Notice:
    """Whoever waits is told of the end."""
    return Notice(job.job_id, job.reply_to, None, metadata(job, now), job.data, seq=job.seq)


def metadata(job: Job, updated_at: datetime) -> dict[str, Any]:
    """A job's metadata, under the published short names."""
    created_at = timestamp(job.created_at)
    found: dict[str, Any] = {
        "jid": job.job_id,
        "gid": job.generation,
        "tpc": job.topic,
        "app": job.app_id,
        "vrs": job.version,
        "aid": TURN,
        "jc": created_at,
        "ju": timestamp(updated_at),
        "ts": created_at[:12],
        "js": job.status,
    }
    if job.error is not None:
        found["err"] = dumps_text(job.error)
    if job.reply_to is not None:
        found["ngn"] = job.reply_to
    if job.expire is not None:
        found["expire"] = job.expire
    return found
