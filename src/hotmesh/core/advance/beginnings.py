"""How a job begins: created by a request or by an await activity, started later, or resumed."""

from __future__ import annotations

import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.endings import complete_if_done, expiry, uncaught
from hotmesh.core.advance.expressions import (
    CompletionRule,
    completion_rule,
    fired_edges,
    mapping_failure,
    scalar,
)
from hotmesh.core.advance.job_draft import JobDraft, View
from hotmesh.core.advance.join_state import JoinState
from hotmesh.core.advance.metadata import trigger_metadata
from hotmesh.core.advance.outcomes import follow
from hotmesh.core.column import column_text
from hotmesh.core.mapping import ENVIRONMENT, to_number
from hotmesh.core.plan.compile import ActivityPlan, Edge, GraphPlan
from hotmesh.core.state.job import PENDING_STATUS, Dimension, Job, Parent, StartRequest
from hotmesh.core.state.step import Measure
from hotmesh.core.time_slice import time_slice
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.errors import DuplicateJobError, MappingError, TopicNotFoundError

LONGEST_ID: Final = 512
"""Characters of a job id."""

FAILED_START_KEPT: Final = 86_400.0
"""Seconds for which a job that could not be started is kept at least: its caller had gone on, and was told nothing."""


def create(builder: StepBuilder, request: StartRequest) -> JobDraft:
    """Create the job and schedule what follows its trigger."""
    graph = builder.plan.graphs.get(request.topic)
    if graph is None:
        raise TopicNotFoundError(
            request.topic, builder.plan.app_id, builder.plan.version, builder.plan.graphs
        )
    trigger = graph.trigger
    payload = {} if request.data is None else request.data
    view: View = {"input": {"data": payload}, "output": {"data": payload}}
    naming = {"$self": view, trigger.id: view, ENVIRONMENT: builder.environment}
    job_id = _job_id(graph, request, naming)
    if builder.holds(job_id):
        raise DuplicateJobError(job_id)
    base = Job(
        app_id=builder.plan.app_id,
        job_id=job_id,
        generation=request.generation,
        version=builder.plan.version,
        topic=graph.topic,
        seq=0,
        status=0,
        input=payload,
        data={},
        created_at=builder.now,
        updated_at=builder.now,
        reply_to=request.reply_to,
        parent=request.parent,
        trace_id=request.trace_id,
        span_id=request.span_id,
        open={} if graph.joins else None,
    )
    draft = JobDraft(base, graph, builder.now, created=True)
    draft.search = None if request.search is None else dict(request.search)
    fired, completion = _trigger(builder, draft, request.entity, view, naming)
    # Nothing can fail from here on: a child that cannot be created leaves no trace.
    builder.add(draft)
    _set_out(builder, draft, fired, completion, request.pending, view)
    return draft


