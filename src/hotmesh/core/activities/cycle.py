"""cycle: re-enters an ancestor in a new pass and hands its own obligation on to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotmesh.core.job import Dimension, Record

if TYPE_CHECKING:
    from hotmesh.core.advance import Run
    from hotmesh.core.compile import ActivityPlan
    from hotmesh.core.draft import Draft


def enter(run: Run, draft: Draft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Give the ancestor a new pass whose output is this activity's mapped input, and conclude that pass."""
    ancestor = activity.ancestor
    if ancestor is None:
        raise AssertionError(f"cycle {activity.id} was compiled without its ancestor")
    context = draft.context(activity, dimension, {"output": {}}, run.environment)
    data = run.maps(activity, "input_maps", context)
    found = draft.nearest(ancestor.id, dimension)
    address: Dimension = (0,) if found is None else found[0]
    parent = address[:-1]
    # The trigger's first pass, and that of an activity whose record is elsewhere, is not on record: it counts as 0.
    index = max(draft.next_pass(ancestor.id, parent), 1)
    if index > run.limits.max_cycles:
        message = f"Cycle limit exceeded for job {draft.job_id} ({ancestor.id}: {run.limits.max_cycles} passes)"
        run.fail(draft, activity, dimension, {"message": message, "code": 500})
        return
    closed = Record("closed", code=200, type="cycle", started_at=run.now, ended_at=run.now)
    draft.put(activity.id, dimension, closed)
    draft.obligation(activity.id, -1)
    draft.obligation(ancestor.id, 1)
    again = Record("closed", data, code=200, type=ancestor.type, started_at=run.now, ended_at=run.now)
    run.conclude(draft, ancestor, (*parent, index), again, code=200, pending=False)
