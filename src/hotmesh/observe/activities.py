"""What the activities of a job have left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hotmesh.core.state.job import Dimension
from hotmesh.observe.jobs import error
from hotmesh.observe.observer import Observer
from hotmesh.postgres.rows import value


@dataclass(frozen=True, slots=True)
class ActivitySummary:
    """What one pass of an activity left; `ended_at` is None while it is open."""

    activity_id: str
    dimension: Dimension
    type: str
    state: str
    code: int | None
    started_at: datetime | None
    ended_at: datetime | None
    output: Any
    hook: Any
    error: Any
    failures: int = 0
    """Attempts that failed: before the answer, or so far."""


async def list_activities(observer: Observer, generation: str) -> list[ActivitySummary]:
    """What the activities of a job have left, in the order in which they began."""
    payload = observer.payload
    return [
        ActivitySummary(
            row["activity_id"],
            tuple(row["dimension"]),
            row["type"],
            row["state"],
            row["code"],
            row["started_at"],
            row["ended_at"],
            value(row["output"], payload),
            value(row["hook"], payload),
            error(row["error"], payload),
            row["attempt"] or 0,
        )
        for row in await observer.rows("job_activities", generation)
    ]
