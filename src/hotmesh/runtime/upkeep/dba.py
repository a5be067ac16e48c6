"""`DBA`: keeps the tables of an app small. Deletes what has expired, in small batches, and never a live job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import anyio.to_thread

from hotmesh.core.arguments import checked_flag, checked_text, checked_texts
from hotmesh.core.duration import Duration, seconds
from hotmesh.errors import ConfigError
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.migrate import migrate
from hotmesh.postgres.pruning import Pruned, Selection, prune_batch


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

    def plus(self, batch: Pruned) -> PruneResult:
        """These and those of a further batch."""
        return PruneResult(
            self.jobs + batch.jobs,
            self.streams + batch.engine_streams + batch.worker_streams,
            self.engine_streams + batch.engine_streams,
            self.worker_streams + batch.worker_streams,
            self.attributes + batch.attributes,
            self.transient + batch.transient,
            self.marked + batch.marked,
            self.signals + batch.signals,
        )


class DBA:
    """Housekeeping of an app's tables. All methods are static."""

    @staticmethod
    async def deploy(
        connection: ConnectionLike, app_id: str | None = None, *, namespace: str = "hotmesh"
    ) -> None:
        """Bring the tables and the stored function `prune` up to date, as `HotMesh.init` does; nothing happens if they are.

        Any number of processes may do so at once: they take turns by an advisory lock. `app_id` is not used.
        """
        del app_id
        await migrate(await anyio.to_thread.run_sync(ConnectionSource.find, connection), namespace)

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
        keep_hmark: bool = False,
        entities: Sequence[str] | None = None,
        prune_transient: bool = False,
        signals: bool = True,
        batch_size: int = 10_000,
    ) -> PruneResult:
        """Delete what has been over for longer than `expire`; returns how many rows of each kind went.

        `jobs`: expired jobs with all that belongs to them. `streams` (or each of the two): dead letters.
        `attributes`: what the activities of complete jobs left; the jobs keep their data, and with `keep_hmark` also
        what ran, when and with which outcome. `entities` limits jobs and attributes. `prune_transient`: expired jobs
        without an entity. `signals`: early signals and subscriptions whose time is over, whatever `expire` says. Each
        batch of `batch_size` rows of a kind is a transaction of its own, one at a time in an app, and skips rows that
        somebody is working on. Raises ConfigError.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size must be an integer of at least 1, not {batch_size!r}")
        checked_text(app_id, "app_id")
        for name, flag in (
            ("jobs", jobs), ("streams", streams), ("engine_streams", engine_streams), ("worker_streams", worker_streams),
            ("attributes", attributes), ("keep_hmark", keep_hmark), ("prune_transient", prune_transient),
            ("signals", signals),
        ):  # fmt: skip
            if flag is not None:
                checked_flag(flag, name)
        wanted = None if entities is None else tuple(checked_texts(entities, "entities"))
        selection = Selection(
            _span(expire, "expire"),
            jobs,
            streams,
            engine_streams,
            worker_streams,
            _span_or_none(engine_streams_expire, "engine_streams_expire"),
            _span_or_none(worker_streams_expire, "worker_streams_expire"),
            attributes,
            keep_hmark,
            wanted,
            prune_transient,
            signals,
            min(batch_size, MOST_ROWS),
            restart=True,
        )
        source = await anyio.to_thread.run_sync(ConnectionSource.find, connection)
        await migrate(source, namespace)
        database = Database(source, namespace, app_id)
        result = PruneResult()
        try:
            async with database.connection() as driver:
                while True:
                    batch = await prune_batch(database, driver, selection)
                    selection = replace(selection, restart=False)
                    result = result.plus(batch)
                    if not batch.more:
                        return result
        finally:
            await database.close()

    @staticmethod
    def safe_name(name: str) -> str:
        """A name as a Postgres identifier that needs no quotes: `a--b` is `a_b`."""
        return (
            re.sub(r"[^a-z0-9]+", "_", checked_text(name, "name").lower())[:63].rstrip("_") or "connections"
        )


MOST_ROWS: Final = 1_000_000
"""Rows of a kind in one transaction; of more, the next batches are."""

LONGEST_AGE: Final = 1_000 * 365 * 86_400.0
"""Seconds; so far back there are dates, and no jobs."""


def _span(duration: Duration, name: str) -> timedelta:
    return timedelta(seconds=min(seconds(duration, name=name), LONGEST_AGE))


def _span_or_none(duration: Duration | None, name: str) -> timedelta | None:
    return None if duration is None else _span(duration, name)
