"""`client.escalations`: the work items that workflows wait for, as who decides about them sees them."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from hotmesh.core.values import Json
from hotmesh.durable.convert import Converter
from hotmesh.durable_errors import EscalationError
from hotmesh.errors import ConfigError
from hotmesh.postgres.escalations import EscalationRow
from hotmesh.runtime.functions import Functions

ItemStatus = Literal["pending", "resolved", "cancelled", "expired"]

_STATUSES: Final = ("pending", "resolved", "cancelled", "expired")

LONGEST_LIST: Final = 1_000


@dataclass(frozen=True, slots=True)
class EscalationEntry:
    """A work item as it is now. `signal_key`: the id of the signal that its workflow waits for."""

    id: str
    status: ItemStatus
    signal_key: str | None
    workflow_id: str | None
    workflow_type: str | None
    task_queue: str | None
    role: str | None
    type: str | None
    subtype: str | None
    entity: str | None
    description: str | None
    priority: int
    metadata: Any
    envelope: Any
    resolver_payload: Any
    created_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class SettleResult:
    """What `resolve` or `cancel` has come to. `reason`: why it was not done."""

    ok: bool
    entry: EscalationEntry | None
    reason: str | None = None
    """`not-found`, `already-resolved`, `already-cancelled`, `already-expired`."""

    def raise_for_reason(self) -> EscalationEntry:
        """The item; raises EscalationError if it was not done."""
        if not self.ok or self.entry is None:
            raise EscalationError(self.reason or "not-found", None if self.entry is None else self.entry.id)
        return self.entry


class Escalations:
    """Work items of the workflows of a namespace: to be found, resolved, or cancelled.

    for item in await client.escalations.list(role="boss"):
        await client.escalations.resolve(item.id, {"approved": True})
    """

    def __init__(self, functions: Callable[[], Awaitable[Functions]], converter: Converter) -> None:
        self._functions = functions
        self._converter = converter

    async def list(
        self,
        *,
        status: ItemStatus | None = None,
        role: str | None = None,
        type: str | None = None,  # noqa: A002 - the name that the column has
        subtype: str | None = None,
        workflow_id: str | None = None,
        limit: int = 50,
    ) -> list[EscalationEntry]:
        """Items that have all of these; the most urgent first, of those the newest. At most `limit`, up to 1,000."""
        if status is not None and status not in _STATUSES:
            raise ConfigError(f"status of escalations.list is one of {', '.join(_STATUSES)}, not {status!r}")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= LONGEST_LIST:
            raise ConfigError(
                f"limit of escalations.list is a number from 1 to {LONGEST_LIST}, not {limit!r}"
            )
        rows = await (await self._functions()).work_items(
            None, None, status, role, type, subtype, workflow_id, limit
        )
        return [_entry(row) for row in rows]

    async def get(self, id: str) -> EscalationEntry | None:  # noqa: A002 - the name that the column has
        """An item by its id; None if there is none."""
        if not _is_id(id):
            return None
        return _first(await (await self._functions()).work_items(id, None, None, None, None, None, None, 1))

    async def get_by_signal_key(self, signal_key: str) -> EscalationEntry | None:
        """The item of a signal id: the pending one, else the newest; None if there is none."""
        functions = await self._functions()
        rows = await functions.work_items(None, signal_key, "pending", None, None, None, None, 1)
        if not rows:
            rows = await functions.work_items(None, signal_key, None, None, None, None, None, LONGEST_LIST)
            rows = sorted(rows, key=lambda row: row["created_at"], reverse=True)
        return _first(rows)

    async def resolve(self, id: str, resolver_payload: Any = None) -> SettleResult:  # noqa: A002
        """Decide about an item: its workflow goes on with the payload ({} if there is none), in the same transaction.

        Of several who do so at once one succeeds; `reason` tells the others. Raises PayloadError.
        """
        shape = self._converter.shape(Any, "resolver_payload of escalations.resolve")
        payload = {} if resolver_payload is None else shape.to_json(resolver_payload)
        return await self._settle(id, "resolved", payload)

    async def cancel(self, id: str) -> SettleResult:  # noqa: A002 - the name that the column has
        """Take an item back: `workflow.condition` of its workflow is None, in the same transaction."""
        return await self._settle(id, "cancelled", None)

    async def _settle(self, id: str, status: Literal["resolved", "cancelled"], payload: Json) -> SettleResult:  # noqa: A002
        if not _is_id(id):
            return SettleResult(False, None, "not-found")
        outcome, row = await (await self._functions()).settle_work_item(id, status, payload)
        entry = None if row is None else _entry(row)
        return SettleResult(True, entry) if outcome == "ok" else SettleResult(False, entry, outcome)


def _is_id(given: str) -> bool:
    try:
        uuid.UUID(given)
    except (ValueError, AttributeError, TypeError):
        return False
    return True


def _first(rows: list[EscalationRow]) -> EscalationEntry | None:
    return _entry(rows[0]) if rows else None


def _entry(row: EscalationRow) -> EscalationEntry:
    status: Any = row["status"]
    return EscalationEntry(
        row["id"],
        status,
        row["signal_key"],
        row["workflow_id"],
        row["workflow_type"],
        row["task_queue"],
        row["role"],
        row["type"],
        row["subtype"],
        row["entity"],
        row["description"],
        row["priority"],
        row["metadata"],
        row["envelope"],
        row["resolver_payload"],
        datetime.fromisoformat(row["created_at"]),
        None if row["resolved_at"] is None else datetime.fromisoformat(row["resolved_at"]),
    )
