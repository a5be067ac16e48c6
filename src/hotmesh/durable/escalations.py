"""The work item for a person that a wait puts into the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Self

from hotmesh.core.arguments import checked_mapping, checked_text
from hotmesh.core.column import column_json
from hotmesh.core.duration import Duration
from hotmesh.core.lengths import LONGEST_ID, LONGEST_NAME
from hotmesh.durable.convert import Converter
from hotmesh.errors import ConfigError, MappingError
from hotmesh.nearest import nearest

_TEXTS: Final = (
    "role", "type", "subtype", "entity", "description", "task_queue", "workflow_type", "origin_id", "parent_id",
    "initiated_by", "trace_id", "span_id",
)  # fmt: skip
_SHORT: Final = {
    "role": LONGEST_NAME,
    "entity": LONGEST_NAME,
    "origin_id": LONGEST_ID,
    "task_queue": LONGEST_NAME,
}
"""Bytes of those that items are found by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """A work item: `workflow.condition("approve o-1", escalation=Escalation(role="boss"))`; a dict with these names will do."""

    role: str | None = None
    """Whose work it is."""
    type: str | None = None
    subtype: str | None = None
    entity: str | None = None
    """What it is about."""
    priority: int = 5
    """1 is the most urgent."""
    description: str | None = None
    metadata: Mapping[str, Any] | None = None
    """Facts to find it by."""
    envelope: Any = None
    """What a form shows; nobody searches in it."""
    expires_at: datetime | None = None
    """Is shown, and does nothing."""
    timeout: Duration | None = None
    """How long the workflow waits; the item is expired then."""
    task_queue: str | None = None
    workflow_type: str | None = None
    origin_id: str | None = None
    parent_id: str | None = None
    initiated_by: str | None = None
    trace_id: str | None = None
    span_id: str | None = None

    @classmethod
    def read(cls, given: Escalation | Mapping[str, Any], what: str) -> Self:
        """Checked. Raises ConfigError for a name that there is not, or a value that cannot be used."""
        if isinstance(given, cls):
            found: Self = given
        else:
            known = [field.name for field in fields(cls)]
            members = checked_mapping(given, what)
            for name in members:
                if name not in known:
                    near = nearest(name, known)
                    raise ConfigError(f"{what} has no {name}" + (f"; did you mean {near}?" if near else ""))
            found = cls(**members)
        found._check(what)
        return found

    def _check(self, what: str) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None:
                checked_text(value, f"{name} of {what}", _SHORT.get(name))
        if (
            isinstance(self.priority, bool)
            or not isinstance(self.priority, int)
            or abs(self.priority) >= 2**31
        ):
            raise ConfigError(f"priority of {what} must be an integer, not {self.priority!r}")
        if self.expires_at is not None and (
            not isinstance(self.expires_at, datetime) or self.expires_at.tzinfo is None
        ):
            raise ConfigError(
                f"expires_at of {what} must be a datetime with a time zone, not {self.expires_at!r}"
            )

    def fields(self, converter: Converter) -> dict[str, Any]:
        """The columns of its row. Raises PayloadError for what is no plain data."""
        found: dict[str, Any] = {name: value for name in _TEXTS if (value := getattr(self, name)) is not None}
        found["priority"] = self.priority
        for name in ("metadata", "envelope"):
            value = getattr(self, name)
            if value is not None:
                what = f"{name} of an escalation"
                try:
                    found[name] = column_json(converter.shape(Any, what).to_json(value), what)
                except MappingError as error:
                    raise ConfigError(str(error)) from error
        if self.expires_at is not None:
            found["expires_at"] = self.expires_at.isoformat()
        return found
