"""What people look at: jobs, what their activities left, and what they still wait for. Reads, but for one clean-up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from hotmesh.core.codec import CONCEALED, OPAQUE
from hotmesh.core.state.job import Dimension
from hotmesh.postgres import sql
from hotmesh.postgres.connect.connection import ConnectionSource, Driver, translated

State = Literal["running", "pending", "complete", "failed", "interrupted"]
"""What the status and the error of a job amount to."""


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job as its row has it. `seq` counts its steps."""

    app_id: str
    job_id: str
    generation: str
    version: str
    topic: str
    state: State
    status: int
    seq: int
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    input: Any
    data: Any
    error: Any


@dataclass(frozen=True, slots=True)
class ActivitySummary:
    """What one pass of an activity left; `ended_at` is None while it is open."""

    activity_id: str
    dimension: Dimension
    type: str
    state: str
    code: int | None
    started_at: datetime | None
    ended_at: datetime | None
    output: Any
    hook: Any
    error: Any


@dataclass(frozen=True, slots=True)
class Obligation:
    """Something a job waits for: `work`, a `message`, a `timer`, a `signal` or a `child`.

    `until` is when something happens by itself: a lease lapses, a retry or a timer is due.
    """

    kind: str
    activity_id: str
    dimension: Dimension
    detail: str | None
    since: datetime
    until: datetime | None
    held_by: str | None
    attempt: int


SPANS: Final = (60.0, 3_600.0, 86_400.0, 1_000 * 365 * 86_400.0)
"""Seconds to look back for the newest jobs, one after the other: a minute, an hour, a day, for ever."""


class Observer:
    """Queries on one namespace, over one connection."""

    def __init__(self, connection: Driver, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def jobs(
        self,
        app_id: str | None = None,
        *,
        state: State | None = None,
        topic: str | None = None,
        limit: int = 20,
    ) -> list[JobSummary]:
        """The newest jobs first.

        Looked for in the youngest part of the table first, and further back as long as there are too few.
        """
        rows: list[Any] = []
        for span in SPANS:
            rows = await self._rows("list_jobs", app_id, state, topic, limit, span)
            if len(rows) >= limit:
                break
        return [_job(row) for row in rows]

    async def find(self, job_id: str, app_id: str | None = None) -> list[JobSummary]:
        """The job of this id, in each app that has one."""
        return [_job(row) for row in await self._rows("find_job", job_id, app_id)]

    async def activities(self, generation: str) -> list[ActivitySummary]:
        """What the activities of a job have left, in the order in which they began."""
        return [
            ActivitySummary(
                row["activity_id"],
                tuple(row["dimension"]),
                row["type"],
                row["state"],
                row["code"],
                row["started_at"],
                row["ended_at"],
                _json(row["output"]),
                _json(row["hook"]),
                _error(row["error"]),
            )
            for row in await self._rows("job_activities", generation)
        ]

    async def obligations(self, generation: str) -> list[Obligation]:
        """What a job still waits for."""
        return [
            Obligation(**{**row, "dimension": tuple(row["dimension"])})
            for row in await self._rows("job_open", generation)
        ]

    async def count_by_fields(self, app_id: str, key: str, one: str, other: str) -> list[dict[str, Any]]:
        """How many jobs with a job key have finished, by two fields of their data: `one`, `other`, `number`."""
        return [dict(row) for row in await self._rows("count_by_field", app_id, key, one, other)]

    async def count_open(self, app_id: str, key: str) -> int:
        """Unfinished jobs with a job key, and rows that still ask for something to be done for one."""
        with translated():
            return int(await self._connection.fetchval(self._sql("count_open"), app_id, key))

    async def forget_ended_jobs(self, app_id: str) -> int:
        """Remove the jobs of an app that have ended, but for those of unfinished runs; how many there were."""
        with translated():
            return int(await self._connection.fetchval(self._sql("forget_ended_jobs"), app_id))

    async def apps(self) -> list[str]:
        """The apps of the namespace."""
        return [row["app_id"] for row in await self._rows("list_apps")]

    async def server_version(self) -> str:
        """Such as `18.1`."""
        with translated():
            return str(await self._connection.fetchval("show server_version")).split()[0]

    async def _rows(self, query: str, *arguments: object) -> list[Any]:
        with translated():
            return await self._connection.fetch(self._sql(query), *arguments)

    def _sql(self, query: str) -> str:
        return sql.bind(sql.read("queries")[query], self._schema)


@asynccontextmanager
async def observe(source: ConnectionSource, schema: str) -> AsyncIterator[Observer]:
    """Queries on a namespace, as long as the block lasts."""
    connection = await source.connect()
    try:
        yield Observer(connection, schema)
    finally:
        await source.release(connection)


def _job(row: Any) -> JobSummary:
    return JobSummary(
        row["app_id"],
        row["job_id"],
        str(row["generation"]),
        row["version"],
        row["topic"],
        row["state"],
        row["status"],
        row["seq"],
        row["created_at"],
        row["updated_at"],
        row["ended_at"],
        _json(row["input"]),
        _json(row["data"]),
        _error(row["error"]),
    )


def _json(text: str | None) -> Any:
    # What is encoded is none of an observer's business: it may have no key.
    return None if text is None else OPAQUE.loads(text)


def _error(text: str | None) -> Any:
    found = _json(text)
    return {"message": found} if found == CONCEALED else found
