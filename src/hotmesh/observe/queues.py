"""How much waits in the queues of an app, and for how long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hotmesh.observe.observer import Observer
from hotmesh.postgres import work
from hotmesh.postgres.database import Database


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """One queue; at most 100,000 rows of each kind are counted.

    `stream` is `worker`, with the `topic` of the work, `engine` or `timer`; or `dead`: dead letters, `topic` then says of
    which of the two. `ready` can be taken now, `held` is reserved by a process, `delayed` is for later. `oldest`: seconds
    for which the first in line has been ready.
    """

    stream: str
    topic: str
    ready: int
    held: int
    delayed: int
    oldest: float


async def queue_depths(database: Database) -> list[QueueDepth]:
    """Every queue of the app that is not empty, and those of engines and timers; none for a worker login, which sees none."""
    return [QueueDepth(**row) for row in await work.queue_depth(database)]


async def stream_depths(
    observer: Observer, app_id: str, topics: Collection[str]
) -> tuple[int, dict[str, int]]:
    """How many messages are on the engine stream, and how much work of each topic that has any, waiting or reserved."""
    row = await observer.row("engine_depth", app_id)
    rows = await observer.rows("work_depths", app_id, list(topics))
    return int(row["depth"]), {row["topic"]: row["depth"] for row in rows}
