"""join: several transitions lead to one activity, which runs once per pass.

`any`: the first branch that arrives runs it, the others end there. `all`: it runs when every branch has arrived or
cannot arrive any more. The first arrival keeps its obligation open on behalf of all; the others release theirs.
"""

from __future__ import annotations

from hotmesh.core.advance.builder import Begin, StepBuilder
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import Dimension


def arrive(draft: JobDraft, activity: ActivityPlan, parent: Dimension, branch: str) -> bool:
    """A branch arrives; True: the activity runs now, on this branch's obligation.

    Where it does not, an obligation may have been released: complete what is complete.
    """
    join_state, plan = draft.join_state, activity.join
    if join_state is None or plan is None:
        return True
    join_state.arrived(activity.id, parent)
    if plan.every:
        keeps = join_state.join(activity, plan, branch, parent)
    elif join_state.first(activity, plan, branch, parent):
        join_state.running(activity, parent)
        return True
    else:
        keeps = False
    if not keeps:
        draft.status -= 1
    return False


def check(builder: StepBuilder, draft: JobDraft) -> None:
    """Something has closed or arrived: run the joins that need not wait any longer, after what is on its way."""
    join_state = draft.join_state
    if join_state is None:
        return
    # Again and again: with one group of a pass gone, the next may have nothing left to wait for, and nothing else may
    # happen to the job any more that would make anybody look.
    while complete := list(join_state.complete(draft.graph.joins)):
        for activity, parent in complete:
            join_state.running(activity, parent)
            builder.todo.append(Begin(draft, activity, parent))
