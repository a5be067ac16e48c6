"""How a job ends: nothing is open any more, an error that nothing handles, an interrupt; and how long it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from hotmesh.core.advance import joins
from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.expressions import computed_seconds
from hotmesh.core.advance.job_draft import JobDraft, View
from hotmesh.core.advance.limits import Limits
from hotmesh.core.advance.telling import tell
from hotmesh.core.duration import LONGEST_TIME
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import ActivityPlan, Plan
from hotmesh.core.state.job import INTERRUPTED, Dimension, Job
from hotmesh.core.state.step import Step
from hotmesh.enums import Code
from hotmesh.errors import MappingError

ERROR_IN_DATA: Final = Code.UNCAUGHT.value
"""The code of an error that is written to the data of its job (where the graph maps `$error`)."""


UNREADABLE_KEPT: Final = 86_400.0
"""Seconds for which a job is kept whose `expire` comes to something that is no duration."""


def complete_if_done(builder: StepBuilder, draft: JobDraft, threshold: int) -> None:
    """Complete the job if it has come down to nothing, or exactly to the threshold."""
    if draft.ended:
        return
    if draft.status not in (0, threshold):
        joins.check(builder, draft)
        return
    if draft.status > 0:
        draft.dropped = True
        draft.status = 0
    draft.ended = True
    draft.expire = expiry(builder, draft, None)
    tell(builder, draft, interim=False)


def leave_out(
    builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, dimension: Dimension, threshold: int
) -> None:
    """Not run: at the threshold the open branches are given up, below it the branch just ends."""
    if draft.status < threshold:
        draft.close(activity.id, dimension)
        threshold = 0
    complete_if_done(builder, draft, threshold)


def uncaught(builder: StepBuilder, draft: JobDraft, error: Mapping[str, Any]) -> None:
    """No transition handles the error: it becomes the job's, and whoever waits is told once."""
    if draft.error is not None:
        return
    draft.error = {**error, "is_stream_error": True}
    promotes = draft.graph.promotes
    if "done" in promotes:
        draft.data = {**draft.data, "done": True}
    if "$error" in promotes:
        told = {name: error[name] for name in ("message", "stack") if name in error}
        draft.data = {**draft.data, "$error": {**told, "code": ERROR_IN_DATA}}
    tell(builder, draft, interim=False)
    draft.told = True


def interrupt(builder: StepBuilder, draft: JobDraft, options: Mapping[str, Any]) -> None:
    """Stop the job: nothing of it goes on, and whoever waits is told (`throw: false`: without an error)."""
    draft.status += INTERRUPTED
    draft.dropped = True
    if options.get("throw") is not False:
        reason = options.get("reason")
        draft.error = {
            "message": reason if reason is not None else f"job [{draft.job_id}] interrupted",
            "code": options.get("code") or 410,
            "stack": options.get("stack") or "",
            "job_id": draft.job_id,
        }
    draft.ended = True
    draft.descend = options.get("descend") is True
    draft.expire = expiry(builder, draft, None)
    if options.get("expire") is not None:
        draft.expire = min(float(options["expire"]), LONGEST_TIME)
    tell(builder, draft, interim=False)


def bury(
    plan: Plan | None, job: Job, reason: str, now: datetime, environment: Environment, limits: Limits
) -> Step:
    """The step that ends a job which no engine could go on with: whoever waits is told, and it expires as any other.

    Needs nothing that might have been in the way: no records, and no `plan` where the version is gone. Of a job that has
    ended, or was never started, only what is still to come is dropped.
    """
    builder = StepBuilder(plan or Plan(job.app_id, job.version, {}, {}, {}), now, environment, (), limits)
    draft = builder.load(job)
    draft.dropped = True
    if draft.over or draft.status <= 0:
        return builder.step()
    draft.status += INTERRUPTED
    draft.ended = True
    draft.error = {"message": reason, "code": Code.LOST.value, "is_stream_error": True}
    compiled = draft.graph.expire
    # An expression might be the very thing that cannot be worked out.
    if compiled is None or compiled.constant:
        draft.expire = expiry(builder, draft, None)
    elif draft.expire is None:
        draft.expire = limits.expire
    tell(builder, draft, interim=False)
    return builder.step()


def expiry(builder: StepBuilder, draft: JobDraft, context: Mapping[Any, Any] | None) -> float | None:
    """Seconds to keep the job once it has ended; 0 or less: until it is pruned.

    With a `context`, while the job begins, raises MappingError for what is no duration. At the end nothing may undo
    the job's result: a job is then kept for a day, so that what is wrong can be seen, and nothing is lost by it.
    """
    compiled = draft.graph.expire
    if compiled is None:
        return builder.limits.expire
    ends = context is None
    if context is None:
        context = {} if compiled.constant else _last_context(builder, draft)
    try:
        value = compiled.evaluate(context)
    except MappingError:
        # The graph's expiry must not undo the job's result; it is as if it did not resolve.
        return builder.limits.expire
    try:
        found = computed_seconds(value, f"expire of the graph {draft.graph.topic}")
    except MappingError:
        if not ends:
            raise
        return UNREADABLE_KEPT
    return builder.limits.expire if found is None else found


def _last_context(builder: StepBuilder, draft: JobDraft) -> Mapping[Any, Any]:
    """What the graph's own expressions see: of an activity that ran more than once, the latest pass."""
    view: View = {"output": {"data": draft.input}}
    return draft.context(draft.graph.trigger, (), view, builder.environment)
