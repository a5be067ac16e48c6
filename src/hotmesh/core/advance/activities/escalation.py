"""The `escalation` block of a hook: a work item for a human, in the same commit as the wait."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.column import column_json, column_text
from hotmesh.core.lengths import LONGEST_ID, LONGEST_NAME
from hotmesh.core.mapping import to_json_value, to_number
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import Dimension
from hotmesh.core.state.step import Escalation
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.errors import MappingError

_TEXTS: Final = {
    "role": "role", "type": "type", "subtype": "subtype", "description": "description", "entity": "entity",
    "originId": "origin_id", "parentId": "parent_id", "initiatedBy": "initiated_by", "traceId": "trace_id",
    "spanId": "span_id", "taskQueue": "task_queue", "workflowType": "workflow_type",
}  # fmt: skip

_BYTES: Final = {
    "role": LONGEST_NAME, "entity": LONGEST_NAME, "originId": LONGEST_ID, "taskQueue": LONGEST_NAME,
}  # fmt: skip
"""Of those that work items are found by."""


def escalation(
    draft: JobDraft, activity: ActivityPlan, dimension: Dimension, context: Mapping[Any, Any], key: str
) -> Escalation | None:
    """The work item, or None when role, type, priority and metadata all resolve to nothing."""
    values = {name: compiled.evaluate(context) for name, compiled in (activity.escalation or {}).items()}
    fields: dict[str, Json] = {
        column: column_text(values[name], f"escalation.{name} of hook {activity.id}", most=_BYTES.get(name))
        for name, column in _TEXTS.items()
        if values.get(name, UNDEFINED) not in _NOTHING
    }
    for name in ("metadata", "envelope"):
        value = to_json_value(values.get(name, UNDEFINED))
        if value not in _NOTHING:
            fields[name] = column_json(value, f"escalation.{name} of hook {activity.id}")
    if values.get("priority", UNDEFINED) not in _NOTHING:
        fields["priority"] = _priority(values["priority"], activity)
    if not fields.keys() & {"role", "type", "priority", "metadata"}:
        return None
    if values.get("expiresAt", UNDEFINED) not in _NOTHING:
        fields["expires_at"] = _moment(values["expiresAt"], activity)
    fields.setdefault("trace_id", draft.trace_id)
    fields |= {"signal_key": key, "topic": activity.hook.topic if activity.hook is not None else None}
    return Escalation(draft.job_id, draft.generation, activity.id, dimension, fields)


_NOTHING: Final = (None, UNDEFINED)


def _priority(value: Any, activity: ActivityPlan) -> int:
    number = to_number(value)
    if number != number or number != int(number) or not -(2**31) <= number < 2**31:
        raise MappingError(
            f"escalation.priority of hook {activity.id} resolved to {value!r}; it must be an integer"
        )
    return int(number)


def _moment(value: Any, activity: ActivityPlan) -> str:
    text = to_json_value(value)
    try:
        if isinstance(text, int | float) and not isinstance(text, bool):
            return datetime.fromtimestamp(text / 1000, UTC).isoformat()
        return datetime.fromisoformat(str(text)).isoformat()
    except (TypeError, ValueError, OverflowError) as error:
        message = f"escalation.expiresAt of hook {activity.id} resolved to {value!r}; it must be an ISO date"
        raise MappingError(message) from error
