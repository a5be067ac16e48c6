"""cycle: re-enters an ancestor in a new pass and hands its own obligation on to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotmesh.core.state.job import ActivityRecord, Dimension

if TYPE_CHECKING:
    from hotmesh.core.advance.advance import Run
    from hotmesh.core.advance.job_draft import JobDraft
    from hotmesh.core.plan.compile import ActivityPlan


def enter(run: Run, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Give the ancestor a new pass whose output is this activity's mapped input, and conclude that pass."""
    ancestor = activity.ancestor
    if ancestor is None:
        raise AssertionError(f"cycle {activity.id} was compiled without its ancestor")
    context = draft.context(activity, dimension, {"output": {}}, run.environment)
    data = run.maps(activity, "input_maps", context)
    depth = _depth(draft, activity, ancestor, dimension)
    parent = dimension[: depth - 1]
    # The trigger's first pass is not on record.
    index = max(draft.next_pass(ancestor.id, parent), dimension[depth - 1] + 1)
    if index > run.limits.max_cycles:
        message = (
            f"Cycle limit exceeded for job {draft.job_id} ({ancestor.id}: {run.limits.max_cycles} passes)"
        )
        run.fail(draft, activity, dimension, {"message": message, "code": 500})
        return
    closed = ActivityRecord("closed", code=200, type="cycle", started_at=run.now, ended_at=run.now)
    draft.put(activity.id, dimension, closed)
    if draft.join_state is not None:
        draft.join_state.closed(activity.id, dimension)
        draft.join_state.running(ancestor, parent)
    again = ActivityRecord("closed", data, code=200, type=ancestor.type, started_at=run.now, ended_at=run.now)
    run.conclude(draft, ancestor, (*parent, index), again)
    if run.trace is not None:
        run.trace.cycled(draft, activity, dimension, ancestor, (*parent, index))


def _depth(draft: JobDraft, activity: ActivityPlan, ancestor: ActivityPlan, dimension: Dimension) -> int:
    """How many parts of the address lead to the ancestor; where that depends on the way, its record tells."""
    if activity.ancestor_depth is not None:
        return activity.ancestor_depth
    for length in range(len(dimension) - 1, 0, -1):
        if draft.record(ancestor.id, dimension[:length]) is not None:
            return length
    return 1
