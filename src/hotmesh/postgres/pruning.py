"""Deleting what is over, batch by batch, and taking turns at it."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotmesh.postgres.connect.driver import Driver
    from hotmesh.postgres.store import Store


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


async def prune_batch(connection: Driver, store: Store, selection: Selection) -> Pruned:
    """Delete one batch, in a transaction of its own."""
    row = await connection.fetchrow(
        store.bound("select * from mesh.prune($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"),
        store.app_id,
        *astuple(selection),
    )
    if row is None:
        raise AssertionError("prune answers with one row")
    return Pruned(**row)


async def take_turn(store: Store, task: str, member: str, lease: float) -> float | None:
    """Begin or go on with a task that one process at a time does; None: it is ours, else seconds until asking again."""
    async with store.connection() as connection:
        found: float | None = await connection.fetchval(
            store.bound("select mesh.take_turn($1, $2, $3, $4)"), store.app_id, task, member, lease
        )
    return found


async def end_turn(store: Store, task: str, member: str, interval: float) -> None:
    """The task is done; its next turn is in `interval` seconds."""
    async with store.connection() as connection:
        await connection.execute(
            store.bound("select mesh.end_turn($1, $2, $3, $4)"), store.app_id, task, member, interval
        )
