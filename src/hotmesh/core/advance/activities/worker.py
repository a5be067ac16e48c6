"""worker: sends its mapped input to a topic and waits for the answer."""

from __future__ import annotations

import math
from typing import Any

from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.expressions import maps, scalar
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.outcomes import waiting
from hotmesh.core.column import column_text
from hotmesh.core.duration import seconds
from hotmesh.core.lengths import LONGEST_TOPIC
from hotmesh.core.mapping import to_number
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import Dimension
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.state.step import Work
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import ConfigError, MappingError


def enter(builder: StepBuilder, draft: JobDraft, activity: ActivityPlan, dimension: Dimension) -> None:
    """Queue one message for the workers; the obligation stays open until its answer."""
    context = draft.context(activity, dimension, {"output": {}}, builder.environment)
    topic = scalar(activity, "topic", context)
    if not isinstance(topic, str) or not topic:
        message = f"the topic of worker {activity.id} resolved to {topic!r}; it must be a non-empty text"
        raise MappingError(message, expression=activity.spec.topic)
    topic = column_text(topic, f"the topic of worker {activity.id}", most=LONGEST_TOPIC)
    data = maps(activity, "input_maps", context, builder.limits.max_payload)
    policy = activity.spec.retry_policy
    name = None
    if isinstance(data, dict) and not _RESERVED.isdisjoint(data):
        policy = _policy_from(data, activity) or policy
        name = data.get("workflowName")
    if activity.records_entry:
        draft.put(activity.id, dimension, waiting(builder, activity))
    builder.work.append(
        Work(
            draft.job_id,
            draft.generation,
            activity.id,
            dimension,
            topic,
            data,
            _workflow_name(draft.graph.topic, topic)
            if name in (None, "")
            else column_text(name, f"the workflow name of worker {activity.id}"),
            {code: list(rule) for code, rule in activity.spec.retry.items()} if activity.spec.retry else None,
            policy,
            draft.trace_id,
            draft.span_id if builder.trace is None else builder.trace.waiting(draft, activity, dimension),
        )
    )


_RESERVED = frozenset(
    {"maximumAttempts", "backoffCoefficient", "maximumInterval", "initialInterval", "workflowName"}
)


def _workflow_name(subscribes: str, topic: str) -> str:
    """The name workers dispatch by: the graph's topic, without the worker's own topic in front."""
    prefix = f"{topic}-"
    return (
        subscribes[len(prefix) :]
        if subscribes.startswith(prefix) and len(subscribes) > len(prefix)
        else subscribes
    )


def _policy_from(data: dict[str, Any], activity: ActivityPlan) -> RetryPolicy | None:
    """A retry policy out of reserved input names; there `maximumAttempts` counts the retries, not the tries."""
    if not (_RESERVED - {"workflowName"}).intersection(data):
        return None
    default = RetryPolicy()

    def number(name: str, otherwise: float) -> float:
        value = data.get(name)
        if value is None or value is UNDEFINED:
            return otherwise
        try:
            found = seconds(value, name=name) if isinstance(value, str) else to_number(value)
        except ConfigError as error:
            raise MappingError(f"input of worker {activity.id}: {error}", expression=value) from error
        return float(found) if math.isfinite(found) else otherwise

    return RetryPolicy(
        maximum_attempts=int(min(max(number("maximumAttempts", default.maximum_attempts - 1), 0), 1e9)) + 1,
        backoff_coefficient=number("backoffCoefficient", default.backoff_coefficient),
        maximum_interval=max(number("maximumInterval", default.maximum_interval), 0.0),
        initial_interval=max(number("initialInterval", default.initial_interval), 0.0),
    )
