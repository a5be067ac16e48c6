"""Reads jobs: with what a step needs of them, and as those see them who ask for one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hotmesh.core.state.job import ActivityRecord, Dimension, Job
from hotmesh.core.state.step import WorkKey
from hotmesh.postgres.arrays import columns
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.rows import job_from, records_from


async def load_jobs(database: Database, connection: Connection, job_ids: Collection[str]) -> dict[str, Job]:
    """Jobs by generation, without records."""
    rows = await connection.fetch(database.query("load_jobs"), database.app_id, list(job_ids))
    payload = database.payload
    return {str(row["generation"]): job_from(row, payload) for row in rows}


async def load_records(
    database: Database, connection: Connection, wanted: Sequence[WorkKey]
) -> dict[str, dict[str, dict[Dimension, ActivityRecord]]]:
    """Records by generation, activity and address, for (generation, activity, address) each."""
    if not wanted:
        return {}
    rows = await connection.fetch(database.query("load_records"), *columns(wanted))
    return records_from(rows, database.payload)


async def load_job(database: Database, job_id: str) -> Job | None:
    """A job whose time is not over, without records."""
    rows = await database.rows("live_job", database.app_id, job_id)
    return job_from(rows[0], database.payload) if rows else None


async def load_status(database: Database, job_id: str, generation: str | None = None) -> int | None:
    """The status of a job whose time is not over; of that generation, if one is given."""
    rows = await database.rows("live_job_status", database.app_id, job_id, generation)
    return int(rows[0]["status"]) if rows else None
