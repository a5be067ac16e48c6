"""interrupt: stops its own job, or another one and goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hotmesh.core.column import column_text
from hotmesh.core.mapping import to_number, to_text
from hotmesh.core.state.job import ActivityRecord, Dimension
from hotmesh.core.state.step import Message
from hotmesh.core.values import UNDEFINED

if TYPE_CHECKING:
    from hotmesh.core.advance.advance import Run
    from hotmesh.core.advance.job_draft import JobDraft
    from hotmesh.core.plan.compile import ActivityPlan


def enter(run: Run, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Without a target (or with its own id) the job ends here; a target is sent an interrupt in the same commit."""
    context = draft.context(activity, dimension, {"output": {}}, run.environment)
    options = _options(run, activity, context)
    target = run.value(activity, "target", context)
    own = target in (None, UNDEFINED, "") or to_text(target) == draft.job_id
    output = UNDEFINED
    if not own and "output_maps" in activity.maps:
        output = run.maps(activity, "output_maps", context)
    record = ActivityRecord(
        "closed", output, code=200, type="interrupt", started_at=run.now, ended_at=run.now
    )
    if not own:
        job_id = column_text(target, f"the target of interrupt {activity.id}")
        message_id = f"interrupt:{draft.generation}:{activity.id}:{'.'.join(map(str, dimension))}"
        run.messages.append(Message("interrupt", job_id, message_id, data=options))
        run.conclude(draft, activity, dimension, record)
        return
    if activity.job_maps is not None:
        draft.write(activity.job_maps.evaluate(context))
    draft.put(activity.id, dimension, record)
    # Its own branch closes first, so that the status tells how many others were open.
    draft.status -= 1
    run.interrupt(draft, options)


def _options(run: Run, activity: ActivityPlan, context: dict[Any, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in ("reason", "stack"):
        value = run.value(activity, name, context)
        if value not in (None, UNDEFINED):
            options[name] = to_text(value)
    for name in ("throw", "descend"):
        value = run.value(activity, name, context)
        if isinstance(value, bool):
            options[name] = value
    code = run.value(activity, "code", context)
    if code not in (None, UNDEFINED):
        number = to_number(code)
        if number == number and abs(number) < 1_000_000:
            options["code"] = int(number)
    return options
