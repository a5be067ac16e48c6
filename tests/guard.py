"""Ends every server that a test run started, however the run ends.

Runs beside pytest as `python guard.py <directory>` and waits for the end of its standard input, which comes when
pytest closes the pipe or dies, even of `kill -9`. Then it waits for the other processes of the run, which may be
about to start a server, stops the servers of all data directories below the directory, and removes it.
"""

from __future__ import annotations

import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

PATIENCE = timedelta(seconds=30)
"""How long to wait for the other processes of a killed run."""


def take_part() -> None:
    """Let the guard wait for this process: it holds a lock until it ends."""
    import fcntl

    descriptor = os.open(Path(os.environ["HOTMESH_TEST_DIRECTORY"], "run"), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def main() -> None:
    directory = Path(sys.argv[1])
    run = os.open(directory / "run", os.O_RDWR | os.O_CREAT, 0o600)
    sys.stdin.read()

    # Imported only now: the guard costs the run nothing while it waits.
    from hotmesh.errors import HotMeshError
    from hotmesh.postgres import local
    from hotmesh.postgres.local import lock

    lock.wait_until(lambda: lock.try_lock(run), PATIENCE)
    for alive in directory.rglob("alive"):
        try:
            local.stop(alive.parent, "immediate")
        except HotMeshError as error:
            print(f"guard: {error}", file=sys.stderr)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
