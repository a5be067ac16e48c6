"""The heart of the engine: `advance(plan, job, events) -> Step`, and `start` for a new job.

Both run the job forward until every open branch waits for something outside: a worker, a timer, a signal, a child
that itself waits. They are pure, so a step that lost its compare-and-set is simply computed again from the job as
it is now.

A `StepBuilder` holds the step in the making. What happens to a job is applied to it at once, what follows is put into its
queue, and the queue is worked off before the next event: so branches go on side by side, in the order they were opened.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, assert_never

from hotmesh.core.advance.activities import ENTER
from hotmesh.core.advance.beginnings import create, resume, start_created
from hotmesh.core.advance.builder import Begin, Deliver, Enter, StepBuilder
from hotmesh.core.advance.endings import complete_if_done, interrupt, leave_out, uncaught
from hotmesh.core.advance.expressions import mapping_failure, threshold
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.joins import arrive
from hotmesh.core.advance.life import LIFE
from hotmesh.core.advance.limits import DEFAULT_LIMITS, Limits
from hotmesh.core.advance.outcomes import answer, fail
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import ActivityPlan, Plan
from hotmesh.core.state.job import ActivityRecord, Dimension, Event, Job, StartRequest
from hotmesh.core.state.step import ActivityInstance, Consumed, Message, Step
from hotmesh.enums import Code
from hotmesh.errors import MappingError, TopicNotFoundError

LOST: Final = Code.LOST.value
"""The code of a message that cannot be carried out."""

PRIVATE: Final = "."
"""How the topic begins of a graph that only await activities start."""


def start(
    plan: Plan,
    request: StartRequest,
    now: datetime,
    environment: Environment,
    *,
    taken: Collection[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Step:
    """The step that creates a job. Raises TopicNotFoundError, MappingError, and DuplicateJobError for a taken id."""
    if request.topic.startswith(PRIVATE):
        hint = ": it begins with a dot, so only await activities start it"
        raise TopicNotFoundError(request.topic, plan.app_id, plan.version, plan.graphs, hint=hint)
    builder = StepBuilder(plan, now, environment, taken, limits)
    create(builder, request)
    _work_off(builder)
    return builder.step()


def advance(
    plan: Plan,
    job: Job,
    events: Sequence[Event],
    now: datetime,
    environment: Environment,
    *,
    taken: Collection[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Step:
    """The step that `events` cause in `job`, in their order.

    An event that means nothing any more (its activity has closed, the job has ended, it was seen before) changes
    nothing but is consumed. `taken`: ids of children that a commit found in other hands.
    """
    builder = StepBuilder(plan, now, environment, taken, limits)
    draft = builder.load(job)
    for event in events:
        _deliver(builder, draft, event)
        _work_off(builder)
    return builder.step()


def _work_off(builder: StepBuilder) -> None:
    """Do what is to be done, and what comes of it, until nothing is left."""
    todo = builder.todo
    while todo:
        # No patterns that take the values out: those cost a microsecond each.
        match item := todo.popleft():
            case Enter():
                _enter(builder, item.draft, item.activity, item.parent, item.branch)
            case Begin():
                index = item.draft.next_pass(item.activity.id, item.parent)
                _begin(builder, item.draft, item.activity, (*item.parent, index))
            case Deliver():
                _deliver(builder, item.draft, item.event)
            case never:
                assert_never(never)


# -- events ----------------------------------------------------------------------------------------------


def _deliver(builder: StepBuilder, draft: JobDraft, event: Event) -> None:
    """Apply one event, or consume it without effect if it comes too late."""
    if event.receipt is not None:
        builder.consumed.append(Consumed(draft.generation, event.receipt))
        if builder.trace is not None:
            builder.trace.consumed(draft, event)
    if event.kind == "resume":
        resume(builder, draft)
        return
    if draft.ended or draft.status <= 0:
        return
    match event.kind:
        case "start":
            start_created(builder, draft, event.data if isinstance(event.data, dict) else {})
        case "interrupt":
            interrupt(builder, draft, event.data if isinstance(event.data, dict) else {})
        case "enter":
            activity = _find(builder, draft, event)
            if activity is not None:
                branch = event.data if isinstance(event.data, str) else ""
                _enter(builder, draft, activity, event.dimension, branch)
        case "answer" | "added" | "result" | "signal" | "timer":
            activity = _find(builder, draft, event)
            if activity is not None:
                answer(builder, draft, activity, event)


def _find(builder: StepBuilder, draft: JobDraft, event: Event) -> ActivityPlan | None:
    """The activity the event is for; a version without it fails the job instead of dropping the event."""
    activity = draft.graph.activities.get(event.activity_id)
    if activity is None:
        _lose(builder, draft, event)
    return activity


def _lose(builder: StepBuilder, draft: JobDraft, event: Event) -> None:
    found = draft.record(event.activity_id, event.dimension)
    move = LIFE["open" if found is None else found.state]["lost"]
    if not move.outcome:
        return
    message = (
        f"version {builder.plan.version} of app {draft.app_id} has no activity {event.activity_id} "
        f"in the graph on {draft.graph.topic}; the job cannot go on"
    )
    error = {"message": message, "code": LOST}
    # Whatever else is meant for it finds it closed.
    record = ActivityRecord(
        move.to, error=error, code=LOST, started_at=event.started_at, ended_at=builder.now
    )
    draft.put(event.activity_id, event.dimension, record)
    builder.released.append(ActivityInstance(draft.generation, event.activity_id, event.dimension))
    draft.close(event.activity_id, event.dimension)
    uncaught(builder, draft, error)
    complete_if_done(builder, draft, 0)


# -- activities ------------------------------------------------------------------------------------------


def _enter(
    builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, parent: Dimension, branch: str
) -> None:
    """Enter `activity` below the address of its parent, on account of one obligation already counted."""
    if draft.ended or draft.status <= 0:
        return
    if builder.budget <= 0 or builder.limits.enough():
        _continue_later(builder, draft, activity, parent, branch)
        return
    builder.budget -= 1
    if activity.join is not None and not arrive(draft, activity, parent, branch):
        complete_if_done(builder, draft, 0)
        return
    index = draft.next_pass(activity.id, parent) if activity.reentrant else 0
    _begin(builder, draft, activity, (*parent, index), branch)


def _begin(
    builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, dimension: Dimension, branch: str = ""
) -> None:
    """Run the first leg of an activity at its own address. `branch`: by which transition, if by one."""
    if draft.ended or draft.status <= 0:
        return
    if draft.begun is not None:
        draft.begun.add((activity.id, dimension))
    try:
        if activity.announces:
            context = draft.context(activity, dimension, {"output": {}}, builder.environment)
            least = threshold(activity, context)
            if draft.status <= least:
                leave_out(builder, draft, activity, dimension, least)
                return
        ENTER[activity.type](builder, draft, activity, dimension)
    except MappingError as error:
        fail(builder, draft, activity, dimension, mapping_failure(error))
    if builder.trace is not None:
        builder.trace.entered(draft, activity, dimension, branch)


def _continue_later(
    builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, parent: Dimension, branch: str
) -> None:
    """The step is long enough: a message enters the activity in another one."""
    if draft.begun is not None:
        draft.begun.add((activity.id, parent))
    message_id = f"enter:{activity.id}:{'.'.join(map(str, parent))}:{branch}:{draft.base.seq}"
    builder.messages.append(
        Message("enter", draft.job_id, message_id, draft.generation, activity.id, parent, data=branch)
    )
