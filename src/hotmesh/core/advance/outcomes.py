"""The outcome of one pass of an activity: an answer, or what it came to by itself, and what follows from it.

`answer` and `fail` decide by the table in `life.py` what becomes of the pass, and make its record. `conclude` does the
rest: maps, transitions, and the account of what is open.

How the status counts: it is the number of open obligations. A closing activity with k children changes it by k - 1, a
pending answer by k. At 0 the job is complete.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from hotmesh.core.advance.builder import Enter, StepBuilder
from hotmesh.core.advance.endings import complete_if_done, uncaught
from hotmesh.core.advance.expressions import (
    ALL_DONE,
    CompletionRule,
    completion_rule,
    fired_edges,
    mapping_failure,
    self_view,
)
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.life import LIFE
from hotmesh.core.advance.telling import tell
from hotmesh.core.column import LEAST_CODE, MOST_CODE, without_nul
from hotmesh.core.mapping import to_text
from hotmesh.core.plan.compile import ActivityPlan, Edge
from hotmesh.core.state.job import ActivityRecord, Dimension, Event
from hotmesh.core.state.step import ActivityInstance, EscalationEnd
from hotmesh.core.values import UNDEFINED, Json, Undefined
from hotmesh.errors import MappingError

RAISED: Final[dict[str, type]] = {
    "type": str, "activity": str, "topic": str, "job_id": str, "attempt": int, "attempts": int,
}  # fmt: skip
"""What the error of a callback that raised says besides."""


def answer(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, event: Event) -> None:
    """An open activity got a reply, a signal or its timer; a closed one takes nothing any more."""
    found = draft.record(activity.id, event.dimension)
    pending = event.status == "pending"
    if found is None:
        move = LIFE["open"]["more" if pending else "answered"]
        base = ActivityRecord("open", type=activity.type, started_at=event.started_at or builder.now)
    else:
        repeated = found.seen and event.message_id in found.seen
        move = LIFE[found.state]["repeated" if repeated else "more" if pending else "answered"]
        base = found
    if not move.outcome:
        return
    if event.kind == "added" and activity.type == "worker" and not (pending and base.state == "pending"):
        # It may be the first answer, to a message that still waits for a worker; or the last one.
        builder.released.append(ActivityInstance(draft.generation, activity.id, event.dimension))
    # One that takes no more answers need not recognise any, and of many answers the last ones will do.
    seen = base.seen if pending else ()
    if pending and event.message_id:
        seen = (*seen, event.message_id)[-builder.limits.seen :]
    address, state = event.dimension, move.to
    if move.further:
        # A further answer is a pass of its own; the record of the first keeps track of what is open.
        draft.put(activity.id, address, replace(base, state=state, seen=seen))
        address = (*address[:-1], draft.next_pass(activity.id, address[:-1]))
        state, seen = "closed", ()
    error = error_of(event) if event.status == "error" else None
    is_hook = activity.type == "hook"
    answered = ActivityRecord(
        state,
        base.output if is_hook else event.data if error is None else UNDEFINED,
        event.data if is_hook and error is None else UNDEFINED,
        error,
        event.code if error is None else error["code"],
        activity.type,
        base.started_at,
        builder.now,
        seen,
        event.attempt or None,
    )
    if not pending:
        _stop_waiting(builder, draft, activity, event)
    conclude(builder, draft, activity, address, answered, pending=event if pending else None)
    if builder.trace is not None:
        guid = request_id(draft, activity, event.dimension)
        builder.trace.answered(draft, activity, event, address, guid)


def passed(
    builder: StepBuilder, activity: ActivityPlan, output: Json | Undefined = UNDEFINED
) -> ActivityRecord:
    """The outcome of an activity that has done all it has to do in this step."""
    state = LIFE["absent"]["passes"].to
    return ActivityRecord(
        state, output, code=200, type=activity.type, started_at=builder.now, ended_at=builder.now
    )


def waiting(
    builder: StepBuilder, activity: ActivityPlan, output: Json | Undefined = UNDEFINED
) -> ActivityRecord:
    """The record of an activity that waits for its first answer."""
    return ActivityRecord(LIFE["absent"]["waits"].to, output, type=activity.type, started_at=builder.now)


def fail(
    builder: StepBuilder,
    draft: JobDraft,
    activity: ActivityPlan,
    dimension: Dimension,
    error: dict[str, Any],
    pending: Event | None = None,
) -> None:
    """The activity itself could not do its part: it ends like a worker that answered with this error.

    `pending`: the answer after which it would have waited for more.
    """
    found = draft.record(activity.id, dimension)
    if pending is not None:
        _stop_waiting(builder, draft, activity, pending)
        if activity.type == "worker":
            builder.released.append(ActivityInstance(draft.generation, activity.id, pending.dimension))
        waits = draft.record(activity.id, pending.dimension)
        if waits is not None:
            stopped = LIFE[waits.state]["stopped"].to
            draft.put(activity.id, pending.dimension, replace(waits, state=stopped))
    failed = ActivityRecord(
        LIFE["absent" if found is None else found.state]["fails"].to,
        error=error,
        code=error["code"],
        type=activity.type,
        started_at=found.started_at if found is not None else builder.now,
        ended_at=builder.now,
        attempt=None if found is None else found.attempt,
    )
    conclude(builder, draft, activity, dimension, failed)


def conclude(
    builder: StepBuilder,
    draft: JobDraft,
    activity: ActivityPlan,
    dimension: Dimension,
    record: ActivityRecord,
    *,
    pending: Event | None = None,
) -> None:
    """An activity has its outcome: record it, apply its maps, schedule its children, and settle accounts.

    `pending`: the answer, if more are to come.
    """
    draft.put(activity.id, dimension, record)
    view = self_view(activity, dimension, record, builder.now)
    context = draft.context(activity, dimension, view, builder.environment)
    fired: list[Edge] = []
    completion = ALL_DONE
    before = draft.data, draft.search
    try:
        fired = fired_edges(activity.edges, context, record.code or 200)
        if activity.job_maps is not None:
            draft.write(activity.job_maps.evaluate(context), builder.limits.max_payload, activity.id)
        if activity.announces:
            if activity.job_maps is not None and activity.uses_job:
                context = draft.context(activity, dimension, view, builder.environment)
            completion = completion_rule(activity, context)
    except MappingError as error:
        draft.data, draft.search = before
        if record.error is None:
            fail(builder, draft, activity, dimension, mapping_failure(error), pending)
            return
        # It has failed already: maps that find nothing to work on do not undo how that is handled.
    if record.error is not None and not fired:
        draft.close(activity.id, dimension)
        uncaught(builder, draft, record.error)
        complete_if_done(builder, draft, completion.threshold)
        return
    settle(builder, draft, activity, dimension, fired, completion, pending=pending is not None)


def settle(
    builder: StepBuilder,
    draft: JobDraft,
    activity: ActivityPlan,
    dimension: Dimension,
    fired: list[Edge],
    completion: CompletionRule,
    *,
    pending: bool = False,
) -> None:
    """Account for an outcome whose transitions are decided and whose maps are applied."""
    draft.status += len(fired)
    if not pending:
        draft.close(activity.id, dimension)
    follow(builder, draft, dimension, fired, completion)


def follow(
    builder: StepBuilder,
    draft: JobDraft,
    dimension: Dimension,
    fired: list[Edge],
    completion: CompletionRule,
) -> None:
    """Schedule the children of an activity that has closed or answered, and complete what is complete."""
    for edge in fired:
        child = draft.graph.activities[edge.to]
        if draft.join_state is not None:
            draft.join_state.opened(child, dimension)
        builder.todo.append(Enter(draft, child, dimension, edge.branch))
    if completion is not ALL_DONE and draft.status not in (0, completion.threshold):
        if completion.emit:
            tell(builder, draft, interim=True)
        if completion.persist:
            tell(builder, draft, interim=False)
    complete_if_done(builder, draft, completion.threshold)


def _stop_waiting(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, event: Event) -> None:
    """The activity takes no more answers: a hook's timer and wait go, and its work item is done."""
    if activity.type != "hook":
        return
    # A signal that was handed over to it meanwhile comes before its timer.
    timed_out = event.kind == "timer" and activity.hook is not None
    builder.released.append(ActivityInstance(draft.generation, activity.id, event.dimension, timed_out))
    if activity.escalation is not None:
        _end_escalation(builder, draft, activity, event)


