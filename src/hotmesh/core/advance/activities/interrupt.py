"""interrupt: stops its own job, or another one and goes on."""

from __future__ import annotations

from typing import Any

from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.endings import interrupt
from hotmesh.core.advance.expressions import maps, scalar
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.outcomes import conclude, passed
from hotmesh.core.column import check_size, column_text, size_of
from hotmesh.core.mapping import to_number, to_text
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import Dimension
from hotmesh.core.state.step import Message
from hotmesh.core.values import UNDEFINED


def enter(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Without a target (or with its own id) the job ends here; a target is sent an interrupt in the same commit."""
    context = draft.context(activity, dimension, {"output": {}}, builder.environment)
    most = builder.limits.max_payload
    options = _options(activity, context)
    check_size(size_of(options), most, f"what interrupt {activity.id} says")
    target = scalar(activity, "target", context)
    own = target in (None, UNDEFINED, "") or to_text(target) == draft.job_id
    if not own:
        output = maps(activity, "output_maps", context, most) if "output_maps" in activity.maps else UNDEFINED
        job_id = column_text(target, f"the target of interrupt {activity.id}", most=None)
        message_id = f"interrupt:{draft.generation}:{activity.id}:{'.'.join(map(str, dimension))}"
        builder.messages.append(Message("interrupt", job_id, message_id, data=options))
        conclude(builder, draft, activity, dimension, passed(builder, activity, output))
        return
    if activity.job_maps is not None:
        draft.write(activity.job_maps.evaluate(context), most, activity.id)
    draft.put(activity.id, dimension, passed(builder, activity))
    # Its own branch closes first, so that the status tells how many others were open.
    draft.status -= 1
    interrupt(builder, draft, options)


def _options(activity: ActivityPlan, context: dict[Any, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in ("reason", "stack"):
        value = scalar(activity, name, context)
        if value not in (None, UNDEFINED):
            options[name] = to_text(value)
    for name in ("throw", "descend"):
        value = scalar(activity, name, context)
        if isinstance(value, bool):
            options[name] = value
    code = scalar(activity, "code", context)
    if code not in (None, UNDEFINED):
        number = to_number(code)
        if number == number and abs(number) < 1_000_000:
            options["code"] = int(number)
    return options
