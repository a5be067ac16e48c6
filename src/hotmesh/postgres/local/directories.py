"""Where a cluster lives: the data directory asked for, the one in its stead, and the directory of its socket."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hotmesh.errors import LocalServerError
from hotmesh.postgres.local import privileges
from hotmesh.postgres.local.binaries import find_binaries
from hotmesh.postgres.local.privileges import (
    Account,
    can_enter,
    create_directory,
    make_directory,
    private_root,
)

PORT = 5432
"""Part of the socket's name only: the server listens on no network, so every cluster can have the same."""

LONGEST_SOCKET_PATH = 103
"""In bytes. Linux takes 107 and macOS 103."""


@dataclass(frozen=True, slots=True)
class Home:
    """The directory that holds everything of one cluster; the package's docstring says what each file means."""

    path: Path

    @property
    def cluster(self) -> Path:
        return self.path / "cluster"

    @property
    def partial(self) -> Path:
        return self.path / "cluster.partial"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def alive(self) -> Path:
        return self.path / "alive"

    @property
    def log(self) -> Path:
        return self.path / "postgres.log"

    @property
    def older_log(self) -> Path:
        return self.path / "postgres.log.1"

    @property
    def state(self) -> Path:
        return self.path / "server.json"


def data_directory(asked: Path | str | None) -> Path:
    """The data directory meant: the one asked for, else HOTMESH_DATA_DIR, else the user's own.

    The user's own is `$XDG_DATA_HOME/hotmesh/postgres/<major>`, where XDG_DATA_HOME is `~/.local/share` if unset;
    for root, whose home the server cannot enter, `/var/lib/hotmesh/postgres/<major>`.
    """
    given = asked or os.environ.get("HOTMESH_DATA_DIR")
    if given:
        path = Path(given).expanduser().resolve()
        if (path / "PG_VERSION").exists():
            raise LocalServerError(
                f"{path} is a cluster of its own: name an empty directory, or the one above it"
            )
        return path
    major = str(find_binaries().major)
    if os.geteuid() == 0:
        return private_root(create=False) / "postgres" / major
    xdg = os.environ.get("XDG_DATA_HOME")
    try:
        base = Path(xdg) if xdg else Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise LocalServerError("this user has no home directory: set HOTMESH_DATA_DIR") from error
    return (base / "hotmesh" / "postgres" / major).resolve()


def existing_home(data_dir: Path) -> Home:
    """The home of a data directory as it is; nothing is created."""
    return Home(_moved_to(data_dir) or data_dir)


def make_home(data_dir: Path, account: Account) -> Home:
    """The home of a data directory, created if need be, where `account` can reach it.

    An existing directory keeps its owner and mode. Raises LocalServerError if it is not ours alone to write.
    """
    moved = _moved_to(data_dir)
    if moved is not None:
        return Home(moved)
    nearest = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    reachable = can_enter(account, nearest)
    _make_directories(data_dir, nearest)
    _refuse_foreign(data_dir)
    home = Home(data_dir)
    if reachable:
        return home
    if os.geteuid() != 0 or home.cluster.exists():
        raise LocalServerError(f"{account.name}, who runs the server, cannot enter {nearest}")
    return Home(_move(data_dir))


def make_socket_directory(home: Home, account: Account) -> Path:
    """A directory that only `account` (and root) can enter, with a path that fits into a socket's address."""
    direct = home.path / "socket"
    if _fits(direct):
        make_directory(direct, mode=0o700, owner=account)
        return direct
    short = _short_socket_directory(home)
    make_directory(short.parent, mode=0o755)
    make_directory(short, mode=0o700, owner=account)
    return short


def remove_home(data_dir: Path, home: Home) -> None:
    """Delete what the home of a data directory holds, and every directory that is empty then."""
    if not home.alive.is_file():
        return  # no server has ever been started here: whatever the directory holds is not ours
    for directory in (home.path / "socket", _short_socket_directory(home), home.cluster, home.partial):
        if directory.is_dir():
            shutil.rmtree(directory)
    for file in (home.state, home.log, home.older_log, home.alive, home.lock, data_dir / "moved-to"):
        file.unlink(missing_ok=True)
    for directory in (home.path, data_dir):
        with contextlib.suppress(OSError):
            directory.rmdir()


def socket_in(directory: Path) -> Path:
    return directory / f".s.PGSQL.{PORT}"


def _short_socket_directory(home: Home) -> Path:
    ours = Path("/tmp", f"hotmesh-{os.geteuid()}")  # noqa: S108  make_directory refuses what others put there
    return ours / hashlib.sha256(os.fsencode(home.path)).hexdigest()[:12]


def _fits(directory: Path) -> bool:
    """Whether it can be the place of a socket: short enough, and one place for Postgres and for DSNs, where , parts two."""
    return len(os.fsencode(socket_in(directory))) <= LONGEST_SOCKET_PATH and not set(',"') & set(
        str(directory)
    )


def _make_directories(path: Path, existing: Path) -> None:
    # Root's server runs as somebody else, who must pass through; a user's own need not be seen by anybody.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    for directory in reversed([path, *path.parents]):
        if directory != existing and directory.is_relative_to(existing):
            create_directory(directory, mode=mode)


def _refuse_foreign(data_dir: Path) -> None:
    found = data_dir.stat()
    if found.st_uid != os.geteuid():
        raise LocalServerError(f"{data_dir} belongs to user {found.st_uid}: only its owner can use it")
    if found.st_mode & 0o002:
        raise LocalServerError(f"{data_dir} can be written by everybody: choose a private data directory")


def _moved_to(data_dir: Path) -> Path | None:
    try:
        target = Path((data_dir / "moved-to").read_text().strip())
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Only root moves, and only to its own places: a path that anybody else wrote leads nowhere.
    if target.parent not in {
        root / "clusters" for root in privileges.PRIVATE_ROOTS
    } or target.name.startswith("."):
        raise LocalServerError(f"{data_dir / 'moved-to'} names {target}, which hotmesh did not create")
    return target


def _move(data_dir: Path) -> Path:
    clusters = private_root() / "clusters"
    make_directory(clusters, mode=0o755)
    target = Path(tempfile.mkdtemp(dir=clusters))
    target.chmod(0o711)
    note = data_dir / f"{target.name}.partial"
    note.write_text(f"{target}\n")
    try:
        # A link, unlike a rename, fails if another process has decided already; then its choice holds.
        os.link(note, data_dir / "moved-to")
        return target
    except FileExistsError:
        target.rmdir()
        return _moved_to(data_dir) or data_dir
    finally:
        note.unlink()
