"""What a worker login may do: told by the database, which also enforces it."""

from __future__ import annotations

from dataclasses import dataclass

from hotmesh.errors import NotAuthorizedError
from hotmesh.postgres import sql
from hotmesh.postgres.connect.failures import translated
from hotmesh.postgres.connect.source import ConnectionSource


@dataclass(frozen=True, slots=True)
class WorkerLogin:
    """What a worker login may do; durations in seconds."""

    app_id: str
    topics: frozenset[str]
    channel: str
    longest_lease: float
    longest_hold: float
    longest_delay: float
    max_payload: int
    most_deliveries: int = 20


async def find_login(source: ConnectionSource, schema: str, *, required: bool) -> WorkerLogin | None:
    """What this login may do if it is a worker login of the namespace; None if it is another one.

    Raises NotAuthorizedError if it is another one and `required`.
    """
    queries = sql.read("queries")
    connection = await source.connect()
    try:
        with translated():
            if not await connection.fetchval(queries["is_worker_login"], schema):
                if required:
                    raise NotAuthorizedError(
                        f"this login is no worker login of namespace {schema}: provision one, or leave out secured=True"
                    )
                return None
            row = await connection.fetchrow(sql.bind(queries["worker_hello"], schema))
    finally:
        await source.release(connection)
    if row is None:
        raise AssertionError("worker_hello answers with one row")
    return WorkerLogin(
        row["app_id"],
        frozenset(row["topics"]),
        row["channel"],
        row["longest_lease"],
        row["longest_hold"],
        row["longest_delay"],
        row["max_payload"],
        row["most_deliveries"],
    )
