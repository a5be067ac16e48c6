"""cycle: re-enters an ancestor in a new pass and hands its own obligation on to it."""

from __future__ import annotations

from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.expressions import maps
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.outcomes import conclude, fail, passed
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import Dimension


def enter(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Give the ancestor a new pass whose output is this activity's mapped input, and conclude that pass."""
    ancestor = activity.ancestor
    if ancestor is None:
        raise AssertionError(f"cycle {activity.id} was compiled without its ancestor")
    context = draft.context(activity, dimension, {"output": {}}, builder.environment)
    data = maps(activity, "input_maps", context, builder.limits.max_payload)
    depth = _depth(draft, activity, ancestor, dimension)
    parent = dimension[: depth - 1]
    # The trigger's first pass is not on record.
    index = max(draft.next_pass(ancestor.id, parent), dimension[depth - 1] + 1)
    if index > builder.limits.max_cycles:
        message = (
            f"Cycle limit exceeded for job {draft.job_id} ({ancestor.id}: {builder.limits.max_cycles} passes)"
        )
        fail(builder, draft, activity, dimension, {"message": message, "code": 500})
        return
    draft.put(activity.id, dimension, passed(builder, activity))
    if draft.join_state is not None:
        draft.join_state.closed(activity.id, dimension)
        draft.join_state.running(ancestor, parent)
    conclude(builder, draft, ancestor, (*parent, index), passed(builder, ancestor, data))
    if builder.trace is not None:
        builder.trace.cycled(draft, activity, dimension, ancestor, (*parent, index))


def _depth(draft: JobDraft, activity: ActivityPlan, ancestor: ActivityPlan, dimension: Dimension) -> int:
    """How many parts of the address lead to the ancestor; where that depends on the way, its record tells."""
    if activity.ancestor_depth is not None:
        return activity.ancestor_depth
    for length in range(len(dimension) - 1, 0, -1):
        if draft.record(ancestor.id, dimension[:length]) is not None:
            return length
    return 1
