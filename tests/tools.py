"""Programs that some tests need and not every machine has: an older Postgres, and PgBouncer.

A test that lacks one is skipped with a reason that begins with `NEEDS`, and the end of the run counts them. Where
`HOTMESH_TEST_EVERYTHING` is set, as by `.ci/run`, it fails instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from hotmesh.postgres.local.binaries import OLDEST_MAJOR, SYSTEM_PLACES, Binaries, binaries_in

NEEDS = "needs "


def missing(what: str) -> NoReturn:
    """Leave the test out, or let it fail where nothing may be left out."""
    if os.environ.get("HOTMESH_TEST_EVERYTHING"):
        pytest.fail(f"{NEEDS}{what}, and HOTMESH_TEST_EVERYTHING says that nothing may be left out")
    pytest.skip(NEEDS + what)


def old_postgres(main: str) -> Binaries:
    """The oldest Postgres of this machine that is supported and older than the version `main`."""
    given = os.environ.get("HOTMESH_TEST_OLD_POSTGRES_BIN")
    found = [
        binaries
        for directory in ([Path(given)] if given else _system_directories())
        if (binaries := _works(directory)) is not None and binaries.major >= OLDEST_MAJOR
    ]
    newest = int(main.split(".", maxsplit=1)[0])
    older = sorted((b for b in found if b.major < newest), key=lambda b: b.major)
    if not older:
        missing(
            f"a Postgres from {OLDEST_MAJOR} on and older than {newest}, the one of this run: "
            "install one, or name its programs in HOTMESH_TEST_OLD_POSTGRES_BIN"
        )
    return older[0]


@contextmanager
def using(binaries: Binaries) -> Iterator[None]:
    """Inside the block, a new cluster is one of these programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTMESH_POSTGRES_BIN", str(binaries.bin_dir))
        _add_libraries(patch)
        yield


def pgbouncer() -> Path:
    """The program of PgBouncer."""
    given = os.environ.get("HOTMESH_TEST_PGBOUNCER")
    found = given or shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None or not Path(found).is_file():
        missing("PgBouncer: install it, or name the program in HOTMESH_TEST_PGBOUNCER")
    return Path(found)


def library_path() -> str:
    """Where programs that were unpacked and not installed find their libraries; put before the machine's own."""
    given = os.environ.get("HOTMESH_TEST_LIBRARY_PATH", "")
    return ":".join(filter(None, (given, os.environ.get("LD_LIBRARY_PATH", ""))))


def _works(directory: Path) -> Binaries | None:
    with pytest.MonkeyPatch.context() as patch:
        _add_libraries(patch)
        return binaries_in(directory)


def _add_libraries(patch: pytest.MonkeyPatch) -> None:
    libraries = library_path()
    if libraries:
        patch.setenv("LD_LIBRARY_PATH", libraries)


def _system_directories() -> Iterator[Path]:
    for pattern in SYSTEM_PLACES:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")))
