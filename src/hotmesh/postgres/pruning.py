"""Deleting what is over, batch by batch, and taking turns at it."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import timedelta

from hotmesh.postgres.database import Connection, Database


@dataclass(frozen=True, slots=True)
class Selection:
    """What to delete, of what has been over for how long; at most `limit` rows of each kind.

    The arguments of `mesh.prune`, in their order.
    """

    expire: timedelta
    jobs: bool = True
    streams: bool = True
    engine_streams: bool | None = None
    worker_streams: bool | None = None
    engine_streams_expire: timedelta | None = None
    worker_streams_expire: timedelta | None = None
    attributes: bool = False
    keep_hmark: bool = False
    entities: tuple[str, ...] | None = None
    prune_transient: bool = False
    signals: bool = True
    limit: int = 10_000
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of each kind went; `more`: there may be further ones."""

    jobs: int
    engine_streams: int
    worker_streams: int
    attributes: int
    transient: int
    marked: int
    signals: int
    subscriptions: int
    more: bool


async def prune_batch(database: Database, connection: Connection, selection: Selection) -> Pruned:
    """Delete one batch, in a transaction of its own."""
    row = await connection.fetchrow(database.query("prune"), database.app_id, *astuple(selection))
    if row is None:
        raise AssertionError("prune answers with one row")
    return Pruned(**row)


async def take_turn(database: Database, task: str, member: str, lease: float) -> float | None:
    """Begin or go on with a task that one process at a time does; None: it is ours, else seconds until asking again."""
    found: float | None = await database.value("take_turn", database.app_id, task, member, lease)
    return found


async def end_turn(database: Database, task: str, member: str, interval: float) -> None:
    """The task is done; its next turn is in `interval` seconds."""
    await database.value("end_turn", database.app_id, task, member, interval)
