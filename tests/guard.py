"""Ends every server that a test run started, however the run ends.

Runs beside pytest as `python guard.py <directory>` and waits for the end of its standard input, which comes when
pytest closes the pipe or dies, even of `kill -9`. Then it stops the servers of all data directories below the
directory, and removes it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main() -> None:
    directory = Path(sys.argv[1])
    sys.stdin.read()

    # Imported only now: the guard costs the run nothing while it waits.
    from hotmesh.errors import HotMeshError
    from hotmesh.postgres import local

    for pid_file in directory.rglob("cluster/postmaster.pid"):
        try:
            local.stop(pid_file.parent.parent, "immediate")
        except HotMeshError as error:
            print(f"guard: {error}", file=sys.stderr)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
