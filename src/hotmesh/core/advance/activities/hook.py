"""hook: waits for a signal, a timer or whichever comes first; with neither, maps its data and moves on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hotmesh.core.advance.activities.escalation import escalation
from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.expressions import computed_seconds, maps, scalar, self_view
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.outcomes import conclude, passed, waiting
from hotmesh.core.column import check_size, column_text, size_of
from hotmesh.core.lengths import LONGEST_ID
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import Dimension
from hotmesh.core.state.step import Timer, Wait
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

LONGEST_KEY = 1_024
"""Characters of a signal key; it is part of an index."""


def enter(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Register what the hook waits for, or pass through."""
    context = draft.context(activity, dimension, {"output": {}}, builder.environment)
    delay = _delay(activity, context)
    most = builder.limits.max_payload
    output = maps(activity, "output_maps", context, most) if "output_maps" in activity.maps else UNDEFINED
    if activity.hook is None and delay is None:
        conclude(builder, draft, activity, dimension, passed(builder, activity, output))
        return
    record = waiting(builder, activity, output)
    view = self_view(activity, dimension, record, builder.now)
    context = draft.context(activity, dimension, view, builder.environment)
    before = draft.data, draft.search
    try:
        if activity.job_maps is not None:
            draft.write(activity.job_maps.evaluate(context), most, activity.id)
            if activity.uses_job:
                context = draft.context(activity, dimension, view, builder.environment)
        if activity.hook is not None:
            _listen(builder, draft, activity, dimension, context)
    except MappingError:
        draft.data, draft.search = before
        raise
    draft.put(activity.id, dimension, record)
    if delay is not None:
        builder.timers.append(Timer(draft.job_id, draft.generation, activity.id, dimension, delay))


def _listen(
    builder: StepBuilder,
    draft: JobDraft,
    activity: ActivityPlan,
    dimension: Dimension,
    context: Mapping[Any, Any],
) -> None:
    hook = activity.hook
    if hook is None:
        return
    key = signal_key(hook.expected.evaluate(context), f"the expected value of hook {activity.id}")
    item = None if activity.escalation is None else escalation(draft, activity, dimension, context, key)
    if item is not None:
        check_size(size_of(item.fields), builder.limits.max_payload, f"the escalation of hook {activity.id}")
    builder.waits.append(Wait(draft.job_id, draft.generation, activity.id, dimension, hook.topic, key))
    if item is not None:
        if builder.trace is not None:
            item.fields.setdefault("span_id", builder.trace.waiting(draft, activity, dimension))
        builder.escalations.append(item)


def signal_key(value: Any, what: str) -> str:
    """The text under which a signal and its waiter meet; raises MappingError when there is none."""
    if value is None or value is UNDEFINED:
        raise MappingError(f"{what} resolved to nothing, so no signal could ever be matched to it")
    return column_text(value, what, LONGEST_KEY, most=LONGEST_ID)


def signal_view(data: Any, activity_id: str) -> Mapping[Any, Any]:
    """What the `actual` side of a hook rule may read: the payload alone."""
    view = {"hook": {"data": data}}
    return {"$self": view, "$hook": {"data": data}, activity_id: view}


def _delay(activity: ActivityPlan, context: Mapping[Any, Any]) -> float | None:
    """Seconds to sleep, or None: nothing, 0 and less make no hook sleep. Raises MappingError for no duration."""
    if "sleep" not in activity.expressions:
        return None
    found = computed_seconds(scalar(activity, "sleep", context), f"sleep of the activity {activity.id}")
    return found if found is not None and found > 0 else None
