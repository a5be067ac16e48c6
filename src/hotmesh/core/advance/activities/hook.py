"""hook: waits for a signal, a timer or whichever comes first; with neither, maps its data and moves on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hotmesh.core.advance.activities.escalation import escalation
from hotmesh.core.column import column_text
from hotmesh.core.duration import LONGEST_TIME
from hotmesh.core.mapping import to_number
from hotmesh.core.state.job import ActivityRecord
from hotmesh.core.state.step import Timer, Wait
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotmesh.core.advance.advance import Run
    from hotmesh.core.advance.job_draft import JobDraft
    from hotmesh.core.plan.compile import ActivityPlan
    from hotmesh.core.state.job import Dimension

LONGEST_KEY = 1_024
"""Characters of a signal key; it is part of an index."""


def enter(run: Run, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Register what the hook waits for, or pass through."""
    context = draft.context(activity, dimension, {"output": {}}, run.environment)
    delay = _delay(run.value(activity, "sleep", context))
    output = run.maps(activity, "output_maps", context) if "output_maps" in activity.maps else UNDEFINED
    if activity.hook is None and delay is None:
        record = ActivityRecord("closed", output, code=200, type="hook", started_at=run.now, ended_at=run.now)
        run.conclude(draft, activity, dimension, record)
        return
    record = ActivityRecord("open", output, type="hook", started_at=run.now)
    view = run.self_view(activity, dimension, record)
    context = draft.context(activity, dimension, view, run.environment)
    before = draft.data, draft.search
    try:
        if activity.job_maps is not None:
            draft.write(activity.job_maps.evaluate(context))
            if activity.uses_job:
                context = draft.context(activity, dimension, view, run.environment)
        if activity.hook is not None:
            _listen(run, draft, activity, dimension, context)
    except MappingError:
        draft.data, draft.search = before
        raise
    draft.put(activity.id, dimension, record)
    if delay is not None:
        run.timers.append(Timer(draft.job_id, draft.generation, activity.id, dimension, delay))


def _listen(
    run: Run, draft: JobDraft, activity: ActivityPlan, dimension: Dimension, context: Mapping[Any, Any]
) -> None:
    hook = activity.hook
    if hook is None:
        return
    key = signal_key(hook.expected.evaluate(context), f"the expected value of hook {activity.id}")
    item = None if activity.escalation is None else escalation(draft, activity, dimension, context, key)
    run.waits.append(Wait(draft.job_id, draft.generation, activity.id, dimension, hook.topic, key))
    if item is not None:
        if run.trace is not None:
            item.fields.setdefault("span_id", run.trace.waiting(draft, activity, dimension))
        run.escalations.append(item)


def signal_key(value: Any, what: str) -> str:
    """The text under which a signal and its waiter meet; raises MappingError when there is none."""
    if value is None or value is UNDEFINED:
        raise MappingError(f"{what} resolved to nothing, so no signal could ever be matched to it")
    return column_text(value, what, LONGEST_KEY)


def signal_view(data: Any, activity_id: str) -> Mapping[Any, Any]:
    """What the `actual` side of a hook rule may read: the payload alone."""
    view = {"hook": {"data": data}}
    return {"$self": view, "$hook": {"data": data}, activity_id: view}


def _delay(value: Any) -> float | None:
    """Seconds to sleep, or None: only a number above 0, also as text, makes a hook sleep."""
    if value is UNDEFINED or value is None or isinstance(value, bool) or value == "":
        return None
    number = to_number(value)
    return min(float(number), LONGEST_TIME) if 0 < number < float("inf") else None
