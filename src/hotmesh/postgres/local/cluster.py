"""One cluster: creating it, launching its postmaster, watching it and taking it down.

Whoever changes anything here holds the home's `lock`; see the package's docstring for what a crash leaves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

from hotmesh.errors import LocalServerError
from hotmesh.postgres.local.directories import PORT, Home, socket_in
from hotmesh.postgres.local.lock import is_free, open_lock, try_lock, wait_until
from hotmesh.postgres.local.privileges import Account, create_directory, run_as

SUPERUSER = "hotmesh"
DATABASE = "hotmesh"

LONGEST_START = timedelta(seconds=120)
"""A start after a crash replays what was committed since the last checkpoint, which takes seconds on slow disks."""

LONGEST_SHUTDOWN = timedelta(seconds=60)

LOG_LIMIT = 8 * 1024 * 1024
"""Bytes of the log from which it is moved aside."""

SIGNALS = {"smart": "TERM", "fast": "INT", "immediate": "QUIT"}
"""How to ask the postmaster to end: when all clients have left, at once, or without a checkpoint."""

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""A question that Postgres answers with one byte, before it looks at anything else, and without a line in the log."""

SETTINGS = """
# Set by hotmesh when it created this cluster. What you change here stays.
listen_addresses = ''
max_connections = 200
shared_buffers = 128MB
max_wal_size = 1GB
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
log_line_prefix = '%m [%p] '
"""

