"""What is done on a connection of the caller's, in whatever transaction he has open there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hotmesh.core.values import Json
from hotmesh.core.wire import dumps_text
from hotmesh.postgres.connect.caller import fetch_row
from hotmesh.postgres.database import Database


async def try_start_job(
    database: Database,
    connection: Any,
    epoch: int | None,
    topic: str,
    data: Json,
    job_id: str,
    *,
    entity: str | None,
    search: Mapping[str, Any] | None,
    pending: float | None,
    trace_id: str | None,
    span_id: str | None,
) -> tuple[str, str]:
    """Create a job on a connection of the caller's, of any driver that `fetch_row` knows.

    What became of it (started, duplicate, stale, app: there is none, topic: nothing is started by it), and the active
    version. `epoch`: under which the job was checked; None: whichever it is.
    """
    arguments = (
        database.app_id,
        topic,
        database.payload.dumps(data),
        job_id,
        entity,
        None if search is None else dumps_text(search),
        pending,
        trace_id,
        span_id,
        epoch,
    )
    outcome, version = await fetch_row(connection, database.query("try_start_job"), _START, arguments)
    return str(outcome), str(version)


_START: Final = ("text", "text", "text", "text", "text", "text", "double precision", "text", "text", "bigint")
"""The types of try_start_job's arguments."""
