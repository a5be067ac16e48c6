"""File locks that end with the process, or with the last of the processes, that holds them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from hotmesh.errors import LocalServerError

PAUSE = timedelta(milliseconds=5)
"""Between two looks at something that another process changes."""


def wait_until(happened: Callable[[], bool], within: timedelta) -> bool:
    """Look until it has happened, every 5 ms; False if it has not after `within`."""
    deadline = time.monotonic() + within.total_seconds()
    while not happened():
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE.total_seconds())
    return True


@contextmanager
def locked(path: Path, within: timedelta) -> Iterator[None]:
    """Hold the lock of `path` for the block. Raises LocalServerError if another process keeps it for so long."""
    descriptor = open_lock(path)
    try:
        if not wait_until(lambda: try_lock(descriptor), within):
            raise LocalServerError(
                f"{path} has been locked by another process for {within.total_seconds():.0f} s"
            )
        yield
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """A descriptor to lock with; the file is created if need be, for its owner alone, and never removed.

    Removing it would let two processes hold "the" lock: one on the old file, one on the new.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock unless another open file has it; closing the last copy of `descriptor` releases it.

    A shared one goes together with other shared ones.
    """
    if sys.platform == "win32":
        raise LocalServerError(
            "the embedded Postgres needs Unix: set HOTMESH_DATABASE_URL to use another server"
        )
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock of `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        return try_lock(descriptor, shared=True)  # so that two who look do not take each other for a holder
    finally:
        os.close(descriptor)
