"""What operators do to jobs and dead letters, as calls: each is one statement, most of them one stored function."""

from __future__ import annotations

from dataclasses import dataclass

from hotmesh.core.state.job import Dimension
from hotmesh.postgres import escalations
from hotmesh.postgres.database import Database
from hotmesh.postgres.escalations import EscalationRow


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """What requeueing has to know about a dead letter; `seq` and `status` are those of its job, if it has one."""

    stream: str
    job_id: str
    activity_id: str
    dimension: Dimension
    seq: int | None
    status: int | None


async def cancel_job(database: Database, job_id: str) -> None:
    """Mark a job as cancelled; it runs on."""
    await database.value("cancel_job", database.app_id, job_id)


async def forget_job(database: Database, job_id: str, generation: str) -> bool:
    """Remove a job that has ended, unless its id has been used again since; whether there was one."""
    return bool(await database.value("forget_job", database.app_id, job_id, generation))


async def forget_ended_jobs(database: Database) -> int:
    """Remove the jobs of the app that have ended, but for those of unfinished runs; how many there were."""
    return int(await database.value("forget_ended_jobs", database.app_id))


async def scrub_job(database: Database, job_id: str) -> list[EscalationRow]:
    """Remove the job if there is one; its work items that were cancelled by that."""
    async with database.connection() as connection, connection.transaction():
        found = await connection.fetchval(database.query("scrub_job"), database.app_id, job_id)
        return await escalations.cancelled_here(database, connection, job_id) if found else []


async def find_dead_letter(database: Database, dead_letter_id: int) -> FoundLetter | None:
    async with database.connection() as connection:
        row = await connection.fetchrow(database.query("find_dead_letter"), database.app_id, dead_letter_id)
    if row is None:
        return None
    return FoundLetter(
        row["stream"], row["job_id"], row["activity_id"], tuple(row["dimension"]), row["seq"], row["status"]
    )


async def requeue_dead_letter(
    database: Database,
    dead_letter_id: int,
    seq: int | None,
    *,
    reopen: bool,
    error: str | None,
    open_: str | None,
    wake: str,
) -> str:
    """requeued, missing, changed, ended or closed; see the function's own comment."""
    return str(
        await database.value(
            "requeue_dead_letter", database.app_id, dead_letter_id, seq, reopen, error, open_, wake
        )
    )


async def discard_dead_letter(database: Database, dead_letter_id: int) -> bool:
    """Whether there was one of this id."""
    return await database.value("discard_dead_letter", database.app_id, dead_letter_id) is not None
