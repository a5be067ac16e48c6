"""The Postgres under test: its databases, its settings, its commits and its CPU time."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SETTINGS = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "wal_level",
    "commit_delay",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
    "autovacuum",
]


class Cluster:
    """One Postgres cluster, watched from a database that no side uses, so that our own commits do not count."""

    def __init__(self, dsn: str, connection: asyncpg.Connection) -> None:
        self._dsn = dsn
        self._connection = connection

    def dsn(self, database: str) -> str:
        return self.at(self._dsn, database)

    @staticmethod
    def at(dsn: str, database: str) -> str:
        """The DSN with this database instead of its own."""
        parts = urlsplit(dsn)
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.scheme}://{parts.netloc}/{database}{query}"

    async def recreate(self, database: str) -> None:
        await self._connection.execute(f'drop database if exists "{database}" with (force)')
        await self._connection.execute(f'create database "{database}"')

    async def drop(self, database: str) -> None:
        await self._connection.execute(f'drop database if exists "{database}" with (force)')

    async def execute(self, database: str, script: str) -> None:
        connection = await asyncpg.connect(self.dsn(database))
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    async def commits(self, database: str) -> int:
        """Transactions committed in the database so far, complete once its last session has ended.

        A session reports its commits at most once a second and for certain when it ends, so the count is read
        after every session is gone.
        """
        while await self._sessions(database):  # noqa: ASYNC110 - the server tells nobody when a session ends
            await asyncio.sleep(0.05)
        return await self._connection.fetchval(
            "select xact_commit from pg_stat_database where datname = $1", database
        )

    async def writes(self) -> int:
        """Transactions of the whole cluster that have written something so far, from its counter of their ids."""
        return await self._connection.fetchval("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")

    async def checkpoint(self) -> None:
        """Write out what earlier runs left behind, so that this run does not pay for it."""
        await self._connection.execute("checkpoint")

    async def description(self) -> dict[str, str]:
        found = {"version": (await self._connection.fetchval("show server_version")).split()[0]}
        rows = await self._connection.fetch(
            "select name, current_setting(name) as value from pg_settings where name = any($1)", SETTINGS
        )
        values = {row["name"]: row["value"] for row in rows}
        found |= {name: values[name] for name in SETTINGS if name in values}
        if (directory := await self.data_directory()) is not None:
            found["file system"] = _file_system(directory)
        return found

    async def postmaster(self) -> psutil.Process | None:
        """The server's main process, when it runs on this machine."""
        pid = await self._connection.fetchval("select pg_backend_pid()")
        try:
            backend = psutil.Process(pid)
            return backend.parent() if backend.name().startswith("postgres") else None
        except psutil.NoSuchProcess:
            return None

    async def _sessions(self, database: str) -> int:
        return await self._connection.fetchval(
            "select count(*) from pg_stat_activity where datname = $1 and backend_type = 'client backend'",
            database,
        )

    async def data_directory(self) -> Path | None:
        try:
            return Path(await self._connection.fetchval("show data_directory"))
        except asyncpg.InsufficientPrivilegeError:
            return None


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process, of its living descendants and of those it has already waited for."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def _file_system(directory: Path) -> str:
    mounts = [
        mount for mount in psutil.disk_partitions(all=True) if directory.is_relative_to(mount.mountpoint)
    ]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "unknown"


def _directory_on_disk() -> Path:
    """A new directory; /var/tmp lies on a disk where /tmp may be memory, and a commit must reach a disk here."""
    parent = Path("/var/tmp")
    return Path(tempfile.mkdtemp(prefix="hotmesh-bench-", dir=parent if parent.is_dir() else None))


@asynccontextmanager
async def open_cluster(dsn: str | None) -> AsyncIterator[Cluster]:
    """The Postgres at this address, or a fresh embedded one that goes away at the end."""
    if dsn is not None:
        async with _watch(dsn) as cluster:
            yield cluster
        return

    from hotmesh.postgres import local

    directory = _directory_on_disk()
    data_dir = directory / "postgres"
    try:
        server = await asyncio.to_thread(local.ensure_running, data_dir, sync=True)
        async with _watch(server.dsn) as cluster:
            yield cluster
    finally:
        await asyncio.to_thread(local.remove, data_dir)  # also what is kept of it elsewhere
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def _watch(dsn: str) -> AsyncIterator[Cluster]:
    connection = await asyncpg.connect(dsn)
    try:
        yield Cluster(dsn, connection)
    finally:
        await connection.close()
