"""signal: sends a signal from inside a flow, in the same commit as its own completion, and goes on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hotmesh.core.advance.activities.hook import signal_key, signal_view
from hotmesh.core.column import column_text
from hotmesh.core.definition.grammar import STATUSES
from hotmesh.core.duration import LONGEST_TIME, seconds
from hotmesh.core.mapping import ENVIRONMENT, Environment, to_number, to_text
from hotmesh.core.state.job import ActivityRecord
from hotmesh.core.state.step import Broadcast, Signal
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.enums import Code, MessageStatus
from hotmesh.errors import ConfigError, MappingError, SignalNotFoundError

if TYPE_CHECKING:
    from hotmesh.core.advance.advance import Run
    from hotmesh.core.advance.job_draft import JobDraft
    from hotmesh.core.plan.compile import ActivityPlan, HookPlan, Plan
    from hotmesh.core.state.job import Dimension

LARGEST_CODE = 999_999

KEEP_EARLY = 600.0
"""Seconds that a signal without a waiter is kept, unless its payload says `$expire`."""


def enter(run: Run, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Map, send, close."""
    from hotmesh.core.advance.advance import fired_edges

    context = draft.context(activity, dimension, {"output": {}}, run.environment)
    output = run.maps(activity, "output_maps", context) if "output_maps" in activity.maps else UNDEFINED
    record = ActivityRecord("closed", output, code=200, type="signal", started_at=run.now, ended_at=run.now)
    view = run.self_view(activity, dimension, record)
    context = draft.context(activity, dimension, view, run.environment)
    fired = fired_edges(activity.edges, context, 200)
    writes = [] if activity.job_maps is None else activity.job_maps.evaluate(context)
    before = draft.data, draft.search
    draft.write(writes)
    signal: Signal | Broadcast
    try:
        if writes and activity.uses_job:
            context = draft.context(activity, dimension, view, run.environment)
        if activity.spec.subtype == "all":
            signal = _broadcast(run, activity, context)
        else:
            signal = _signal(run, activity, context)
        completion = run.completion_rule(activity, context)
    except (MappingError, SignalNotFoundError) as error:
        draft.data, draft.search = before
        run.fail(draft, activity, dimension, {"message": str(error), "code": error.code or 500})
        return
    draft.put(activity.id, dimension, record)
    if isinstance(signal, Broadcast):
        run.broadcasts.append(signal)
    else:
        run.signals.append(signal)
    run.settle(draft, activity, dimension, fired, completion)


def make_signal(
    plan: Plan, topic: str, data: Json, status: str, code: int, environment: Environment, *, keep: bool = True
) -> Signal:
    """The signal that a payload on a hook topic amounts to.

    The first rule of the topic computes the key. Raises SignalNotFoundError for a topic without rules, and
    MappingError if the payload has no key. `keep`: whether it is kept when nobody waits.
    """
    rules = plan.hooks.get(topic)
    if not rules:
        raise SignalNotFoundError(topic)
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
    return signal_key(rule.actual.evaluate(context), f"the payload's key for signal topic {rule.topic}")


def _signal(run: Run, activity: ActivityPlan, context: dict[Any, Any]) -> Signal:
    topic = run.value(activity, "topic", context)
    if not isinstance(topic, str) or not topic:
        message = f"the topic of signal {activity.id} resolved to {topic!r}; it must be a non-empty text"
        raise MappingError(message, expression=activity.spec.topic)
    data = run.maps(activity, "signal_maps", context)
    status = run.value(activity, "status", context)
    if status in (None, UNDEFINED, ""):
        status = MessageStatus.SUCCESS.value
    if status not in STATUSES:
        raise MappingError(f"the status of signal {activity.id} resolved to {status!r}")
    code = run.value(activity, "code", context)
    number = float(Code.SUCCESS) if code in (None, UNDEFINED, "") else to_number(code)
    if not math.isfinite(number) or number != int(number) or abs(number) > LARGEST_CODE:
        raise MappingError(f"the code of signal {activity.id} resolved to {code!r}; it must be an integer")
    return make_signal(run.plan, topic, data, status, int(number), run.environment)


def _broadcast(run: Run, activity: ActivityPlan, context: dict[Any, Any]) -> Broadcast:
    topic = activity.spec.topic
    if not isinstance(topic, str) or topic not in run.plan.hooks:
        raise SignalNotFoundError(str(topic))
    name = run.value(activity, "key_name", context)
    value = run.value(activity, "key_value", context)
    if name in (None, UNDEFINED, "") or value in (None, UNDEFINED):
        raise MappingError(
            f"key_name and key_value of signal {activity.id} resolved to {name!r} and {value!r}"
        )
    query = run.maps(activity, "resolver_maps", context)
    if not isinstance(query, dict):
        raise MappingError(
            f"resolver.maps of signal {activity.id} resolved to {query!r}; it must be an object"
        )
    if activity.spec.scrub:
        query = {**query, "scrub": True}
    data = run.maps(activity, "signal_maps", context)
    facet = column_text(f"{to_text(name)}:{to_text(value)}", f"the facet of signal {activity.id}")
    return Broadcast(topic, facet, query, data)
