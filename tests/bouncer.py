"""PgBouncer in transaction mode, as a child of the test run."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

import tools
from hotmesh.postgres.local import LocalServer
from hotmesh.postgres.local.privileges import create_directory, server_account

PORT = 6432

SETTINGS = """
[databases]
* = host={socket_dir} port=5432

[pgbouncer]
pool_mode = transaction
unix_socket_dir = {directory}
listen_port = {port}
listen_addr =
auth_type = trust
auth_file = {directory}/users
max_client_conn = 500
default_pool_size = 8
# Each transaction gets another session than the one before, so that nothing works by luck.
server_round_robin = 1
{more}
"""

_numbers = count()


@dataclass(frozen=True)
class Bouncer:
    """A running PgBouncer; `keeps_statements`: it looks after prepared statements (from 1.21 on)."""

    directory: Path
    keeps_statements: bool

    def url(self, database_url: str) -> str:
        """The URL of a database of the server behind it."""
        name = re.search(r"/(\w+)\?", database_url)
        assert name is not None
        return f"postgresql://hotmesh@/{name[1]}?host={self.directory}&port={PORT}"


@contextmanager
def run_bouncer(server: LocalServer, *, pool_mode: str = "transaction", keep: int = 0) -> Iterator[Bouncer]:
    """Start PgBouncer before the server, and end it. `keep`: prepared statements it looks after, if it can."""
    program = tools.pgbouncer()
    environment = os.environ | ({"LD_LIBRARY_PATH": tools.library_path()} if tools.library_path() else {})
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, env=environment)
    version = tuple(int(part) for part in re.findall(r"\d+", said.stdout)[:2])
    if keep and version < (1, 21):
        # Left out wherever it is: Debian 12 has none that is new enough.
        pytest.skip(f"{tools.NEEDS}PgBouncer 1.21 or newer; this one is {said.stdout.split()[1]}")
    directory = Path(os.environ["HOTMESH_TEST_DIRECTORY"], f"pgb-{os.getpid()}-{next(_numbers)}")
    account = server_account()
    create_directory(directory, mode=0o700, owner=account)
    more = f"max_prepared_statements = {keep}" if version >= (1, 21) else ""
    settings = SETTINGS.format(socket_dir=server.socket_dir, directory=directory, port=PORT, more=more)
    (directory / "settings").write_text(settings.replace("= transaction", f"= {pool_mode}", 1))
    (directory / "users").write_text('"hotmesh" ""\n')
    for path in (directory / "settings", directory / "users"):
        path.chmod(0o644)
    as_root = os.geteuid() == 0
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(directory / "settings")],
            user=account.uid if as_root else None,
            group=account.gid if as_root else None,
            extra_groups=[] if as_root else None,
            env=environment,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call of the system, which takes no lock
        )
    try:
        deadline = time.monotonic() + 10
        while not (directory / f".s.PGSQL.{PORT}").exists():
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline, "PgBouncer did not start"
            time.sleep(0.01)
        yield Bouncer(directory, bool(keep))
    finally:
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    """So that nothing is left running, however the test run ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
