"""What is stored for durable functions beyond their jobs: histories, and the tenures of processes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from hotmesh.core.codec import Payload
from hotmesh.core.durable.commands import Completion, Opened
from hotmesh.core.state.job import History
from hotmesh.core.wire import dumps_text
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.rows import Row

PAGE: Final = 5_000
"""Rows of a history that are read at once."""

_MARKED: Final = '"hotmesh.'


async def load_histories(
    database: Database, connection: Connection, generations: Collection[str]
) -> dict[str, History]:
    """What is recorded of these jobs, by generation."""
    found: dict[str, tuple[list[Completion], list[Opened]]] = {one: ([], []) for one in generations}
    if not found:
        return {}
    after: tuple[Any, ...] = (None, None, None)
    payload = database.payload
    while True:
        rows = await connection.fetch(database.query("history"), list(found), *after, PAGE)
        closed = 0
        for row in rows:
            recorded, opened = found[str(row["generation"])]
            if row["status"] == "open":
                opened.append(Opened(row["position"], row["kind"], row["name"]))
            else:
                closed += 1
                recorded.append(completion_from(row, payload))
                after = (row["generation"], row["strand"], row["position"])
        if closed < PAGE:
            break
    return {one: History(tuple(recorded), tuple(opened)) for one, (recorded, opened) in found.items()}


def completion_from(row: Row, payload: Payload) -> Completion:
    """A row of operation. Raises CodecError."""
    error = row["error"]
    return Completion(
        row["position"],
        row["kind"],
        row["name"],
        row["status"],
        row["ended_at"] or datetime.now(UTC),
        row["seq"] or 0,
        text_of(row["result"], payload),
        None if error is None else payload.loads(error),
        row["attempt"] or 1,
    )


def text_of(stored: str | None, payload: Payload) -> str | None:
    """The JSON of a stored value, as the converter of its function reads it. Raises CodecError."""
    if stored is None or not stored.startswith(_MARKED):
        return stored
    return dumps_text(payload.loads(stored))


async def mark_app(database: Database) -> None:
    """Let the app be there, with or without a version of it."""
    async with database.connection() as connection:
        await connection.execute(database.query("mark_app"), database.app_id)


async def open_tenure(database: Database, member: str, seconds: float) -> int:
    """A new tenure; its number."""
    return int(await database.value("open_tenure", database.app_id, member, seconds))


async def renew_tenures(
    database: Database, connection: Connection, tenures: Collection[int], seconds: float
) -> set[int]:
    """Which of them hold on."""
    rows = await connection.fetch(database.query("renew_tenures"), list(tenures), seconds)
    return {row["tenure"] for row in rows}


async def lapse_tenures(
    database: Database, connection: Connection, members: Collection[str], given_up: Collection[int] = ()
) -> list[int]:
    """The tenures whose jobs are for others by now: not renewed, of these members, or given up."""
    rows = await connection.fetch(
        database.query("lapse_tenures"), database.app_id, list(members), list(given_up)
    )
    return [row["tenure"] for row in rows]


async def other_tenures(database: Database, connection: Connection, member: str) -> set[str]:
    """The members that have tenures, but for this one."""
    rows = await connection.fetch(database.query("other_tenures"), database.app_id, member)
    return {row["member"] for row in rows}


async def hand_over(
    database: Database, connection: Connection, tenure: int, most: int, most_recoveries: int
) -> int | None:
    """Let others have jobs of a lapsed tenure; how many they were. None: nothing is left to be done here."""
    found: int | None = await connection.fetchval(
        database.query("hand_over_tenure"), database.app_id, tenure, most, most_recoveries
    )
    return found


async def set_aside(database: Database, job_id: str, *, failed_only: bool) -> bool:
    """Rename a job that has ended, so that its id is free; whether there was one."""
    async with database.connection() as connection:
        found = await connection.fetchval(
            database.query("set_aside_job"), database.app_id, job_id, failed_only
        )
    return found is not None


async def held_of(
    database: Database, connection: Connection, generations: Collection[str], tenures: Collection[int]
) -> set[str]:
    """Which of these jobs these tenures hold."""
    rows = await connection.fetch(database.query("held_of"), list(generations), list(tenures))
    return {str(row["generation"]) for row in rows}


async def held_jobs(
    database: Database, connection: Connection, tenures: Collection[int], since: float, most: int
) -> list[tuple[str, str]]:
    """Id and generation of jobs that these tenures hold, and that have not changed for so long."""
    rows = await connection.fetch(database.query("held_jobs"), list(tenures), since, most)
    return [(row["job_id"], str(row["generation"])) for row in rows]
