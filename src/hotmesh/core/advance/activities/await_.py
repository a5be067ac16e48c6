"""await: starts another graph and, unless `await: false`, waits for its result."""

from __future__ import annotations

from hotmesh.core.advance.beginnings import start_child
from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.expressions import maps, scalar
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.outcomes import conclude, fail, passed, waiting
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import Dimension, timestamp
from hotmesh.enums import Code
from hotmesh.errors import DuplicateJobError, MappingError, TopicNotFoundError


def enter(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Create the child in this very step; while it only computes, it also ends in it."""
    context = draft.context(activity, dimension, {"output": {}}, builder.environment)
    topic = scalar(activity, "topic", context)
    if not isinstance(topic, str) or not topic:
        message = f"the topic of await {activity.id} resolved to {topic!r}; it must be a non-empty text"
        raise MappingError(message, expression=activity.spec.topic)
    data = maps(activity, "input_maps", context, builder.limits.max_payload)
    severed = scalar(activity, "wait", context) is False
    if activity.records_entry:
        draft.put(activity.id, dimension, waiting(builder, activity))
    try:
        child = start_child(builder, draft, activity, dimension, topic, data, severed=severed)
    except TopicNotFoundError as error:
        fail(builder, draft, activity, dimension, {"message": error.message, "code": Code.UNKNOWN.value})
        return
    except DuplicateJobError as error:
        fail(builder, draft, activity, dimension, {"message": error.message, "code": Code.DUPLICATE.value})
        return
    if severed:
        created = timestamp(child.created_at)
        output = {"job_id": child.job_id, "jc": created, "ju": created}
        conclude(builder, draft, activity, dimension, passed(builder, activity, output))
