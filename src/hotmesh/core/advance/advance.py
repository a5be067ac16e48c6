"""The heart of the engine: `advance(plan, job, events) -> Step`, and `start` for a new job.

Both run the job forward until every open branch waits for something outside: a worker, a timer, a signal, a child
that itself waits. They are pure, so a step that lost its compare-and-set is simply computed again from the job as
it is now.

How the status counts: it is the number of open obligations. A closing activity with k children changes it by
k - 1, a pending answer by k. At 0 the job is complete.
"""

from __future__ import annotations

import math
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from hotmesh.core.advance import activities
from hotmesh.core.advance.job_draft import JobDraft, View, record_view
from hotmesh.core.advance.join_state import JoinState
from hotmesh.core.advance.trace import Trace
from hotmesh.core.column import LEAST_CODE, MOST_CODE, column_text, without_nul
from hotmesh.core.duration import LONGEST_TIME
from hotmesh.core.mapping import ENVIRONMENT, Environment, to_json_value, to_number, to_text
from hotmesh.core.plan.compile import ActivityPlan, Edge, GraphPlan, Plan
from hotmesh.core.state.job import (
    INTERRUPTED,
    PENDING_STATUS,
    ActivityRecord,
    Dimension,
    Event,
    Job,
    Parent,
    RecordState,
)
from hotmesh.core.state.span import TraceMode
from hotmesh.core.state.step import (
    ActivityInstance,
    Broadcast,
    Consumed,
    Escalation,
    EscalationEnd,
    JobChange,
    Measure,
    Message,
    Notice,
    RecordChange,
    Signal,
    Step,
    Timer,
    Wait,
    Work,
)
from hotmesh.core.time_slice import time_slice
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.enums import Code
from hotmesh.errors import DuplicateJobError, MappingError, TopicNotFoundError

STEP_LIMIT: Final = 1_000
"""Activities that one step runs; what is left then goes on in a message, so that no step is unbounded."""

LONGEST_ID: Final = 512
"""Characters of a job id."""

SEEN_LIMIT: Final = 1_000
"""Answers that an activity which takes more of them remembers by their ids: a later one of these is a repetition."""

LOST: Final = Code.LOST.value
"""The code of a message that cannot be carried out."""

PRIVATE: Final = "."
"""How the topic begins of a graph that only await activities start."""

ERROR_IN_DATA: Final = Code.UNCAUGHT.value
"""The code of an error that is written to the data of its job (where the graph maps `$error`)."""

FAILED_START_KEPT: Final = 86_400.0
"""Seconds for which a job that could not be started is kept at least: its caller had gone on, and was told nothing."""

DEFAULT_EXPIRE: Final = 1.0
DEFAULT_MAX_CYCLES: Final = 10_000


class Limits(Struct, frozen=True):
    """Settings that bound a step."""

    activities: int = STEP_LIMIT
    max_cycles: int = DEFAULT_MAX_CYCLES
    expire: float = DEFAULT_EXPIRE
    trace: TraceMode | None = None
    """Which spans are told of jobs that have a trace; None: none."""


DEFAULT_LIMITS: Final = Limits()


class CompletionRule(Struct, frozen=True):
    """What an activity does about the rest of its job once its own part is done."""

    emit: bool = False
    persist: bool = False
    threshold: int = 0
    """The job is complete when no more than this many obligations are open."""


ALL_DONE: Final = CompletionRule()


class StartRequest(Struct, frozen=True):
    """A job to be created. `generation` and `default_id` come from outside, so that the core invents nothing."""

    topic: str
    data: Json
    generation: str
    default_id: str
    job_id: str | None = None
    reply_to: str | None = None
    parent: Parent | None = None
    trace_id: str | None = None
    span_id: str | None = None
    entity: str | None = None
    search: Json = None
    pending: float | None = None


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
        raise TopicNotFoundError(request.topic, plan.app_id, plan.version, hint=hint)
    run = Run(plan, now, environment, taken, limits)
    run.create(request)
    run.work_off()
    return run.step()


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
    run = Run(plan, now, environment, taken, limits)
    draft = run.load(job)
    for event in events:
        run.happened(draft, event)
        run.work_off()
    return run.step()


