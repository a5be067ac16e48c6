"""Activities that are ended from elsewhere, by their token: handed over, answered, alive."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hotmesh.core.state.step import WorkKey
from hotmesh.core.values import Json
from hotmesh.postgres.arrays import array
from hotmesh.postgres.database import Connection, Database


async def token_key(database: Database) -> bytes:
    """What tokens are signed with."""
    return bytes.fromhex(await database.value("token_key"))


async def hand_over(
    database: Database,
    connection: Connection,
    member: str,
    key: WorkKey,
    limit: tuple[float, str] | None,
    details: str | None,
) -> bool:
    """Let go of an activity that a token ends, or a limit in so many seconds; whether it was still held."""
    seconds, name = limit or (None, None)
    return bool(
        await connection.fetchval(
            database.query("hand_over_activity"), member, *_columns(key), seconds, name, details
        )
    )


async def answer(database: Database, key: WorkKey, attempt: int, status: str, code: int, data: Json) -> bool:
    """End an attempt for good; whether it was there."""
    text = database.payload.dumps(data)
    found = await database.value(
        "answer_activity", database.app_id, *_columns(key), attempt, status, code, text, None, None
    )
    return bool(found)


async def try_again(database: Database, key: WorkKey, attempt: int, delay: float, error: str | None) -> bool:
    """The attempt has failed, and the next one follows; whether it was there."""
    found = await database.value(
        "answer_activity", database.app_id, *_columns(key), attempt, "error", 500, None, delay, error
    )
    return bool(found)


async def options_of(database: Database, key: WorkKey, attempt: int) -> dict[str, Any] | None:
    """What the call of an attempt has said of it; None: the attempt is not there any more."""
    data: str | None = await database.value("activity_options", *_columns(key), attempt)
    if data is None:
        return None
    found: Any = database.payload.loads(data)
    return found.get("options") or {}


async def beat(
    database: Database,
    key: WorkKey,
    attempt: int,
    every: float | None,
    until: datetime | None,
    details: Json,
) -> bool | None:
    """A heartbeat; False: it is to end, None: the attempt is not there any more."""
    text = None if details is None else database.payload.dumps(details)
    found: bool | None = await database.value("beat_activity", *_columns(key), attempt, every, until, text)
    return found


def _columns(key: WorkKey) -> tuple[str, str, str]:
    generation, name, dimension = key
    return generation, name, array(dimension)
