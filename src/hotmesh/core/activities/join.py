"""join: a target of several transitions that runs once per pass.

`any`: the first branch that arrives runs it, later ones end there. `all`: it runs when every incoming branch has
arrived or cannot arrive any more: no open activity of the job leads to it. The first arrival keeps its obligation
open on behalf of the join (a `joining` record names who has come); the others release theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hotmesh.core.job import Dimension, Record

if TYPE_CHECKING:
    from hotmesh.core.advance import Run
    from hotmesh.core.compile import ActivityPlan, GraphPlan
    from hotmesh.core.draft import Draft


def arrive(run: Run, draft: Draft, activity: ActivityPlan, parent: Dimension, source: str) -> bool:
    """A branch arrives; True: the activity runs now, on this branch's obligation."""
    thread = parent[: _depth(draft.graph, activity)]
    passes = draft.records.get(activity.id, {})
    here = {address: record for address, record in passes.items() if address[: len(thread)] == thread}
    if activity.spec.join == "any":
        if here:
            _merge(run, draft, activity)
            return False
        return True
    joining = next((address for address, record in here.items() if record.state == "joining"), None)
    if joining is None:
        joining = (*parent, draft.next_pass(activity.id, parent))
        draft.put(activity.id, joining, Record("joining", type=activity.type, started_at=run.now, seen=(source,)))
    else:
        record = here[joining]
        if source not in record.seen:
            draft.put(activity.id, joining, msgspec.structs.replace(record, seen=(*record.seen, source)))
        draft.obligation(activity.id, -1)
        draft.status -= 1
    arrived = draft.records[activity.id][joining].seen
    if set(activity.incoming) <= set(arrived):
        _run(run, draft, activity, joining)
    else:
        check(run, draft)
    return False


def check(run: Run, draft: Draft) -> None:
    """Run the joins that no open branch can reach any more."""
    waiting = [
        (activity, address)
        for activity in draft.graph.activities.values()
        if activity.spec.join == "all"
        for address, record in draft.records.get(activity.id, {}).items()
        if record.state == "joining"
    ]
    if not waiting or draft.open is None:
        return
    held: dict[str, int] = {}
    for activity, _ in waiting:
        held[activity.id] = held.get(activity.id, 0) + 1
    active = {name for name, count in draft.open.items() if count > held.get(name, 0)}
    stuck = {activity.id for activity, _ in waiting}
    for activity, address in waiting:
        # The join itself among them: a branch has closed in this step and is just about to arrive.
        blocked = any(name == activity.id or _leads_to(draft.graph, name, activity.id) for name in active)
        behind = any(
            other != activity.id and _leads_to(draft.graph, other, activity.id) for other in stuck
        )
        # Joins that wait for each other can only do so around a cycle; the first one then breaks it.
        if not blocked and (not behind or (not active and activity is waiting[0][0])):
            _run(run, draft, activity, address)
            return


def _run(run: Run, draft: Draft, activity: ActivityPlan, address: Dimension) -> None:
    record = draft.records[activity.id][address]
    draft.put(activity.id, address, msgspec.structs.replace(record, state="open"))
    run.begin(draft, activity, address)


def _merge(run: Run, draft: Draft, activity: ActivityPlan) -> None:
    draft.obligation(activity.id, -1)
    draft.status -= 1
    run.settled(draft)


def _leads_to(graph: GraphPlan, source: str, target: str) -> bool:
    return source != target and target in graph.activities[source].downstream


def _depth(graph: GraphPlan, activity: ActivityPlan) -> int:
    """Address parts that all incoming branches of one pass share: as many as the shallowest source has."""
    depths = {graph.trigger.id: 1}
    level = [graph.trigger.id]
    while level:
        following = []
        for name in level:
            for edge in graph.activities[name].edges:
                if edge.to not in depths:
                    depths[edge.to] = depths[name] + 1
                    following.append(edge.to)
        level = following
    return min(depths.get(source, 1) for source in activity.incoming)
