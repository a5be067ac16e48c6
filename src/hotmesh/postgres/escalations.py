"""Work items for people: their rows, and which of them a transaction has written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypedDict

from hotmesh.core.codec import Payload
from hotmesh.core.column import without_nul
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import CodecError
from hotmesh.postgres.database import Connection, Database


class EscalationRow(TypedDict):
    """A row of escalation as JSON has it: times as texts, ids too.

    `envelope`, `escalation_payload` and `resolver_payload` are user values: encoded if they cannot be decoded here.
    """

    id: str
    namespace: str
    app_id: str
    signal_key: str | None
    topic: str | None
    workflow_id: str | None
    task_queue: str | None
    workflow_type: str | None
    type: str | None
    subtype: str | None
    entity: str | None
    description: str | None
    role: str | None
    status: str
    """pending, resolved, expired or cancelled."""
    priority: int
    assigned_to: str | None
    assigned_until: str | None
    claimed_at: str | None
    claim_expires_at: str | None
    resolved_at: str | None
    escalation_payload: Json
    resolver_payload: Json
    envelope: Json
    metadata: Json
    origin_id: str | None
    parent_id: str | None
    initiated_by: str | None
    created_by: str | None
    milestones: Json
    trace_id: str | None
    span_id: str | None
    expires_at: str | None
    created_at: str
    updated_at: str
    task_id: str | None


ENCODED: Final = ("envelope", "escalation_payload", "resolver_payload")
"""The columns with user values."""


def escalation_from(text: str, payload: Payload) -> EscalationRow:
    """A row as the queries here give it, as JSON; what is encoded and cannot be decoded stays as it is."""
    found: Any = loads(text)
    for name in ENCODED:
        with suppress(CodecError):
            found[name] = payload.reveal(found[name])
    row: EscalationRow = found
    return row


async def written_at(
    database: Database, connection: Connection, job_ids: Sequence[str], moment: datetime | None
) -> dict[str, list[EscalationRow]]:
    """By job, the work items of these jobs that were written by the commit of this moment; in order of creation."""
    rows = await connection.fetch(database.query("written_escalations"), database.app_id, job_ids, moment)
    payload = database.payload
    found: dict[str, list[EscalationRow]] = {}
    for row in rows:
        found.setdefault(row["workflow_id"], []).append(escalation_from(row["row"], payload))
    return found


async def cancelled_here(database: Database, connection: Connection, job_id: str) -> list[EscalationRow]:
    """The job's work items that the current transaction has cancelled."""
    rows = await connection.fetch(database.query("cancelled_escalations"), database.app_id, job_id)
    payload = database.payload
    return [escalation_from(row["row"], payload) for row in rows]


async def found(database: Database, *filters: object) -> list[EscalationRow]:
    """Work items by id, key, status, role, type, subtype and workflow, each None for any; at most so many, the last filter."""
    async with database.connection() as connection:
        rows = await connection.fetch(database.query("escalations"), database.app_id, *filters)
    return [escalation_from(row["row"], database.payload) for row in rows]


async def settle(
    database: Database, id_: str, status: str, payload: Json, keep: float, wake: str
) -> tuple[str, EscalationRow | None]:
    """Resolve or cancel a work item, and wake who waits; what became of it, and its row, if there is one."""
    stored = dumps_text(database.payload.conceal(without_nul(payload))) if status == "resolved" else None
    async with database.connection() as connection:
        row = await connection.fetchrow(
            database.query("settle_escalation"),
            database.app_id,
            id_,
            status,
            stored,
            database.payload.dumps(payload),
            keep,
            wake,
        )
    if row is None:
        raise AssertionError("settle_escalation answers with one row")
    return row["outcome"], None if row["entry"] is None else escalation_from(row["entry"], database.payload)