class Run:
    """The working area of one step: drafts of the jobs in it, what is still to do, and what it will change."""

    def __init__(
        self, plan: Plan, now: datetime, environment: Environment, taken: Collection[str], limits: Limits
    ) -> None:
        self.plan = plan
        self.now = now
        self.environment = environment
        self.limits = limits
        self._taken = taken
        self._drafts: dict[str, JobDraft] = {}
        self._job_ids: set[str] = set()
        self._sent: set[str] = set()
        self._todo: deque[Callable[[], None]] = deque()
        self._budget = limits.activities
        self.work: list[Work] = []
        self.messages: list[Message] = []
        self.timers: list[Timer] = []
        self.waits: list[Wait] = []
        self.signals: list[Signal] = []
        self.broadcasts: list[Broadcast] = []
        self.escalations: list[Escalation] = []
        self.escalation_ends: list[EscalationEnd] = []
        self.measures: list[Measure] = []
        self.released: list[ActivityInstance] = []
        self._consumed: list[Consumed] = []
        self._notices: list[Notice] = []
        self._interim = 0
        self.trace = None if limits.trace is None else Trace(limits.trace, now, environment)

    def step(self) -> Step:
        """What has been worked out, as one immutable change."""
        if any(draft.dropped for draft in self._drafts.values()):
            self._drop()
        jobs = []
        records: list[RecordChange] = []
        for draft in self._drafts.values():
            jobs.append(
                JobChange(
                    draft.finish(),
                    draft.created,
                    draft.base.seq,
                    draft.ended and not draft.over,
                    draft.dropped,
                    draft.descend,
                    draft.data is not draft.base.data,
                    draft.search,
                    draft.started,
                )
            )
            records += [
                RecordChange(draft.generation, activity_id, dimension, record)
                for (activity_id, dimension), record in draft.touched.items()
            ]
            if self.trace is not None and draft.ended and not draft.over:
                self.trace.ended(draft)
        return Step(
            tuple(jobs),
            tuple(records),
            tuple(self.work),
            tuple(self.messages),
            tuple(self.timers),
            tuple(self.waits),
            tuple(self.signals),
            tuple(self.broadcasts),
            tuple(self.escalations),
            tuple(self.escalation_ends),
            tuple(self.measures),
            tuple(self.released),
            tuple(self._consumed),
            tuple(self._notices),
            () if self.trace is None else tuple(self.trace.spans),
        )

    def _drop(self) -> None:
        """A job that gives up what is open does not begin it in the same step, either."""
        dropped = {draft.generation for draft in self._drafts.values() if draft.dropped}
        self.work = [item for item in self.work if item.generation not in dropped]
        self.timers = [item for item in self.timers if item.generation not in dropped]
        self.waits = [item for item in self.waits if item.generation not in dropped]
        self.escalations = [item for item in self.escalations if item.generation not in dropped]
        self.messages = [item for item in self.messages if item.generation not in dropped]

    def work_off(self) -> None:
        todo = self._todo
        while todo:
            todo.popleft()()

    # -- beginnings --------------------------------------------------------------------------------------

    def load(self, job: Job) -> JobDraft:
        graph = self.plan.graphs.get(job.topic) or GraphPlan.lost(job.topic)
        draft = JobDraft(job, graph, self.now, created=False)
        self._drafts[job.generation] = draft
        self._job_ids.add(job.job_id)
        return draft

    def create(self, request: StartRequest) -> JobDraft:
        """Create the job and schedule what follows its trigger."""
        graph = self.plan.graphs.get(request.topic)
        if graph is None:
            raise TopicNotFoundError(request.topic, self.plan.app_id, self.plan.version)
        trigger = graph.trigger
        payload = {} if request.data is None else request.data
        view: View = {"input": {"data": payload}, "output": {"data": payload}}
        naming = {"$self": view, trigger.id: view, ENVIRONMENT: self.environment}
        job_id = self._job_id(graph, request, naming)
        if job_id in self._taken or job_id in self._job_ids:
            raise DuplicateJobError(job_id)
        base = Job(
            app_id=self.plan.app_id,
            job_id=job_id,
            generation=request.generation,
            version=self.plan.version,
            topic=graph.topic,
            seq=0,
            status=0,
            input=payload,
            data={},
            created_at=self.now,
            updated_at=self.now,
            reply_to=request.reply_to,
            parent=request.parent,
            trace_id=request.trace_id,
            span_id=request.span_id,
            open={} if graph.joins else None,
        )
        draft = JobDraft(base, graph, self.now, created=True)
        draft.search = None if request.search is None else dict(request.search)
        fired, completion = self._trigger(draft, request.entity, view, naming)
        # Nothing can fail from here on: a child that cannot be created leaves no trace.
        self._drafts[draft.generation] = draft
        self._job_ids.add(job_id)
        self._set_out(draft, fired, completion, request.pending, view)
        return draft

    def _trigger(
        self, draft: JobDraft, given_entity: str | None, view: View, naming: Mapping[Any, Any]
    ) -> tuple[list[Edge], CompletionRule]:
        """What the trigger makes of the job's input: key, data, entity, expiry, measures, and where it leads to."""
        graph = draft.graph
        trigger = graph.trigger
        key = graph.statistics.key
        key_value = None if key is None else key.evaluate(naming)
        if key_value not in (None, UNDEFINED, ""):
            draft.key = column_text(key_value, "the job key of stats.key")
        if "$self" in trigger.metadata_of:
            view["output"]["metadata"] = draft.trigger_metadata()
        context = draft.context(trigger, (0,), view, self.environment)
        if trigger.job_maps is not None:
            draft.write(trigger.job_maps.evaluate(context))
            if trigger.uses_job:
                context = draft.context(trigger, (0,), view, self.environment)
        fired = fired_edges(trigger.edges, context, 200)
        entity = given_entity if given_entity is not None else self.value(trigger, "entity", context)
        draft.entity = None if entity in (None, UNDEFINED) else column_text(entity, "the entity")
        draft.expire = self._expire(draft, context)
        completion = self.completion_rule(trigger, context)
        if draft.key is not None and graph.statistics.measures:
            self._measure(draft, draft.key, naming)
        return fired, completion

    def _set_out(
        self,
        draft: JobDraft,
        fired: list[Edge],
        completion: CompletionRule,
        pending: float | None,
        view: View,
    ) -> None:
        """Leave the trigger, or wait for `resume`, at most `pending` seconds."""
        draft.status = len(fired)
        if pending is not None:
            draft.status = PENDING_STATUS
            draft.expire = pending
        if self.trace is not None:
            self.trace.created(draft, view)
        if pending is not None:
            return
        self._follow(draft, draft.graph.trigger, (0,), fired, completion)

    def _start(self, draft: JobDraft, options: Mapping[str, Any]) -> None:
        """Start a job that its caller created within a transaction; its id, entity and search fields are settled.

        There is nobody left to raise to: what cannot be mapped becomes the job's error.
        """
        graph = draft.graph
        draft.started = True
        draft.version = self.plan.version
        draft.join_state = JoinState({}) if graph.joins else None
        draft.begun = None  # nothing has happened to it before, so all of it is here
        view: View = {"input": {"data": draft.input}, "output": {"data": draft.input}}
        naming = {"$self": view, graph.trigger.id: view, ENVIRONMENT: self.environment}
        before = draft.data, draft.search
        try:
            if graph.topic not in self.plan.graphs:
                raise TopicNotFoundError(graph.topic, self.plan.app_id, self.plan.version)
            fired, completion = self._trigger(draft, draft.entity, view, naming)
        except (MappingError, TopicNotFoundError) as error:
            draft.data, draft.search = before
            draft.status = 0
            self._uncaught(draft, {"message": str(error), "code": 500})
            self._edge(draft, 0)
            if draft.expire is not None and draft.expire > 0:
                draft.expire = max(draft.expire, FAILED_START_KEPT)
            return
        self._set_out(draft, fired, completion, options.get("pending"), view)

    def _measure(self, draft: JobDraft, key: str, context: Mapping[Any, Any]) -> None:
        """Note what the trigger's `stats.measures` count about this job."""
        statistics = draft.graph.statistics
        found = []
        for measure, facet, target in statistics.measures:
            value = target.evaluate(context)
            if value is UNDEFINED or value is None:
                continue
            number = to_number(value)
            found.append(
                Measure(
                    draft.job_id,
                    draft.generation,
                    draft.graph.topic,
                    key,
                    time_slice(draft.created_at, statistics.granularity),
                    measure,
                    facet,
                    column_text(value, f"what the trigger counts as {measure} of {facet}"),
                    float(number) if math.isfinite(number) else None,
                )
            )
        self.measures += found

    def _job_id(self, graph: GraphPlan, request: StartRequest, context: Mapping[Any, Any]) -> str:
        if graph.statistics.id is not None:
            value = graph.statistics.id.evaluate(context)
            if value not in (None, UNDEFINED, ""):
                return column_text(value, "the job id of stats.id", LONGEST_ID)
        return request.job_id or request.default_id

    # -- events ------------------------------------------------------------------------------------------

    def happened(self, draft: JobDraft, event: Event) -> None:
        """Apply one event, or consume it without effect if it comes too late."""
        if event.receipt is not None:
            self._consumed.append(Consumed(draft.generation, event.receipt))
            if self.trace is not None:
                self.trace.consumed(draft, event)
        if event.kind == "resume":
            self._resume_pending(draft)
            return
        if draft.ended or draft.status <= 0:
            return
        match event.kind:
            case "start":
                self._start(draft, event.data if isinstance(event.data, dict) else {})
            case "interrupt":
                self.interrupt(draft, event.data if isinstance(event.data, dict) else {})
            case "enter":
                activity = self._find(draft, event)
                if activity is not None:
                    self.enter(
                        draft, activity, event.dimension, event.data if isinstance(event.data, str) else ""
                    )
            case "answer" | "added" | "result" | "signal" | "timer":
                activity = self._find(draft, event)
                if activity is not None:
                    self.answer(draft, activity, event)

    def _find(self, draft: JobDraft, event: Event) -> ActivityPlan | None:
        """The activity the event is for; a version without it fails the job instead of dropping the event."""
        activity = draft.graph.activities.get(event.activity_id)
        found = draft.record(event.activity_id, event.dimension)
        if activity is None and (found is None or found.state != "closed"):
            message = (
                f"version {self.plan.version} of app {draft.app_id} has no activity {event.activity_id} "
                f"in the graph on {draft.graph.topic}; the job cannot go on"
            )
            error = {"message": message, "code": LOST}
            record = ActivityRecord(
                "closed", error=error, code=LOST, started_at=event.started_at, ended_at=self.now
            )
            # Whatever else is meant for it finds it closed.
            draft.put(event.activity_id, event.dimension, record)
            self.released.append(ActivityInstance(draft.generation, event.activity_id, event.dimension))
            self._close(draft, event.activity_id, event.dimension)
            self._uncaught(draft, error)
            self._edge(draft, 0)
        return activity

    def answer(self, draft: JobDraft, activity: ActivityPlan, event: Event) -> None:
        """An open activity got a reply, a signal or its timer."""
        found = draft.record(activity.id, event.dimension)
        if found is not None and (
            found.state == "closed" or (event.message_id and event.message_id in found.seen)
        ):
            return
        base = found or ActivityRecord("open", type=activity.type, started_at=event.started_at or self.now)
        pending = event.status == "pending"
        if event.kind == "added" and activity.type == "worker" and not (pending and base.state == "pending"):
            # It may be the first answer, to a message that still waits for a worker; or the last one.
            self.released.append(ActivityInstance(draft.generation, activity.id, event.dimension))
        # One that takes no more answers need not recognise any, and of many answers the last ones will do.
        seen = base.seen if pending else ()
        if pending and event.message_id:
            seen = (*seen, event.message_id)[-SEEN_LIMIT:]
        address = event.dimension
        state: RecordState = "pending" if pending else "closed"
        if base.state == "pending":
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
            self.now,
            seen,
            event.attempt or None,
        )
        if not pending:
            self._stop_waiting(draft, activity, event)
        self.conclude(draft, activity, address, answered, pending=event if pending else None)
        if self.trace is not None:
            self.trace.answered(draft, activity, event, address, request_id(draft, activity, event.dimension))

    def _stop_waiting(self, draft: JobDraft, activity: ActivityPlan, event: Event) -> None:
        """The activity takes no more answers: a hook's timer and wait go, and its work item is done."""
        if activity.type != "hook":
            return
        self.released.append(ActivityInstance(draft.generation, activity.id, event.dimension))
        if activity.escalation is not None:
            self._end_escalation(draft, activity, event)

    def _end_escalation(self, draft: JobDraft, activity: ActivityPlan, event: Event) -> None:
        """The hook waits no more, so its work item is done: by the timer it has expired, else it is resolved."""
        expired = event.kind == "timer"
        self.escalation_ends.append(
            EscalationEnd(
                draft.generation,
                activity.id,
                event.dimension,
                "expired" if expired else "resolved",
                # A copy to query by; as it came it is in the record of the hook.
                None if expired or event.data is UNDEFINED else without_nul(event.data),
            )
        )

    # -- the life of an activity -------------------------------------------------------------------------

    def enter(self, draft: JobDraft, activity: ActivityPlan, parent: Dimension, branch: str) -> None:
        """Enter `activity` below the address of its parent, on account of one obligation already counted."""
        if draft.ended or draft.status <= 0:
            return
        if self._budget <= 0:
            self._continue_later(draft, activity, parent, branch)
            return
        self._budget -= 1
        if activity.join is not None and not activities.join.arrive(self, draft, activity, parent, branch):
            return
        index = draft.next_pass(activity.id, parent) if activity.reentrant else 0
        self.begin(draft, activity, (*parent, index), branch)

    def join(self, draft: JobDraft, activity: ActivityPlan, parent: Dimension) -> None:
        """Run a join that has gathered its branches, after what is already on its way."""
        self._todo.append(
            lambda: self.begin(draft, activity, (*parent, draft.next_pass(activity.id, parent)))
        )

    def begin(self, draft: JobDraft, activity: ActivityPlan, dimension: Dimension, branch: str = "") -> None:
        """Run the first leg of an activity at its own address. `branch`: by which transition, if by one."""
        if draft.ended or draft.status <= 0:
            return
        if draft.begun is not None:
            draft.begun.add((activity.id, dimension))
        try:
            if activity.announces:
                context = draft.context(activity, dimension, {"output": {}}, self.environment)
                threshold = self._threshold(activity, context)
                if draft.status <= threshold:
                    self._below_threshold(draft, activity, dimension, threshold)
                    return
            activities.ENTER[activity.type](self, draft, activity, dimension)
        except MappingError as error:
            self.fail(draft, activity, dimension, mapping_failure(error))
        if self.trace is not None:
            self.trace.entered(draft, activity, dimension, branch)

    def fail(
        self,
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
            self._stop_waiting(draft, activity, pending)
            if activity.type == "worker":
                self.released.append(ActivityInstance(draft.generation, activity.id, pending.dimension))
            waits = draft.record(activity.id, pending.dimension)
            if waits is not None:
                draft.put(activity.id, pending.dimension, replace(waits, state="closed"))
        failed = ActivityRecord(
            "closed",
            error=error,
            code=error["code"],
            type=activity.type,
            started_at=found.started_at if found is not None else self.now,
            ended_at=self.now,
            attempt=None if found is None else found.attempt,
        )
        self.conclude(draft, activity, dimension, failed)

    def conclude(
        self,
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
        view = self.self_view(activity, dimension, record)
        context = draft.context(activity, dimension, view, self.environment)
        fired: list[Edge] = []
        completion = ALL_DONE
        before = draft.data, draft.search
        try:
            fired = fired_edges(activity.edges, context, record.code or 200)
            if activity.job_maps is not None:
                draft.write(activity.job_maps.evaluate(context))
            if activity.announces:
                if activity.job_maps is not None and activity.uses_job:
                    context = draft.context(activity, dimension, view, self.environment)
                completion = self.completion_rule(activity, context)
        except MappingError as error:
            draft.data, draft.search = before
            if record.error is None:
                self.fail(draft, activity, dimension, mapping_failure(error), pending)
                return
            # It has failed already: maps that find nothing to work on do not undo how that is handled.
        if record.error is not None and not fired:
            self._close(draft, activity.id, dimension)
            self._uncaught(draft, record.error)
            self._edge(draft, completion.threshold)
            return
        self.settle(draft, activity, dimension, fired, completion, pending=pending is not None)

    def settle(
        self,
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
            self._close(draft, activity.id, dimension)
        self._follow(draft, activity, dimension, fired, completion)

    def _close(self, draft: JobDraft, activity_id: str, dimension: Dimension) -> None:
        """The obligation of an activity is met."""
        draft.status -= 1
        if draft.join_state is not None:
            draft.join_state.closed(activity_id, dimension)

    def completion_rule(self, activity: ActivityPlan, context: Mapping[Any, Any]) -> CompletionRule:
        """Whether the activity says `emit` and `persist` (only exactly true counts), and its `statusThreshold`."""
        if not activity.announces:
            return ALL_DONE
        return CompletionRule(
            self.value(activity, "emit", context) is True,
            self.value(activity, "persist", context) is True,
            self._threshold(activity, context),
        )

    def self_view(self, activity: ActivityPlan, dimension: Dimension, record: ActivityRecord) -> View:
        wants_metadata = "$self" in activity.metadata_of
        return record_view(record, activity, dimension, self.now if wants_metadata else None)

    def _follow(
        self,
        draft: JobDraft,
        activity: ActivityPlan,
        dimension: Dimension,
        fired: list[Edge],
        completion: CompletionRule,
    ) -> None:
        """Schedule the children of an activity that has closed or answered, and complete what is complete."""
        todo = self._todo
        for edge in fired:
            child = draft.graph.activities[edge.to]
            if draft.join_state is not None:
                draft.join_state.opened(child, dimension)
            todo.append(
                lambda child=child, branch=edge.branch: self.enter(draft, child, dimension, branch)  # type: ignore[misc]
            )
        if completion is not ALL_DONE and draft.status not in (0, completion.threshold):
            if completion.emit:
                self._tell(draft, interim=True)
            if completion.persist:
                self._tell(draft, interim=False)
        self._edge(draft, completion.threshold)

    def _edge(self, draft: JobDraft, threshold: int) -> None:
        """Complete the job if it has come down to nothing, or exactly to the threshold."""
        if draft.ended:
            return
        if draft.status not in (0, threshold):
            activities.join.check(self, draft)
            return
        if draft.status > 0:
            draft.dropped = True
            draft.status = 0
        draft.ended = True
        draft.expire = self._expire(draft, None)
        self._tell(draft, interim=False)

    def settled(self, draft: JobDraft) -> None:
        """An obligation was released without anything else happening: complete what is complete."""
        self._edge(draft, 0)

    def _below_threshold(
        self, draft: JobDraft, activity: ActivityPlan, dimension: Dimension, threshold: int
    ) -> None:
        """Not run: at the threshold the open branches are given up, below it the branch just ends."""
        if draft.status < threshold:
            self._close(draft, activity.id, dimension)
            threshold = 0
        self._edge(draft, threshold)

    def _uncaught(self, draft: JobDraft, error: Mapping[str, Any]) -> None:
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
        self._tell(draft, interim=False)
        draft.told = True

    def _continue_later(
        self, draft: JobDraft, activity: ActivityPlan, parent: Dimension, branch: str
    ) -> None:
        if draft.begun is not None:
            draft.begun.add((activity.id, parent))
        message_id = f"enter:{activity.id}:{'.'.join(map(str, parent))}:{branch}:{draft.base.seq}"
        self.messages.append(
            Message("enter", draft.job_id, message_id, draft.generation, activity.id, parent, data=branch)
        )

    # -- children ----------------------------------------------------------------------------------------

    def start_child(
        self,
        draft: JobDraft,
        activity: ActivityPlan,
        dimension: Dimension,
        topic: str,
        data: Json,
        *,
        severed: bool,
    ) -> JobDraft:
        """Create the job that an await activity asks for. Its id and generation follow from the parent's."""
        seed = f"{draft.generation}/{activity.id}/{'.'.join(map(str, dimension))}"
        generation = UUID(
            bytes=draft_time(draft.generation) + blake2b(seed.encode(), digest_size=10).digest()
        )
        parent = Parent(draft.job_id, draft.generation, activity.id, dimension, severed)
        span = draft.span_id
        if self.trace is not None:
            told = self.trace.following if severed else self.trace.waiting
            span = told(draft, activity, dimension)
        return self.create(
            StartRequest(
                topic=topic,
                data=data,
                generation=str(generation),
                default_id="H" + derived_id(seed),
                parent=parent,
                trace_id=draft.trace_id,
                span_id=span,
            )
        )

    # -- endings -----------------------------------------------------------------------------------------

    def interrupt(self, draft: JobDraft, options: Mapping[str, Any]) -> None:
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
        draft.expire = self._expire(draft, None)
        if options.get("expire") is not None:
            draft.expire = min(float(options["expire"]), LONGEST_TIME)
        self._tell(draft, interim=False)

    def _resume_pending(self, draft: JobDraft) -> None:
        """Start the branches of a job that was created in pending mode."""
        if draft.status != PENDING_STATUS:
            return
        trigger = draft.graph.trigger
        view: View = {
            "input": {"data": draft.input},
            "output": {"data": draft.input, "metadata": draft.trigger_metadata()},
        }
        context = draft.context(trigger, (0,), view, self.environment)
        draft.expire = self._expire(draft, context)
        try:
            fired = fired_edges(trigger.edges, context, 200)
            completion = self.completion_rule(trigger, context)
        except MappingError as error:
            draft.status = 0
            self._uncaught(draft, mapping_failure(error))
            self._edge(draft, 0)
            return
        draft.status = len(fired)
        self._follow(draft, trigger, (0,), fired, completion)

    def _tell(self, draft: JobDraft, *, interim: bool) -> None:
        """Answer the parent, the waiting caller and the subscribers with the job as it is now.

        Not after an error: they have been told how it ends, and are told once.
        """
        if draft.told:
            return
        parent = draft.parent
        if parent is not None and not parent.severed:
            self._tell_parent(draft, parent, interim=interim)
        if draft.reply_to is not None or draft.graph.publishes is not None:
            notice = Notice(
                draft.job_id,
                draft.reply_to,
                draft.graph.publishes,
                draft.metadata(),
                draft.data,
                interim,
                draft.base.seq + 1,
            )
            self._notices.append(notice)

    def _tell_parent(self, draft: JobDraft, parent: Parent, *, interim: bool) -> None:
        status, code, data = "success", 200, draft.data
        if draft.error is not None:
            status, code, data = "error", int(draft.error.get("code") or 500), dict(draft.error)
        elif interim:
            status, code = "pending", 202
        # An interim answer is told apart by the version it was given at; of final ones only the first counts.
        self._interim += interim
        suffix = f":{draft.base.seq}:{self._interim}" if interim else ""
        message_id = f"result:{draft.generation}{suffix}"
        waiting = self._drafts.get(parent.generation)
        if waiting is not None:
            event = Event(
                "result", parent.activity_id, parent.dimension, status, code, data, message_id=message_id
            )
            self._todo.append(lambda: self.happened(waiting, event))
            return
        if message_id in self._sent:
            return
        self._sent.add(message_id)
        self.messages.append(
            Message(
                "result",
                parent.job_id,
                message_id,
                parent.generation,
                parent.activity_id,
                parent.dimension,
                status,
                code,
                data,
            )
        )

    # -- values ------------------------------------------------------------------------------------------

    def value(self, activity: ActivityPlan, name: str, context: Mapping[Any, Any]) -> Any:
        """One of the activity's scalar expressions, or UNDEFINED if it has none of this name."""
        compiled = activity.expressions.get(name)
        return UNDEFINED if compiled is None else compiled.evaluate(context)

    def maps(self, activity: ActivityPlan, name: str, context: Mapping[Any, Any]) -> Json:
        """One of the activity's map trees as JSON, `{}` if it has none of this name."""
        compiled = activity.maps.get(name)
        if compiled is None:
            return {}
        value = to_json_value(compiled.evaluate(context))
        return {} if value is UNDEFINED else value

    def _threshold(self, activity: ActivityPlan, context: Mapping[Any, Any]) -> int:
        compiled = activity.expressions.get("status_threshold")
        if compiled is None:
            return 0
        number = to_number(compiled.evaluate(context))
        return int(number) if math.isfinite(number) and number > 0 else 0

    def _expire(self, draft: JobDraft, context: Mapping[Any, Any] | None) -> float | None:
        """Seconds to keep the job once it has ended; 0 or less: until it is pruned."""
        compiled = draft.graph.expire
        if compiled is None:
            return self.limits.expire
        if context is None:
            context = {} if compiled.constant else self._last_context(draft)
        try:
            value = compiled.evaluate(context)
        except MappingError:
            # The graph's expiry must not undo the job's result; it is as if it did not resolve.
            return self.limits.expire
        number = to_number(value) if value not in (None, UNDEFINED, "") else math.nan
        return min(float(number), LONGEST_TIME) if number == number else self.limits.expire

    def _last_context(self, draft: JobDraft) -> Mapping[Any, Any]:
        """What the graph's own expressions see: of an activity that ran more than once, the latest pass."""
        view: View = {"output": {"data": draft.input}}
        return draft.context(draft.graph.trigger, (), view, self.environment)


def request_id(draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> str:
    """The id of what an activity asks for in one pass: the guid of its work."""
    return f"{draft.generation}:{activity.id}:{'.'.join(map(str, dimension))}"


def error_of(event: Event) -> dict[str, Any]:
    """The error of an answer: `message`, `code`, and `stack` and `error` if it has them.

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
    return error


def fired_edges(edges: Sequence[Edge], context: Mapping[Any, Any], code: int) -> list[Edge]:
    """The transitions that an outcome takes; each is decided on its own."""
    return [edge for edge in edges if edge.condition is None or edge.condition.evaluate(context, code)]


def mapping_failure(error: MappingError) -> dict[str, Any]:
    """A mapping error as the error object of an activity."""
    return {"message": str(error), "code": 500}


def derived_id(seed: str) -> str:
    """22 url-safe characters that follow from the seed."""
    return urlsafe_b64encode(blake2b(seed.encode(), digest_size=17).digest()).decode()[:22]


def draft_time(generation: str) -> bytes:
    """The six leading bytes of a generation: its time, which keeps a child beside its parent in the indexes."""
    return UUID(generation).bytes[:6]
