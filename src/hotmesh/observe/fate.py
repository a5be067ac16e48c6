"""What has become of a job that somebody asks for, and that is not there or takes no more: in words, with times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hotmesh.errors import DatabaseError, JobCompletedError, JobNotFoundError
from hotmesh.observe.observer import Observer


async def not_found(observer: Observer, app_id: str, job_id: str) -> JobNotFoundError:
    """The error that says that an app has no such job, or that it has ended and expired."""
    row = await _row(observer, app_id, job_id)
    if row is None or not row["expired"]:
        return JobNotFoundError(job_id, where=f"app {app_id}")
    if row["ended_at"] is None:
        fate = f"it was never resumed, and has expired at {_moment(row['expires_at'])}"
        return JobNotFoundError(job_id, fate=fate)
    kept = (row["expires_at"] - row["ended_at"]).total_seconds()
    fate = (
        f"it ended at {_moment(row['ended_at'])} ({row['state']}) and has expired (kept {kept:g} s: see `expire` of "
        "its graph)"
    )
    return JobNotFoundError(job_id, fate=fate, ended_at=row["ended_at"])


async def completed(observer: Observer, app_id: str, job_id: str) -> JobCompletedError:
    """The error that says when and how a job has ended."""
    row = await _row(observer, app_id, job_id)
    if row is None or row["ended_at"] is None:
        return JobCompletedError(job_id)
    how = {"interrupted": "it was interrupted", "failed": "it ended with an error"}.get(
        row["state"], "it ended"
    )
    return JobCompletedError(job_id, fate=f"{how} at {_moment(row['ended_at'])}")


async def _row(observer: Observer, app_id: str, job_id: str) -> Any:
    try:
        return await observer.row("job_fate", app_id, job_id)
    except DatabaseError:
        # As of a worker login, which may read nothing. What is asked for is not there all the same.
        return None


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