UNSAFE_SETTINGS = """
# A cluster for tests: a crash of the machine may destroy it.
fsync = off
synchronous_commit = off
full_page_writes = off
"""


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What `postmaster.pid` says. `ready` once clients are served, which includes any recovery being over."""

    pid: int
    started_at: float
    socket_dir: Path
    ready: bool


def read_postmaster(home: Home) -> Postmaster | None:
    """The postmaster that last wrote its file, alive or not; None if there is none, or it has just begun."""
    try:
        lines = (home.cluster / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # pid, data directory, start, port, socket directory, listen address, shared memory, status
    if len(lines) < 5:
        return None
    status = lines[7].strip() if len(lines) > 7 else ""
    return Postmaster(int(lines[0]), float(lines[2]), Path(lines[4]), ready=status == "ready")


def serving(home: Home) -> Postmaster | None:
    """The postmaster that serves clients now. Costs about a millisecond."""
    postmaster = read_postmaster(home)
    if postmaster is not None and postmaster.ready and _answers(postmaster.socket_dir):
        return postmaster
    return None


def cluster_major(home: Home) -> int | None:
    """The major version that created the cluster; None if there is no cluster yet."""
    try:
        return int((home.cluster / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def create_cluster(
    home: Home, account: Account, bin_dir: Path, major: int, *, alive: int, sync: bool
) -> None:
    """Make `home.cluster`, with its database, or nothing at all.

    Without `sync` neither this nor anything that the cluster ever does waits for the disk. The programs inherit
    `alive`, so that nobody cleans up below them if we die first.
    """
    shutil.rmtree(home.partial, ignore_errors=True)
    create_directory(home.partial, mode=0o700, owner=account)
    try:
        options = _initdb_options(home.partial, major, sync=sync)
        _succeed(account, [bin_dir / "initdb", *options], alive)
        with _append_only(home.partial / "postgresql.conf") as file:
            file.write((SETTINGS if sync else SETTINGS + UNSAFE_SETTINGS).encode())
        # Postgres without a server: the cluster is not reachable by anybody before it is complete.
        single = ["--single", "-c", "log_min_messages=error", "-D", str(home.partial), "postgres"]
        _succeed(account, [bin_dir / "postgres", *single], alive, stdin=f"create database {DATABASE}\n")
        home.partial.rename(home.cluster)
        _sync_directory(home.path)
    except BaseException:
        shutil.rmtree(home.partial, ignore_errors=True)
        raise


def launch(home: Home, account: Account, bin_dir: Path, socket_dir: Path, *, alive: int) -> None:
    """Start the postmaster. It outlives us, and holds `alive` until the last of its processes has ended."""
    trim_log(home)
    with _append_only(home.log) as log:
        command = [str(bin_dir / "postgres"), "-D", str(home.cluster), "-k", str(socket_dir), "-p", str(PORT)]
        run_as(
            account,
            # The shell leaves at once, and so the postmaster is nobody's child: not a zombie when it ends.
            ["/bin/sh", "-c", 'exec "$@" &', "sh", *command],
            keep=[alive],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def wait_ready(home: Home) -> Postmaster:
    """The postmaster once it serves. Raises LocalServerError, with its last words, if it ended or takes too long."""

    def decided() -> bool:
        return serving(home) is not None or is_free(home.alive)

    wait_until(decided, LONGEST_START)
    postmaster = serving(home)
    if postmaster is None:
        what = (
            "ended" if is_free(home.alive) else f"does not answer after {LONGEST_START.total_seconds():.0f} s"
        )
        raise LocalServerError(f"the Postgres of {home.path} {what}:\n{last_words(home)}")
    return postmaster


@contextmanager
def alone(home: Home) -> Iterator[int | None]:
    """For the block no process of the cluster exists but those that inherit the descriptor it gives.

    It gives None instead if a server turns out to be running already. Waits for processes that are ending, such as
    those a killed postmaster leaves, and for a server that another starter, killed since, has launched. Raises
    LocalServerError if they stay.
    """
    alive = open_lock(home.alive)
    running = False

    def decided() -> bool:
        # In this order: a server launched by hand answers although it does not hold the lock.
        nonlocal running
        running = serving(home) is not None
        return running or try_lock(alive)

    try:
        if not wait_until(decided, LONGEST_START):
            raise LocalServerError(
                f"processes of an earlier server still run in {home.path}, and none of them answers:\n{last_words(home)}"
            )
        if running:
            yield None
        else:
            _refuse_unlocked_server(home)
            _remove_stale_files(home)
            yield alive
    finally:
        os.close(alive)


def find_up(home: Home) -> Postmaster | None:
    """The postmaster, however well it is, if any process of the cluster lives; None otherwise.

    Waits for one that has just been launched to tell its process id.
    """

    def decided() -> bool:
        return read_postmaster(home) is not None or is_free(home.alive)

    wait_until(decided, LONGEST_START)
    postmaster = read_postmaster(home)
    if postmaster is not None and is_free(home.alive) and not _answers(postmaster.socket_dir):
        return None  # only its file is left
    return postmaster


def take_down(home: Home, account: Account, postmaster: Postmaster, mode: str) -> None:
    """End the server and wait for its last process. Raises LocalServerError if that takes more than a minute."""
    # As the account, not as root: the process id comes from a file that the account may write.
    kill = ["/bin/sh", "-c", f'kill -s {SIGNALS[mode]} "$1"', "sh", str(postmaster.pid)]
    run_as(account, kill, capture_output=True)

    def ended() -> bool:
        return is_free(home.alive) and not _answers(postmaster.socket_dir)

    if not wait_until(ended, LONGEST_SHUTDOWN):
        raise LocalServerError(f"the Postgres of {home.path} has not ended:\n{last_words(home)}")


def end_unreachable(home: Home, account: Account) -> None:
    """End a server whose socket is gone, which a cleaner of old files may do: nobody can ever reach it again."""
    postmaster = read_postmaster(home)
    if postmaster is None or not postmaster.ready or socket_in(postmaster.socket_dir).exists():
        return
    if not is_free(home.alive):
        take_down(home, account, postmaster, "fast")


def last_words(home: Home) -> str:
    """The last lines of the log, for an error message."""
    try:
        with home.log.open("rb") as file:
            file.seek(max(0, home.log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "(it wrote no log)"
    return "\n".join([*lines[-12:], f"(from {home.log})"])


def trim_log(home: Home) -> None:
    """Move the log aside once it is long. The server goes on writing to the same file, which is then short again."""
    try:
        if home.log.stat().st_size < LOG_LIMIT:
            return
    except FileNotFoundError:
        return
    shutil.copyfile(home.log, home.older_log)
    os.truncate(home.log, 0)


def _initdb_options(directory: Path, major: int, *, sync: bool) -> list[str]:
    options = [f"--pgdata={directory}", f"--username={SUPERUSER}", "--encoding=UTF8", "--no-instructions"]
    # Without a password: who can enter the socket's directory is who may connect.
    options.append("--auth=trust")
    if not sync:
        options.append("--no-sync")
    if major >= 17:  # this one does not depend on the machine's locales
        return [*options, "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return [*options, "--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]


def _succeed(account: Account, command: list[str | Path], alive: int, *, stdin: str = "") -> None:
    done = run_as(
        account, command, keep=[alive], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0 or "FATAL:" in done.stdout or "ERROR:" in done.stdout:
        raise LocalServerError(f"{Path(command[0]).name} failed:\n{done.stdout.strip()}")


@contextmanager
def _append_only(path: Path) -> Iterator[IO[bytes]]:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        yield file


def _answers(socket_dir: Path) -> bool:
    # That it accepts the connection would prove little: the kernel does so until the last moment of a dying process.
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(socket_in(socket_dir)))
            client.sendall(SSL_REQUEST)
            return client.recv(1) != b""
        except (FileNotFoundError, NotADirectoryError, ConnectionError):
            return False
        except (BlockingIOError, TimeoutError):
            return True  # so busy that its queue is full


def _refuse_unlocked_server(home: Home) -> None:
    """A server that somebody launched by hand does not hold `alive`; it may be starting up, or have lost its socket."""
    postmaster = read_postmaster(home)
    if postmaster is not None and _is_postmaster_of(home, postmaster.pid):
        raise LocalServerError(
            f"process {postmaster.pid} runs Postgres in {home.cluster}, but was not started by hotmesh: stop it first"
        )


def _is_postmaster_of(home: Home, pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's process; Postgres comes to the same conclusion
    if Path("/proc/self/cwd").exists():
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").samefile(home.cluster)  # where a postmaster always is
        return False
    shown = subprocess.run(  # noqa: S603
        ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return str(home.cluster) in shown.stdout


def _remove_stale_files(home: Home) -> None:
    # Postgres believes these files if any process has the id they name, and after a reboot one often has.
    postmaster = read_postmaster(home)
    if postmaster is not None:
        socket_path = socket_in(postmaster.socket_dir)
        for path in (socket_path, socket_path.with_name(f"{socket_path.name}.lock")):
            path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (home.cluster / "postmaster.pid").unlink()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
