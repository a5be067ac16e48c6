"""Runs the server as somebody other than root, and finds or makes what that somebody can reach.

Postgres refuses to run as root. So for root its processes run as an account that exists anyway; no account is
added, and no permission of any existing file is changed. Where the account cannot reach something, root keeps
a copy of it below a private root: a directory of root's, in which nobody else can write.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotmesh.errors import LocalServerError
from hotmesh.postgres.local.binaries import Binaries

UNPRIVILEGED = ("postgres", "nobody")
"""The accounts that serve root, best first."""

PRIVATE_ROOTS: tuple[Path, ...] = (Path("/var/lib/hotmesh"), Path("/var/tmp/hotmesh-root"))  # noqa: S108  checked by make_directory
"""Where root keeps what its own directories cannot hold; the second where the first cannot be written."""

PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""All that the server sees of our environment: the rest may hold secrets, or PG* variables that mislead it."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server's processes run as."""

    name: str
    uid: int
    gid: int


def server_account(candidates: Sequence[str] = UNPRIVILEGED) -> Account:
    """Ourselves; for root, who may not run Postgres, the first of the candidates that this machine has."""
    if os.geteuid() != 0:
        return Account(str(os.geteuid()), os.geteuid(), os.getegid())
    for name in candidates:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise LocalServerError(
        f"Postgres does not run as root, and none of the accounts {', '.join(candidates)} exists: "
        "run as an ordinary user, or set HOTMESH_DATABASE_URL to use another server"
    )


def account_of(path: Path) -> Account:
    """The owner of `path`, which must be one that the server can run as."""
    owner = path.stat()
    ourselves = server_account()
    if owner.st_uid == ourselves.uid:
        return ourselves
    try:
        entry = pwd.getpwuid(owner.st_uid)
    except KeyError:
        entry = None
    if os.geteuid() != 0 or entry is None or entry.pw_uid == 0:
        name = entry.pw_name if entry else f"user {owner.st_uid}"
        raise LocalServerError(f"{path} belongs to {name}: only its owner can use it")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def run_as(
    account: Account, command: Sequence[str | Path], *, keep: Sequence[int] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `command` as `account` in a session of its own, so that no Ctrl-C or hang-up of our terminal reaches it.

    It inherits the descriptors `keep`, and next to nothing of the environment. Raises LocalServerError if the
    account cannot be assumed.
    """
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # A locale that every machine has: messages in English, and macOS starts no thread to find out a language.
    environment |= {"LC_ALL": "C", "TZ": "UTC"}
    if os.geteuid() == 0:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        return subprocess.run(  # noqa: S603
            [str(part) for part in command],
            cwd="/",
            env=environment,
            pass_fds=keep,
            start_new_session=True,
            text=True,
            check=False,
            **options,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LocalServerError(f"cannot run {command[0]} as {account.name}: {error}") from error


def can_enter(account: Account, directory: Path) -> bool:
    """Whether `account` can reach what lies in `directory`, which exists."""
    return (
        run_as(account, ["/bin/sh", "-c", 'cd -- "$1"', "sh", directory], capture_output=True).returncode == 0
    )


def runnable_by(account: Account, binaries: Binaries) -> Path:
    """The directory of programs that `account` can run: the installation's own, or that of root's copy of it."""
    if _works_for(account, binaries.bin_dir):
        return binaries.bin_dir
    if os.geteuid() != 0:
        raise LocalServerError(f"the programs in {binaries.bin_dir} do not run; see what {_PROBE} says there")
    bin_dir = _private_copy(binaries)
    if not _works_for(account, bin_dir):
        raise LocalServerError(
            f"neither {binaries.bin_dir} nor its copy {bin_dir} can be run as {account.name}"
        )
    return bin_dir


def private_root(*, create: bool = True) -> Path:
    """A directory of root's own that everybody may pass through and only root may change.

    It is created if need be, or, without `create`, where it would be.
    """
    refusals = []
    for path in PRIVATE_ROOTS:
        try:
            if create or os.path.lexists(path):
                make_directory(path, mode=0o755)
            elif not os.access(path.parent, os.W_OK):
                refusals.append(f"{path.parent} cannot be written")
                continue
        except (OSError, LocalServerError) as error:
            refusals.append(str(error))
        else:
            return path
    raise LocalServerError(f"no directory for root's copies: {'; '.join(refusals)}")


def make_directory(path: Path, *, mode: int, owner: Account | None = None) -> None:
    """Create `path`, or check that it is what we would have created: a directory, of that owner, not wider.

    The check is what makes it safe to use a predictable name below a directory where others can write. Raises
    LocalServerError if something else stands there.
    """
    if not os.path.lexists(path):
        create_directory(path, mode=mode, owner=owner)
    uid = os.geteuid() if owner is None else owner.uid
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o777 & ~mode:
        raise LocalServerError(
            f"{path} is not a directory of user {uid} with mode {mode:o} or less: it will not be used"
        )


def create_directory(path: Path, *, mode: int, owner: Account | None = None) -> None:
    """Create `path` with its final owner and mode at once: no process sees it half made, whatever the umask.

    If it exists by now, because another process was faster, nothing happens.
    """
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        if owner is not None and os.geteuid() == 0:
            os.chown(fresh, owner.uid, owner.gid)
        fresh.chmod(mode)
        fresh.rename(path)
    except OSError:
        fresh.rmdir()
        if not os.path.lexists(path):
            raise


_PROBE = "initdb --show"


def _works_for(account: Account, bin_dir: Path) -> bool:
    # Runs a program, which runs another, and reads the installation's share files; it writes nothing.
    if not can_enter(account, bin_dir):
        return False
    shown = run_as(
        account, [bin_dir / "initdb", "--show", "--username=x", "--pgdata=/nonexistent"], capture_output=True
    )
    return shown.returncode == 0


def _private_copy(binaries: Binaries) -> Path:
    # By content: many virtual environments share one copy, and two builds of a version do not.
    with (binaries.bin_dir / "postgres").open("rb") as file:
        name = f"{binaries.version}-{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
    copies = private_root() / "binaries"
    make_directory(copies, mode=0o755)
    copy = copies / name
    inside = binaries.bin_dir.relative_to(binaries.root)
    if not copy.is_dir():
        partial = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=copies))
        try:
            for tree in binaries.trees:
                shutil.copytree(tree, partial / tree.relative_to(binaries.root), ignore=_not_needed_to_run)
            _make_readable(partial)
            partial.rename(copy)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not copy.is_dir():  # else another process was faster
                raise LocalServerError(f"cannot copy {binaries.bin_dir} to {copy}: {error}") from error
    return copy / inside


def _not_needed_to_run(directory: str, names: list[str]) -> set[str]:
    return {name for name in names if name in {"include", "pkgconfig", "__pycache__"} or name.endswith(".a")}


def _make_readable(tree: Path) -> None:
    """Let everybody read the copy, and nobody but root change it."""
    for directory, _, files in os.walk(tree):
        Path(directory).chmod(0o755)
        for name in files:
            path = Path(directory, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
