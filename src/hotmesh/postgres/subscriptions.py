"""Which members want what is announced."""

from __future__ import annotations

from collections.abc import Sequence

from hotmesh.postgres.database import Database


async def subscribe(
    database: Database, member: str, topics: Sequence[tuple[str, bool]], lease: float
) -> None:
    """The member wants what is announced on these topics; of each, whether it is a pattern."""
    names, patterns = zip(*topics, strict=True)
    await database.value("subscribe", database.app_id, member, names, patterns, lease)


async def unsubscribe(database: Database, member: str, topics: Sequence[tuple[str, bool]] | None) -> None:
    """The member wants these no more; None: nothing at all."""
    names, patterns = ((), ()) if topics is None else zip(*topics, strict=True)
    await database.value("unsubscribe", database.app_id, member, names, patterns, topics is None)
