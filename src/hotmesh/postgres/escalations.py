"""Work items for people: their rows, and which of them a transaction has written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypedDict

from hotmesh.core.codec import Payload
from hotmesh.core.values import Json
from hotmesh.core.wire import loads
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
