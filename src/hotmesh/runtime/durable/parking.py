"""Why a workflow does not go on for now."""

from __future__ import annotations

import logging
from typing import Final

from hotmesh.core.durable.state import Parked, State
from hotmesh.core.state.job import Job

logger = logging.getLogger("hotmesh.durable")

BLOCKED: Final = (
    "a turn of it did not come to an end: something in the workflow blocks, as time.sleep() or a long computation does; "
    "let a step do that"
)


def parked(
    job: Job,
    reason: str,
    message: str,
    position: int | None = None,
    expected: str | None = None,
    actual: str | None = None,
) -> Parked:
    """Why a job does not go on, after what it was parked for before."""
    before = State.of(job.open).parked
    attempts = 1 if before is None or before.reason != reason else before.attempts + 1
    found = Parked(reason, message, attempts, position, expected, actual)
    logger.error(
        "workflow %s %s is parked, and tried again in %s s: %s",
        job.topic,
        job.job_id,
        f"{found.delay:g}",
        message,
        extra={"event": "workflow-parked", "job_id": job.job_id, "reason": reason},
    )
    return found
