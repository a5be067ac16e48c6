"""signal: sends a signal from inside a flow, in the same commit as its own completion, and goes on."""

from __future__ import annotations

import math
from typing import Any

from hotmesh.core.advance.activities.hook import signal_key, signal_view
from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.expressions import completion_rule, fired_edges, maps, scalar, self_view
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.outcomes import fail, passed, settle
from hotmesh.core.column import column_text
from hotmesh.core.definition.grammar import STATUSES
from hotmesh.core.duration import LONGEST_TIME, seconds
from hotmesh.core.mapping import ENVIRONMENT, Environment, to_number, to_text
from hotmesh.core.plan.compile import ActivityPlan, HookPlan, Plan
from hotmesh.core.state.job import Dimension
from hotmesh.core.state.step import Broadcast, Signal
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.enums import Code, MessageStatus
from hotmesh.errors import ConfigError, MappingError, SignalNotFoundError

LARGEST_CODE = 999_999

KEEP_EARLY = 600.0
"""Seconds that a signal without a waiter is kept, unless its payload says `$expire`."""


def enter(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Map, send, close."""
    context = draft.context(activity, dimension, {"output": {}}, builder.environment)
    most = builder.limits.max_payload
    output = maps(activity, "output_maps", context, most) if "output_maps" in activity.maps else UNDEFINED
    record = passed(builder, activity, output)
    view = self_view(activity, dimension, record, builder.now)
    context = draft.context(activity, dimension, view, builder.environment)
    fired = fired_edges(activity.edges, context, 200)
    writes = [] if activity.job_maps is None else activity.job_maps.evaluate(context)
    before = draft.data, draft.search
    draft.write(writes, most, activity.id)
    signal: Signal | Broadcast
    try:
        if writes and activity.uses_job:
            context = draft.context(activity, dimension, view, builder.environment)
        if activity.spec.subtype == "all":
            signal = _broadcast(builder, activity, context)
        else:
            signal = _signal(builder, activity, context)
        completion = completion_rule(activity, context)
    except (MappingError, SignalNotFoundError) as error:
        draft.data, draft.search = before
        fail(builder, draft, activity, dimension, {"message": str(error), "code": error.code or 500})
        return
    draft.put(activity.id, dimension, record)
    if isinstance(signal, Broadcast):
        builder.broadcasts.append(signal)
    else:
        builder.signals.append(signal)
    settle(builder, draft, activity, dimension, fired, completion)


def make_signal(
    plan: Plan, topic: str, data: Json, status: str, code: int, environment: Environment, *, keep: bool = True
) -> Signal:
    """The signal that a payload on a hook topic amounts to.

    The first rule of the topic computes the key. Raises SignalNotFoundError for a topic without rules, and
    MappingError if the payload has no key. `keep`: whether it is kept when nobody waits.
    """
    rules = plan.hooks.get(topic)
    if not rules:
        raise SignalNotFoundError(topic, plan.app_id, plan.hooks)
    key = key_by(rules[0], data, environment)
    return Signal(topic, key, data, status, code, lifetime(topic, data) if keep else None)


def lifetime(topic: str, data: Json) -> float:
    """Seconds that a signal without a waiter is kept. Raises MappingError for an `$expire` that is no duration."""
    if not isinstance(data, dict) or data.get("$expire") is None:
        return KEEP_EARLY
    try:
        return min(seconds(data["$expire"], name="$expire"), LONGEST_TIME)
    except ConfigError as error:
        raise MappingError(f"signal on {topic}: {error}", expression=data["$expire"]) from error


def key_by(rule: HookPlan, data: Json, environment: Environment) -> str:
    """The key of a payload by one rule. Raises MappingError if it has none."""
    context = {**signal_view(data, rule.to), ENVIRONMENT: environment}
    value = rule.actual.evaluate(context)
    if value is None or value is UNDEFINED:
        has = f"has: {', '.join(map(str, data)) or 'nothing'}" if isinstance(data, dict) else "is no object"
        raise MappingError(
            f"the signal on {rule.topic} finds its job by {rule.actual.source}, which resolved to nothing: the payload {has}",
            expression=rule.actual.source,
        )
    return signal_key(value, f"the payload's key for signal topic {rule.topic}")


def _signal(builder: StepBuilder, activity: ActivityPlan, context: dict[Any, Any]) -> Signal:
    topic = scalar(activity, "topic", context)
    if not isinstance(topic, str) or not topic:
        message = f"the topic of signal {activity.id} resolved to {topic!r}; it must be a non-empty text"
        raise MappingError(message, expression=activity.spec.topic)
    data = maps(activity, "signal_maps", context, builder.limits.max_payload)
    status = scalar(activity, "status", context)
    if status in (None, UNDEFINED, ""):
        status = MessageStatus.SUCCESS.value
    if status not in STATUSES:
        raise MappingError(f"the status of signal {activity.id} resolved to {status!r}")
    code = scalar(activity, "code", context)
    number = float(Code.SUCCESS) if code in (None, UNDEFINED, "") else to_number(code)
    if not math.isfinite(number) or number != int(number) or abs(number) > LARGEST_CODE:
        raise MappingError(f"the code of signal {activity.id} resolved to {code!r}; it must be an integer")
    return make_signal(builder.plan, topic, data, status, int(number), builder.environment)


def _broadcast(builder: StepBuilder, activity: ActivityPlan, context: dict[Any, Any]) -> Broadcast:
    topic = activity.spec.topic
    if not isinstance(topic, str) or topic not in builder.plan.hooks:
        raise SignalNotFoundError(str(topic), builder.plan.app_id, builder.plan.hooks)
    name = scalar(activity, "key_name", context)
    value = scalar(activity, "key_value", context)
    if name in (None, UNDEFINED, "") or value in (None, UNDEFINED):
        raise MappingError(
            f"key_name and key_value of signal {activity.id} resolved to {name!r} and {value!r}"
        )
    query = maps(activity, "resolver_maps", context, builder.limits.max_payload)
    if not isinstance(query, dict):
        raise MappingError(
            f"resolver.maps of signal {activity.id} resolved to {query!r}; it must be an object"
        )
    if activity.spec.scrub:
        query = {**query, "scrub": True}
    data = maps(activity, "signal_maps", context, builder.limits.max_payload)
    facet = column_text(f"{to_text(name)}:{to_text(value)}", f"the facet of signal {activity.id}", most=None)
    return Broadcast(topic, facet, query, data)
