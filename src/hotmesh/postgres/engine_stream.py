"""What waits for engines: messages for jobs, and timers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from hotmesh.core.codec import OPAQUE, Payload
from hotmesh.core.state.job import Job
from hotmesh.errors import CodecError
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.rows import DueEvent, Next, events_from, job_from, next_from


class DueJob:
    """A job locked in the current transaction, with the events that are due, the first of them since `due_at`.

    One that cannot be decoded here has none, and `unreadable` says why.
    """

    __slots__ = ("due_at", "events", "job", "unreadable")

    def __init__(
        self,
        job: Job,
        events: list[DueEvent],
        due_at: datetime | None,
        unreadable: CodecError | None = None,
    ) -> None:
        self.job = job
        self.events = events
        self.due_at = due_at
        self.unreadable = unreadable


async def next_event_at(
    database: Database, connection: Connection, since: datetime | None = None, within: float | None = None
) -> tuple[Next, bool]:
    """When the next message or timer is due, if that is within so many seconds, and whether there are broadcasts to carry out."""
    row = await connection.fetchrow(database.query("next_event_at"), database.app_id, since, within)
    return next_from(row), row is not None and row["broadcasts"]


class Taken(NamedTuple):
    """A job of which something is due, and how often that has been taken while engines died."""

    job_id: str
    generation: str
    times: int


async def note_deaths(database: Database, connection: Connection) -> bool:
    """Count the engines that have died; whether they do so one after the other."""
    return bool(await connection.fetchval(database.query("note_deaths"), database.app_id))


async def count_due(database: Database, connection: Connection, limit: int, last: int) -> list[Taken]:
    """Note that what is due is taken, before it is, which may be `last` times; of one job alone if it is the last time."""
    rows = await connection.fetch(database.query("count_due"), database.app_id, limit, last)
    return [Taken(row["job_id"], str(row["generation"]), row["times"]) for row in rows]


async def lock_due_jobs(
    database: Database,
    connection: Connection,
    limit: int,
    only: Sequence[str] | None = None,
    since: datetime | None = None,
    tenures: Collection[int] = (),
) -> list[DueJob]:
    """Lock jobs that have messages or due timers, in the caller's transaction; `only` those of these generations.

    `since`: what became due then or later. `tenures`: jobs that are held are handed out to these only.
    """
    rows = await connection.fetch(
        database.query("lock_due_jobs"), database.app_id, limit, only, since, list(tenures)
    )
    payload = database.payload
    return [_due_job(row, payload) for row in rows]


def _due_job(row: Any, payload: Payload) -> DueJob:
    try:
        events = events_from(row["events"], payload) if row["events"] else []
        return DueJob(job_from(row, payload), events, row["due_at"])
    except CodecError as error:
        return DueJob(job_from(row, OPAQUE), [], row["due_at"], error)


async def postpone_events(
    database: Database, connection: Connection, generation: str, delay: float, limit: int
) -> str:
    """Handling the job's events failed: later, to be tried again after `delay`; last, of `limit` tries; or gone.

    The job stays locked in the caller's transaction.
    """
    return str(
        await connection.fetchval(
            database.query("postpone_events"), database.app_id, generation, delay, limit
        )
    )


async def bury_events(
    database: Database, connection: Connection, job_id: str, generation: str, reason: str
) -> None:
    """Keep what is open of a job as a dead letter, before the step that ends the job is committed, in one transaction."""
    await connection.execute(
        database.query("bury_events"), database.app_id, job_id, generation, reason.replace("\0", "")
    )


async def delay_events(database: Database, connection: Connection, generation: str, delay: float) -> None:
    """Leave the job's due events alone for a while; no failure is counted."""
    await connection.execute(database.query("delay_events"), database.app_id, generation, delay)
