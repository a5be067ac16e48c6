"""hook: waits for a signal, a timer or whichever comes first; with neither, maps its data and moves on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hotmesh.core.activities.escalation import escalation
from hotmesh.core.job import Record
from hotmesh.core.mapping import to_number, to_text
from hotmesh.core.step import Timer, Wait
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotmesh.core.advance import Run
    from hotmesh.core.compile import ActivityPlan
    from hotmesh.core.draft import Draft
    from hotmesh.core.job import Dimension

LONGEST_KEY = 1_024
"""Characters of a signal key; it is part of an index."""


def enter(run: Run, draft: Draft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Register what the hook waits for, or pass through."""
    context = draft.context(activity, dimension, {"output": {}}, run.environment)
    delay = _delay(run.value(activity, "sleep", context))
    output = run.maps(activity, "output_maps", context) if "output_maps" in activity.maps else UNDEFINED
    if activity.hook is None and delay is None:
        record = Record("closed", output, code=200, type="hook", started_at=run.now, ended_at=run.now)
        run.conclude(draft, activity, dimension, record, code=200, pending=False)
        return
    record = Record("open", output, type="hook", started_at=run.now)
    draft.put(activity.id, dimension, record)
    view = run.self_view(activity, dimension, record)
    context = draft.context(activity, dimension, view, run.environment)
    if activity.job_maps is not None:
        draft.write(activity.job_maps.evaluate(context))
        if activity.uses_job:
            context = draft.context(activity, dimension, view, run.environment)
    if activity.hook is not None:
        key = signal_key(activity.hook.expected.evaluate(context), f"the expected value of hook {activity.id}")
        run.waits.append(
            Wait(draft.job_id, draft.generation, activity.id, dimension, activity.hook.topic, key)
        )
        if activity.escalation is not None:
            item = escalation(draft, activity, dimension, context, key)
            if item is not None:
                run.escalations.append(item)
    if delay is not None:
        run.timers.append(Timer(draft.job_id, draft.generation, activity.id, dimension, delay))


def signal_key(value: Any, what: str) -> str:
    """The text under which a signal and its waiter meet; raises MappingError when there is none."""
    if value is None or value is UNDEFINED:
        raise MappingError(f"{what} resolved to nothing, so no signal could ever be matched to it")
    key = to_text(value)
    if len(key) > LONGEST_KEY:
        raise MappingError(f"{what} has {len(key)} characters; a signal key has at most {LONGEST_KEY}")
    return key


def signal_view(data: Any, activity_id: str) -> Mapping[Any, Any]:
    """What the `actual` side of a hook rule may read: the payload alone."""
    view = {"hook": {"data": data}}
    return {"$self": view, "$hook": {"data": data}, activity_id: view}


def _delay(value: Any) -> float | None:
    """Seconds to sleep, or None: only a number above 0, also as text, makes a hook sleep."""
    if value is UNDEFINED or value is None or isinstance(value, bool) or value == "":
        return None
    number = to_number(value)
    return float(number) if number == number and 0 < number < float("inf") else None
