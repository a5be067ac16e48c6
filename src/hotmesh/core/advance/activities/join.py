"""join: several transitions lead to one activity, which runs once per pass.

`any`: the first branch that arrives runs it, the others end there. `all`: it runs when every branch has arrived or
cannot arrive any more. The first arrival keeps its obligation open on behalf of all; the others release theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotmesh.core.advance.advance import Run
    from hotmesh.core.advance.job_draft import Draft
    from hotmesh.core.plan.compile import ActivityPlan
    from hotmesh.core.state.job import Dimension


def arrive(run: Run, draft: Draft, activity: ActivityPlan, parent: Dimension, branch: str) -> bool:
    """A branch arrives; True: the activity runs now, on this branch's obligation."""
    gathering, plan = draft.gathering, activity.join
    if gathering is None or plan is None:
        return True
    gathering.arrived(activity.id, parent)
    if plan.every:
        keeps = gathering.join(activity, plan, branch, parent)
    elif gathering.first(activity, plan, branch, parent):
        gathering.running(activity, parent)
        return True
    else:
        keeps = False
    if not keeps:
        draft.status -= 1
    run.settled(draft)
    return False


def check(run: Run, draft: Draft) -> None:
    """Something has closed or arrived: run the joins that need not wait any longer."""
    gathering = draft.gathering
    if gathering is None:
        return
    # Again and again: with one group of a pass gone, the next may have nothing left to wait for, and nothing else may
    # happen to the job any more that would make anybody look.
    while complete := list(gathering.complete(draft.graph.joins)):
        for activity, parent in complete:
            gathering.running(activity, parent)
            run.join(draft, activity, parent)
