"""`DBA`: keeps the tables of an app small. Deletes what has expired, in small batches, and never a live job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hotmesh.core.duration import Duration, seconds
from hotmesh.errors import ConfigError
from hotmesh.postgres.connection import ConnectionLike, Link, Source
from hotmesh.postgres.migrate import migrate
from hotmesh.postgres.store import Store


@dataclass(frozen=True, slots=True)
class PruneResult:
    """How many rows went. `streams` is engine and worker streams together; `marked` the jobs that were stripped."""

    jobs: int = 0
    streams: int = 0
    engine_streams: int = 0
    worker_streams: int = 0
    attributes: int = 0
    transient: int = 0
    marked: int = 0
    signals: int = 0


class DBA:
    """Housekeeping of an app's tables. All methods are static."""

    @staticmethod
    async def deploy(
        connection: ConnectionLike, app_id: str | None = None, *, namespace: str = "hotmesh"
    ) -> None:
        """Bring the tables up to date, as `HotMesh.init` does; nothing happens if they are. `app_id` is not used."""
        del app_id
        await migrate(Source.find(connection), namespace)

    @staticmethod
    async def prune(
        app_id: str,
        connection: ConnectionLike = None,
        *,
        namespace: str = "hotmesh",
        expire: Duration = "7 days",
        jobs: bool = True,
        streams: bool = True,
        engine_streams: bool | None = None,
        worker_streams: bool | None = None,
        engine_streams_expire: Duration | None = None,
        worker_streams_expire: Duration | None = None,
        attributes: bool = False,
        entities: Sequence[str] | None = None,
        prune_transient: bool = False,
        signals: bool = True,
        batch_size: int = 10_000,
    ) -> PruneResult:
        """Delete what has been over for longer than `expire`; returns how many rows of each kind went.

        `jobs`: expired jobs with all that belongs to them. `streams` (or each of the two): dead letters.
        `attributes`: what the activities of complete jobs left; the jobs keep their data. `entities` limits both.
        `prune_transient`: expired jobs without an entity. `signals`: early signals whose time is over. Each batch
        of `batch_size` rows is a transaction of its own, and skips rows that somebody is working on.
        """
        if isinstance(batch_size, bool) or batch_size < 1:
            raise ConfigError(f"batch_size must be an integer of at least 1, not {batch_size!r}")
        keep = seconds(expire, name="expire")
        store = Store(Source.find(connection), namespace, app_id)
        await migrate(store.source, namespace)
        link = store.link("prune")
        try:
            return await _prune(
                store,
                link,
                keep=keep,
                jobs=jobs,
                engine=_stream(
                    streams if engine_streams is None else engine_streams, engine_streams_expire, keep
                ),
                worker=_stream(
                    streams if worker_streams is None else worker_streams, worker_streams_expire, keep
                ),
                attributes=attributes,
                entities=None if entities is None else list(entities),
                transient=prune_transient,
                signals=signals,
                size=batch_size,
            )
        finally:
            await link.close()
            await store.close()

    @staticmethod
    def safe_name(name: str) -> str:
        """A name as a Postgres identifier that needs no quotes: `a--b` is `a_b`."""
        return re.sub(r"[^a-z0-9]+", "_", name.lower())[:63].rstrip("_") or "connections"


def _stream(wanted: bool, expire: Duration | None, otherwise: float) -> float | None:
    """Seconds to keep the messages of a stream; None: it is left alone."""
    if not wanted:
        return None
    return otherwise if expire is None else seconds(expire, name="expire of a stream")


async def _prune(
    store: Store,
    link: Link,
    *,
    keep: float,
    jobs: bool,
    engine: float | None,
    worker: float | None,
    attributes: bool,
    entities: list[str] | None,
    transient: bool,
    signals: bool,
    size: int,
) -> PruneResult:
    async with link.use() as connection:

        async def all_of(statement: str, *arguments: object) -> int:
            total = 0
            while True:
                count = int(await connection.fetchval(store.bound(statement), store.app_id, *arguments, size))
                total += count
                if count < size:
                    return total

        by_entity = "select mesh.prune_jobs($1, $2, $3, $4, $5)"
        gone = await all_of(by_entity, keep, entities, False) if jobs else 0
        without = await all_of(by_entity, keep, None, True) if transient else 0
        messages = "select mesh.prune_messages($1, $2, $3, $4)"
        engine_count = 0 if engine is None else await all_of(messages, "engine", engine)
        worker_count = 0 if worker is None else await all_of(messages, "worker", worker)
        marked = records = 0
        while attributes:
            row = await connection.fetchrow(
                store.bound("select * from mesh.strip_jobs($1, $2, $3)"), store.app_id, entities, size
            )
            marked += row["jobs"] if row else 0
            records += row["records"] if row else 0
            if row is None or row["jobs"] < size:
                break
        early = await all_of("select mesh.prune_signals($1, $2)") if signals else 0
    return PruneResult(
        gone, engine_count + worker_count, engine_count, worker_count, records, without, marked, early
    )
