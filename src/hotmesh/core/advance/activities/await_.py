"""await: starts another graph and, unless `await: false`, waits for its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotmesh.core.state.job import ActivityRecord, timestamp
from hotmesh.enums import Code
from hotmesh.errors import DuplicateJobError, MappingError, TopicNotFoundError

if TYPE_CHECKING:
    from hotmesh.core.advance.advance import Run
    from hotmesh.core.advance.job_draft import JobDraft
    from hotmesh.core.plan.compile import ActivityPlan
    from hotmesh.core.state.job import Dimension


def enter(run: Run, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Create the child in this very step; while it only computes, it also ends in it."""
    context = draft.context(activity, dimension, {"output": {}}, run.environment)
    topic = run.value(activity, "topic", context)
    if not isinstance(topic, str) or not topic:
        message = f"the topic of await {activity.id} resolved to {topic!r}; it must be a non-empty text"
        raise MappingError(message, expression=activity.spec.topic)
    data = run.maps(activity, "input_maps", context)
    severed = run.value(activity, "wait", context) is False
    if activity.records_entry:
        draft.put(activity.id, dimension, ActivityRecord("open", type="await", started_at=run.now))
    try:
        child = run.start_child(draft, activity, dimension, topic, data, severed=severed)
    except TopicNotFoundError as error:
        run.fail(draft, activity, dimension, {"message": str(error), "code": Code.UNKNOWN.value})
        return
    except DuplicateJobError as error:
        run.fail(draft, activity, dimension, {"message": str(error), "code": Code.DUPLICATE.value})
        return
    if severed:
        created = timestamp(child.created_at)
        output = {"job_id": child.job_id, "jc": created, "ju": created}
        record = ActivityRecord(
            "closed", output, code=200, type="await", started_at=run.now, ended_at=run.now
        )
        run.conclude(draft, activity, dimension, record)