def start_child(
    builder: StepBuilder,
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
    generation = UUID(bytes=draft_time(draft.generation) + blake2b(seed.encode(), digest_size=10).digest())
    parent = Parent(draft.job_id, draft.generation, activity.id, dimension, severed)
    span = draft.span_id
    if builder.trace is not None:
        told = builder.trace.following if severed else builder.trace.waiting
        span = told(draft, activity, dimension)
    return create(
        builder,
        StartRequest(
            topic=topic,
            data=data,
            generation=str(generation),
            default_id="H" + derived_id(seed),
            parent=parent,
            trace_id=draft.trace_id,
            span_id=span,
        ),
    )


def start_created(builder: StepBuilder, draft: JobDraft, options: Mapping[str, Any]) -> None:
    """Start a job that its caller created within a transaction; its id, entity and search fields are settled.

    There is nobody left to raise to: what cannot be mapped becomes the job's error.
    """
    graph = draft.graph
    draft.started = True
    draft.version = builder.plan.version
    draft.join_state = JoinState({}) if graph.joins else None
    draft.begun = None  # nothing has happened to it before, so all of it is here
    view: View = {"input": {"data": draft.input}, "output": {"data": draft.input}}
    naming = {"$self": view, graph.trigger.id: view, ENVIRONMENT: builder.environment}
    before = draft.data, draft.search
    try:
        if graph.topic not in builder.plan.graphs:
            raise TopicNotFoundError(
                graph.topic, builder.plan.app_id, builder.plan.version, builder.plan.graphs
            )
        fired, completion = _trigger(builder, draft, draft.entity, view, naming)
    except (MappingError, TopicNotFoundError) as error:
        draft.data, draft.search = before
        draft.status = 0
        uncaught(builder, draft, {"message": str(error), "code": 500})
        complete_if_done(builder, draft, 0)
        if draft.expire is not None and draft.expire > 0:
            draft.expire = max(draft.expire, FAILED_START_KEPT)
        return
    _set_out(builder, draft, fired, completion, options.get("pending"), view)


def resume(builder: StepBuilder, draft: JobDraft) -> None:
    """Start the branches of a job that was created in pending mode."""
    if draft.status != PENDING_STATUS:
        return
    trigger = draft.graph.trigger
    view: View = {
        "input": {"data": draft.input},
        "output": {"data": draft.input, "metadata": trigger_metadata(draft.graph, draft.created_at)},
    }
    context = draft.context(trigger, (0,), view, builder.environment)
    try:
        draft.expire = expiry(builder, draft, context)
        fired = fired_edges(trigger.edges, context, 200)
        completion = completion_rule(trigger, context)
    except MappingError as error:
        draft.status = 0
        uncaught(builder, draft, mapping_failure(error))
        complete_if_done(builder, draft, 0)
        return
    draft.status = len(fired)
    follow(builder, draft, (0,), fired, completion)


def _job_id(graph: GraphPlan, request: StartRequest, context: Mapping[Any, Any]) -> str:
    if graph.statistics.id is not None:
        value = graph.statistics.id.evaluate(context)
        if value not in (None, UNDEFINED, ""):
            return column_text(value, "the job id of stats.id", LONGEST_ID, most=None)
    return request.job_id or request.default_id


def _trigger(
    builder: StepBuilder,
    draft: JobDraft,
    given_entity: str | None,
    view: View,
    naming: Mapping[Any, Any],
) -> tuple[list[Edge], CompletionRule]:
    """What the trigger makes of the job's input: key, data, entity, expiry, measures, and where it leads to."""
    graph = draft.graph
    trigger = graph.trigger
    key = graph.statistics.key
    key_value = None if key is None else key.evaluate(naming)
    if key_value not in (None, UNDEFINED, ""):
        draft.key = column_text(key_value, "the job key of stats.key")
    if "$self" in trigger.metadata_of:
        view["output"]["metadata"] = trigger_metadata(graph, draft.created_at)
    context = draft.context(trigger, (0,), view, builder.environment)
    if trigger.job_maps is not None:
        draft.write(trigger.job_maps.evaluate(context), builder.limits.max_payload, trigger.id)
        if trigger.uses_job:
            context = draft.context(trigger, (0,), view, builder.environment)
    fired = fired_edges(trigger.edges, context, 200)
    entity = given_entity if given_entity is not None else scalar(trigger, "entity", context)
    draft.entity = None if entity in (None, UNDEFINED) else column_text(entity, "the entity")
    draft.expire = expiry(builder, draft, context)
    completion = completion_rule(trigger, context)
    if draft.key is not None and graph.statistics.measures:
        _measure(builder, draft, draft.key, naming)
    return fired, completion


def _measure(builder: StepBuilder, draft: JobDraft, key: str, context: Mapping[Any, Any]) -> None:
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
                column_text(value, f"what the trigger counts as {measure} of {facet}", most=None),
                float(number) if math.isfinite(number) else None,
            )
        )
    builder.measures += found


def _set_out(
    builder: StepBuilder,
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
    if builder.trace is not None:
        builder.trace.created(draft, view)
    if pending is not None:
        return
    follow(builder, draft, (0,), fired, completion)


def derived_id(seed: str) -> str:
    """22 url-safe characters that follow from the seed."""
    return urlsafe_b64encode(blake2b(seed.encode(), digest_size=17).digest()).decode()[:22]


def draft_time(generation: str) -> bytes:
    """The six leading bytes of a generation: its time, which keeps a child beside its parent in the indexes."""
    return UUID(generation).bytes[:6]
