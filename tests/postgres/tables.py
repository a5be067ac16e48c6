"""Jobs and steps that touch every table, and a database to commit them to."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg

from harness import eventually
from hotmesh.core.state.job import ActivityRecord, Job
from hotmesh.core.state.step import (
    JobChange,
    Message,
    RecordChange,
    Signal,
    Step,
    Timer,
    Wait,
    Work,
)
from hotmesh.postgres import commits
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.steps import Batch, Committed
from hotmesh.postgres.work import OrdinaryWork

APP = "app"
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def make_job(
    job_id: str, *, generation: str | None = None, seq: int = 1, status: int = 1, **more: Any
) -> Job:
    return Job(
        app_id=APP,
        job_id=job_id,
        generation=generation or str(uuid4()),
        version="1",
        topic="t",
        seq=seq,
        status=status,
        input={},
        data=more.pop("data", {}),
        created_at=NOW,
        updated_at=NOW,
        **more,
    )


def created(job: Job) -> JobChange:
    return JobChange(job, created=True)


def moved(job: Job, **more: Any) -> JobChange:
    """The job as it was committed, one step further."""
    return JobChange(
        make_job(job.job_id, generation=job.generation, seq=job.seq + 1, data={"moved": job.seq}),
        False,
        job.seq,
        **more,
    )


def everything(change: JobChange) -> Step:
    """A step that writes into every table."""
    job = change.job
    place = (job.job_id, job.generation, "a", (0, job.seq))
    return Step(
        (change,),
        records=(RecordChange(job.generation, "a", (0, job.seq), ActivityRecord("open", type="worker")),),
        work=(Work(*place, "topic", {}, "name"),),
        messages=(Message("enter", job.job_id, f"m{job.seq}", job.generation, "a"),),
        timers=(Timer(*place, 60.0),),
        waits=(Wait(*place, "signals", job.job_id),),
        signals=(Signal("early", job.job_id, {}),),
    )


TABLES = ("activity", "worker_stream", "engine_stream", "timer", "wait")


class Tables:
    """One connection to a database with the app registered."""

    def __init__(self, connection: asyncpg.Connection, url: str) -> None:
        self.connection = connection
        self.url = url
        self.database = Database(ConnectionSource(url), "hotmesh", APP)
        self.work = OrdinaryWork(self.database)

    async def commit(
        self,
        *steps: Step,
        member: str = "me",
        local: bool = False,
        connection: asyncpg.Connection | None = None,
    ) -> Committed:
        batch = Batch()
        for number, step in enumerate(steps):
            batch.add(number, step, local=[local] * len(step.work), send_delay=lambda _: 0.0)
        return await commits.commit(
            self.database, connection or self.connection, batch, member, 0, random.getrandbits(60), 30.0, None
        )

    async def rows(self, generation: str) -> dict[str, int]:
        """How many rows of each table a generation has."""
        return {
            table: await self.connection.fetchval(
                f"select count(*) from hotmesh.{table} where generation = $1", generation
            )
            for table in TABLES
        }

    async def job(self, job_id: str) -> dict[str, Any] | None:
        row = await self.connection.fetchrow("select * from hotmesh.job where job_id = $1", job_id)
        return None if row is None else dict(row)

    async def column(self, job_id: str, name: str) -> Any:
        return ((await self.job(job_id)) or {})[name]


NONE = dict.fromkeys(TABLES, 0)
ONE = dict.fromkeys(TABLES, 1)


async def blocked_by(
    watcher: asyncpg.Connection, victim: asyncpg.Connection, holder: asyncpg.Connection
) -> None:
    """Wait until a session waits for another."""

    async def waits() -> bool:
        pids = await watcher.fetchval("select pg_blocking_pids($1)", victim.get_server_pid())
        return holder.get_server_pid() in pids

    await eventually(waits, what="the wait for a lock")
