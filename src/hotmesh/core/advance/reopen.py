"""Whether an activity that was answered with an error can be opened again, and what becomes of its job then.

It can if no transition took the error: then nothing has followed from it but the error of the job, and opening it
again undoes just that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from hotmesh.core.advance.expressions import fired_edges, self_view
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import ActivityPlan, Plan
from hotmesh.core.state.job import ActivityRecord, Dimension, Job
from hotmesh.core.values import Json
from hotmesh.errors import MappingError


class Reopening(Struct, frozen=True):
    """What a job keeps when one of its failed activities is opened again."""

    error: Json
    """The error that another branch has failed with, or None."""
    open: Mapping[str, Any] | None
    """`Job.open` with the activity among what is open; None where that is not kept."""


def reopen(
    plan: Plan, job: Job, activity_id: str, dimension: Dimension, now: datetime, environment: Environment
) -> Reopening | None:
    """What opening the activity again makes of the job; None if it cannot be opened again.

    `job` has all its records. None: the activity has not ended with an error, a transition took the error, the job was
    interrupted, or it ended without an error.
    """
    graph = plan.graphs.get(job.topic)
    if graph is None or job.status < 0 or (job.status == 0 and job.error is None):
        return None
    draft = JobDraft(job, graph, now, created=False)
    failed = list(_uncaught(draft, environment))
    mine = [
        record for activity, address, record in failed if (activity.id, address) == (activity_id, dimension)
    ]
    if not mine:
        return None
    others = [record for _, _, record in failed if record is not mine[0]]
    error = job.error
    if any(error == _as_job_error(record) for _, _, record in failed):
        first = min(others, key=lambda record: record.ended_at or now, default=None)
        error = None if first is None else _as_job_error(first)
    counted = None
    if draft.join_state is not None:
        draft.join_state.running(graph.activities[activity_id], dimension[:-1])
        counted = draft.join_state.stored()
    return Reopening(error, counted)


def _uncaught(
    draft: JobDraft, environment: Environment
) -> Iterator[tuple[ActivityPlan, Dimension, ActivityRecord]]:
    """The passes that ended with an error which no transition took."""
    for activity_id, passes in draft.records.items():
        activity = draft.graph.activities.get(activity_id)
        if activity is None:
            continue
        for address, record in passes.items():
            failed = record.state == "closed" and record.error is not None
            if failed and not _followed(draft, activity, address, record, environment):
                yield activity, address, record


def _followed(
    draft: JobDraft,
    activity: ActivityPlan,
    address: Dimension,
    record: ActivityRecord,
    environment: Environment,
) -> bool:
    view = self_view(activity, address, record, draft.now)
    context = draft.context(activity, address, view, environment)
    try:
        return bool(fired_edges(activity.edges, context, record.code or 200))
    except MappingError:
        # A condition that cannot be decided takes nothing, as when the error came.
        return False


def _as_job_error(record: ActivityRecord) -> Json:
    return {**record.error, "is_stream_error": True}
