"""What triggers count about their jobs, and which jobs are listed under which facets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hotmesh.postgres.database import Connection, Database


async def read_measures(database: Database, topic: str, key: str, slices: Sequence[str] | None) -> list[Any]:
    """What was counted about the jobs of a graph under a key; `slices` None: at any time."""
    return await database.rows("measures", database.app_id, topic, key, slices)


async def read_index(
    database: Database,
    connection: Connection,
    topic: str,
    key: str,
    slices: Sequence[str] | None,
    facets: Sequence[str],
) -> list[Any]:
    """The jobs listed under facets (`name:value`; none: all), each once per slice and facet."""
    return list(
        await connection.fetch(
            database.query("measure_index"), database.app_id, topic, key, slices, list(facets)
        )
    )


async def scrub_index(
    database: Database,
    connection: Connection,
    topic: str,
    key: str,
    slices: Sequence[str] | None,
    facets: Sequence[str],
) -> None:
    """Forget which jobs are listed under facets."""
    await connection.execute(database.query("scrub_index"), database.app_id, topic, key, slices, list(facets))
