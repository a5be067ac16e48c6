"""What operators do to jobs and dead letters, as calls: each is one statement, most of them one stored function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hotmesh.core.state.job import Dimension
from hotmesh.postgres import sql
from hotmesh.postgres.store import Store


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """What requeueing has to know about a dead letter; `seq` and `status` are those of its job, if it has one."""

    stream: str
    job_id: str
    activity_id: str
    dimension: Dimension
    seq: int | None
    status: int | None


async def cancel_job(store: Store, job_id: str) -> None:
    async with store.connection() as connection:
        await connection.execute(_query(store, "cancel_job"), store.app_id, job_id)


async def forget_job(store: Store, job_id: str, generation: str) -> bool:
    """Remove a job that has ended, unless its id has been used again since; whether there was one."""
    row = await _row(store, "forget_job", store.app_id, job_id, generation)
    return bool(row["count"])


async def forget_ended_jobs(store: Store) -> int:
    """Remove the jobs of the app that have ended, but for those of unfinished runs; how many there were."""
    row = await _row(store, "forget_ended_jobs", store.app_id)
    return int(row["count"])


async def scrub_job(store: Store, job_id: str) -> list[dict[str, Any]]:
    """Remove the job if there is one; its work items that were cancelled by that."""
    async with store.connection() as connection, connection.transaction():
        found = await connection.fetchval(store.bound("select mesh.scrub_job($1, $2)"), store.app_id, job_id)
        return await store.cancelled_here(connection, job_id) if found else []


async def find_dead_letter(store: Store, dead_letter_id: int) -> FoundLetter | None:
    row = await _row(store, "find_dead_letter", store.app_id, dead_letter_id)
    if row is None:
        return None
    return FoundLetter(
        row["stream"], row["job_id"], row["activity_id"], tuple(row["dimension"]), row["seq"], row["status"]
    )


async def requeue_dead_letter(
    store: Store,
    dead_letter_id: int,
    seq: int | None,
    *,
    reopen: bool,
    error: str | None,
    open_: str | None,
    wake: str,
) -> str:
    """requeued, missing, changed, ended or closed; see the function's own comment."""
    async with store.connection() as connection:
        return str(
            await connection.fetchval(
                store.bound("select mesh.requeue_dead_letter($1, $2, $3, $4, $5, $6, $7)"),
                store.app_id,
                dead_letter_id,
                seq,
                reopen,
                error,
                open_,
                wake,
            )
        )


async def discard_dead_letter(store: Store, dead_letter_id: int) -> bool:
    """Whether there was one of this id."""
    return await _row(store, "discard_dead_letter", store.app_id, dead_letter_id) is not None


async def _row(store: Store, query: str, *arguments: object) -> Any:
    async with store.connection() as connection:
        return await connection.fetchrow(_query(store, query), *arguments)


def _query(store: Store, name: str) -> str:
    return store.bound(sql.read("queries")[name])
