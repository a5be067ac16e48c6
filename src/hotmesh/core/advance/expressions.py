"""What an activity's expressions say in a context: scalars, map trees, transitions, and what it does about its job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from hotmesh.core.advance.job_draft import View, record_view
from hotmesh.core.column import check_size, size_of
from hotmesh.core.duration import LONGEST_TIME, seconds
from hotmesh.core.mapping import to_json_value, to_number
from hotmesh.core.plan.compile import ActivityPlan, Edge
from hotmesh.core.state.job import ActivityRecord, Dimension
from hotmesh.core.values import UNDEFINED, Json
from hotmesh.errors import ConfigError, MappingError


class CompletionRule(Struct, frozen=True):
    """What an activity does about the rest of its job once its own part is done."""

    emit: bool = False
    persist: bool = False
    threshold: int = 0
    """The job is complete when no more than this many obligations are open."""


ALL_DONE: Final = CompletionRule()


def scalar(activity: ActivityPlan, name: str, context: Mapping[Any, Any]) -> Any:
    """One of the activity's scalar expressions, or UNDEFINED if it has none of this name."""
    compiled = activity.expressions.get(name)
    return UNDEFINED if compiled is None else compiled.evaluate(context)


def maps(
    activity: ActivityPlan, name: str, context: Mapping[Any, Any], max_payload: int | None = None
) -> Json:
    """One of the activity's map trees as JSON, `{}` if it has none of this name.

    Raises MappingError for more than `max_payload` bytes.
    """
    compiled = activity.maps.get(name)
    if compiled is None:
        return {}
    value = to_json_value(compiled.evaluate(context))
    if value is UNDEFINED:
        return {}
    if max_payload is not None:
        check_size(size_of(value), max_payload, f"{_MADE[name]} of {activity.type} {activity.id}")
    return value


_MADE: Final = {
    "input_maps": "the input", "output_maps": "the output", "signal_maps": "the signal", "resolver_maps": "the resolver",
}  # fmt: skip
"""What becomes of the maps of an activity, in the words of an error."""


def fired_edges(edges: Sequence[Edge], context: Mapping[Any, Any], code: int) -> list[Edge]:
    """The transitions that an outcome takes; each is decided on its own."""
    return [edge for edge in edges if edge.condition is None or edge.condition.evaluate(context, code)]


def completion_rule(activity: ActivityPlan, context: Mapping[Any, Any]) -> CompletionRule:
    """Whether the activity says `emit` and `persist` (only exactly true counts), and its `statusThreshold`."""
    if not activity.announces:
        return ALL_DONE
    return CompletionRule(
        scalar(activity, "emit", context) is True,
        scalar(activity, "persist", context) is True,
        threshold(activity, context),
    )


def threshold(activity: ActivityPlan, context: Mapping[Any, Any]) -> int:
    """The activity's `statusThreshold`; 0 for one that has none or is no number above 0."""
    compiled = activity.expressions.get("status_threshold")
    if compiled is None:
        return 0
    number = to_number(compiled.evaluate(context))
    return int(number) if math.isfinite(number) and number > 0 else 0


def computed_seconds(value: Any, what: str) -> float | None:
    """The seconds that a `sleep` or an `expire` has come to; None for nothing (null, empty text, false).

    A number, a number as text, or a duration as text (`2 seconds`, `5m`); raises MappingError for anything else.
    """
    if value is UNDEFINED or value is None or value is False or value == "":
        return None
    if isinstance(value, int | float | str) and value is not True:
        number = to_number(value)
        if math.isfinite(number):
            return min(float(number), LONGEST_TIME)
        if isinstance(value, str):
            with suppress(ConfigError):
                return min(seconds(value), LONGEST_TIME)
    shown = repr(value) if isinstance(value, str | int | float) else f"a value of type {type(value).__name__}"
    raise MappingError(
        f"{what} came to {shown[:100]}, which is no duration; it is a number of seconds, or text such as '5 minutes'"
    )


def self_view(activity: ActivityPlan, dimension: Dimension, record: ActivityRecord, now: datetime) -> View:
    """A record as the activity's own expressions see it; the metadata only if they read it."""
    return record_view(record, activity, dimension, now if "$self" in activity.metadata_of else None)


def mapping_failure(error: MappingError) -> dict[str, Any]:
    """A mapping error as the error object of an activity."""
    return {"message": str(error), "code": 500}