def _end_escalation(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, event: Event) -> None:
    """The hook waits no more, so its work item is done: by the timer it has expired, else it is resolved."""
    expired = event.kind == "timer"
    builder.escalation_ends.append(
        EscalationEnd(
            draft.generation,
            activity.id,
            event.dimension,
            "expired" if expired else "resolved",
            # A copy to query by; as it came it is in the record of the hook.
            None if expired or event.data is UNDEFINED else without_nul(event.data),
        )
    )


def request_id(draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> str:
    """The id of what an activity asks for in one pass: the guid of its work."""
    return f"{draft.generation}:{activity.id}:{'.'.join(map(str, dimension))}"


def error_of(event: Event) -> dict[str, Any]:
    """The error of an answer: `message`, `code`, and `stack` and `error` if it has them; of what was raised, all of it.

    The code is that of the answer, else that of its data, else 500: an error never has the code of success.
    """
    given = event.data if isinstance(event.data, dict) else {}
    code = event.code if event.code != 200 else given.get("code")
    if isinstance(code, str) and code.isdecimal() and len(code) < 10:
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int) or code == 200:
        code = 500
    if not LEAST_CODE <= code <= MOST_CODE:
        code = 500
    message = given.get("message")
    error: dict[str, Any] = {
        "message": "unknown" if message in (None, "") else to_text(message),
        "code": code,
    }
    if given.get("stack") is not None:
        error["stack"] = to_text(given["stack"])
    if isinstance(given.get("error"), dict):
        error["error"] = given["error"]
    if event.kind in ("answer", "result") and (
        isinstance(given.get("type"), str) or given.get("message") == "unknown"
    ):
        # A callback raised it, of this activity or of one of the job that is awaited.
        error |= {name: given[name] for name, kind in RAISED.items() if isinstance(given.get(name), kind)}
    return error
