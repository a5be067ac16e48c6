"""Starts the embedded Postgres on demand, says how it is, and stops it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from hotmesh.errors import ConfigError, HotMeshError, LocalServerError
from hotmesh.postgres.local import cluster
from hotmesh.postgres.local.binaries import Binaries, find_binaries
from hotmesh.postgres.local.cluster import DATABASE, SUPERUSER, Postmaster
from hotmesh.postgres.local.directories import (
    PORT,
    Home,
    data_directory,
    existing_home,
    make_home,
    make_socket_directory,
    remove_home,
)
from hotmesh.postgres.local.lock import locked
from hotmesh.postgres.local.privileges import account_of, runnable_by, server_account

LONGEST_TURN = timedelta(seconds=180)
"""How long to wait for another process that starts or stops the same server."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running embedded Postgres.

    `data_dir` is the data directory asked for, `log` the file that the server writes to, `version` the server's
    own, such as "18.6", `bin_dir` where its programs lie, and `pid` the postmaster's.
    """

    data_dir: Path
    bin_dir: Path
    version: str
    socket_dir: Path
    log: Path
    pid: int
    started_at: datetime

    @property
    def dsn(self) -> str:
        """The connection URL of its database, for asyncpg and for everything that uses libpq."""
        return self.url(DATABASE)

    def url(self, database: str) -> str:
        """The connection URL of another database of the same server."""
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={quote(str(self.socket_dir))}&port={PORT}"


@dataclass(frozen=True, slots=True)
class Status:
    """How the embedded Postgres of a data directory is. `server` is None if none runs."""

    data_dir: Path
    server: LocalServer | None

    @property
    def running(self) -> bool:
        return self.server is not None


def ensure_running(data_dir: Path | str | None = None, *, sync: bool = True) -> LocalServer:
    """The server of the data directory, started if it does not run, created if it never did.

    Blocks for about a second the first time, a tenth of one to start, and about a millisecond otherwise. Any
    number of threads and processes may call it at once. `sync=False` creates a cluster that never waits for the
    disk and may be lost with the machine, for tests; a cluster that exists stays as it was created. Without
    `data_dir`, HOTMESH_DATA_DIR or the user's own data directory is meant.

    Raises LocalServerError if there is no Postgres to run, if the data directory cannot be used, belongs to
    another user or was made by another major version, or if the server does not start; then with its last words.

    >>> ensure_running("/tmp/orders").dsn  # doctest: +SKIP
    'postgresql://hotmesh@/hotmesh?host=/tmp/orders/socket&port=5432'
    """
    with _explained():
        asked = data_directory(data_dir)
        home = existing_home(asked)
        postmaster = cluster.serving(home)
        if postmaster is None:
            return _start(asked, sync=sync)
        if _is_long(home.log):
            with locked(home.lock, LONGEST_TURN):
                cluster.trim_log(home)
        return _describe(asked, home, postmaster)


def status(data_dir: Path | str | None = None) -> Status:
    """How the server of the data directory is; nothing is started, created or changed."""
    with _explained():
        asked = data_directory(data_dir)
        home = existing_home(asked)
        postmaster = cluster.serving(home)
        return Status(asked, None if postmaster is None else _describe(asked, home, postmaster))


def stop(data_dir: Path | str | None = None, mode: Literal["smart", "fast", "immediate"] = "fast") -> bool:
    """Stop the server of the data directory and wait for its end; False if none ran.

    "smart" waits for all clients to leave, "fast" ends their sessions, "immediate" also leaves the checkpoint to
    the recovery of the next start. Raises LocalServerError if the server still runs after a minute.
    """
    if mode not in cluster.SIGNALS:
        raise ConfigError(f"mode is {mode!r}: one of {', '.join(cluster.SIGNALS)}")
    with _explained():
        home = existing_home(data_directory(data_dir))
        if not home.cluster.exists():
            return False
        with locked(home.lock, LONGEST_TURN):
            postmaster = cluster.find_up(home)
            if postmaster is None:
                return False
            cluster.take_down(home, account_of(home.cluster), postmaster, mode)
            return True


def remove(data_dir: Path | str) -> None:
    """Stop the server of the data directory and delete its cluster for good, wherever it is kept.

    The directory itself goes, too, unless something else lies in it. Nobody may start the server meanwhile.
    """
    stop(data_dir, "immediate")
    with _explained():
        asked = data_directory(data_dir)
        remove_home(asked, existing_home(asked))


def _start(asked: Path, *, sync: bool) -> LocalServer:
    before = existing_home(asked)
    _binaries_for(before)  # first: a cluster that nothing here can run stays as it is, to the last file
    account = account_of(before.cluster) if before.cluster.exists() else server_account()
    home = make_home(asked, account)
    with locked(home.lock, LONGEST_TURN):
        binaries = _binaries_for(home)  # again: another process may have created the cluster meanwhile
        cluster.end_unreachable(home, account)
        with cluster.alone(home) as alive:
            if alive is not None:
                bin_dir = runnable_by(account, binaries)
                if not home.cluster.exists():
                    cluster.create_cluster(home, account, bin_dir, binaries.major, alive=alive, sync=sync)
                _write_state(home, bin_dir, binaries.version)
                socket_dir = make_socket_directory(home, account)
                cluster.launch(home, account, bin_dir, socket_dir, alive=alive)
    return _describe(asked, home, cluster.wait_ready(home))


def _binaries_for(home: Home) -> Binaries:
    """The programs for the cluster as it is: each major version reads its own clusters only."""
    major = cluster.cluster_major(home)
    try:
        return find_binaries(major)
    except LocalServerError as error:
        if major is None:
            raise
        raise LocalServerError(f"{home.path} was made by Postgres {major}, and {error}") from error


def _describe(asked: Path, home: Home, postmaster: Postmaster) -> LocalServer:
    try:
        state = json.loads(home.state.read_text())
        bin_dir, version = Path(state["bin_dir"]), str(state["version"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # Somebody launched this server without us: say what is known.
        binaries = find_binaries(cluster.cluster_major(home))
        bin_dir, version = binaries.bin_dir, binaries.version
    return LocalServer(
        data_dir=asked,
        bin_dir=bin_dir,
        version=version,
        socket_dir=postmaster.socket_dir,
        log=home.log,
        pid=postmaster.pid,
        started_at=datetime.fromtimestamp(postmaster.started_at, UTC),
    )


def _write_state(home: Home, bin_dir: Path, version: str) -> None:
    fresh = home.state.with_suffix(".partial")
    fresh.write_text(json.dumps({"bin_dir": str(bin_dir), "version": version}))
    fresh.replace(home.state)


def _is_long(log: Path) -> bool:
    try:
        return log.stat().st_size >= cluster.LOG_LIMIT
    except FileNotFoundError:
        return False


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever the operating system refuses becomes a LocalServerError that names the file."""
    if sys.platform == "win32":
        raise LocalServerError(
            "the embedded Postgres needs Unix: set HOTMESH_DATABASE_URL to use another server"
        )
    try:
        yield
    except HotMeshError:
        raise
    except OSError as error:
        raise LocalServerError(
            f"the embedded Postgres cannot be used as user {os.geteuid()}: {error}. "
            "Choose another data directory with HOTMESH_DATA_DIR, or another server with HOTMESH_DATABASE_URL."
        ) from error
