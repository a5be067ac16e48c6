"""The Postgres of the tests: started by the run itself, and gone with it.

All servers live in one directory directly below /tmp, which `guard.py` clears when the run ends, in whatever way.
The main server is shared by all workers of pytest-xdist; each test has a database of its own, cloned from a template.

The whole suite runs on the Postgres that `HOTMESH_TEST_POSTGRES_BIN` names, else on the newest found. Tests that ask for
`any_server` or `any_database_url` also run on the oldest Postgres of the machine (`tools.py`).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import guard
import tools
from bouncer import Bouncer, run_bouncer
from hotmesh.postgres import local
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.local import LocalServer, lock
from hotmesh.postgres.migrate import migrate

TEMPLATE = "hotmesh_template"

_numbers = count()


def pytest_configure(config: pytest.Config) -> None:
    _clear_environment()
    directory = os.environ.get("HOTMESH_TEST_DIRECTORY")
    if directory is None:  # so this process is not a worker of another one
        directory = tempfile.mkdtemp(prefix="hotmesh-test-", dir="/tmp")
        if os.geteuid() == 0:
            Path(directory).chmod(0o711)  # for the account that root's servers run as
        os.environ["HOTMESH_TEST_DIRECTORY"] = directory
        Path(directory, "run").touch(mode=0o600)
        config.add_cleanup(_guard(directory))
    else:
        guard.take_part()
    os.environ["HOTMESH_DATA_DIR"] = str(Path(directory, "default"))
    if os.environ.get("HOTMESH_TEST_POSTGRES_BIN"):
        os.environ["HOTMESH_POSTGRES_BIN"] = os.environ["HOTMESH_TEST_POSTGRES_BIN"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out because this machine lacks something."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    )
    for reason, number in sorted(reasons.items()):
        if reason.startswith(tools.NEEDS):
            terminalreporter.write_line(
                f"left out: {number} tests, which {reason.replace('needs', 'need', 1)}", yellow=True
            )


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> LocalServer:
    """A running Postgres that never waits for the disk, shared by the whole run."""
    return local.ensure_running(Path(os.environ["HOTMESH_TEST_DIRECTORY"], "shared"), sync=False)


@pytest.fixture(scope="session")
def old_server(server: LocalServer) -> LocalServer:
    """As `server`, with the oldest supported Postgres of this machine; the test is left out if there is none."""
    with tools.using(tools.old_postgres(server.version)):
        return local.ensure_running(Path(os.environ["HOTMESH_TEST_DIRECTORY"], "old"), sync=False)


@pytest.fixture(scope="session", params=["newest", "oldest"])
def any_server(request: pytest.FixtureRequest) -> LocalServer:
    """`server` and `old_server`: what uses it runs on both."""
    name = "server" if request.param == "newest" else "old_server"
    found: LocalServer = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="session")
def bouncer(server: LocalServer) -> Iterator[Bouncer]:
    """A PgBouncer in transaction mode before `server`; the test is left out where there is none."""
    with run_bouncer(server) as bouncer:
        yield bouncer


@pytest.fixture
def pooled_database_url(bouncer: Bouncer, database_url: str) -> str:
    """The way to `database_url` through `bouncer`."""
    return bouncer.url(database_url)


@pytest.fixture
def scratch() -> Path:
    """A new directory that the account which root's servers run as can enter, unlike pytest's `tmp_path`.

    Servers with their data below it end with the run at the latest.
    """
    path = Path(os.environ["HOTMESH_TEST_DIRECTORY"], f"{os.getpid()}-{next(_numbers)}")
    path.mkdir()
    path.chmod(0o711)
    return path


@pytest.fixture
def empty_database_url(server: LocalServer) -> Iterator[str]:
    """The URL of a new database without any tables, dropped after the test with whoever is still connected."""
    yield from _database(server, template="template1")


@pytest.fixture
def database_url(server: LocalServer, template: str) -> Iterator[str]:
    """The URL of a new database with the current schema, dropped after the test with whoever is still connected."""
    yield from _database(server, template=template)


@pytest.fixture(scope="module")
def module_database_url(server: LocalServer, template: str) -> Iterator[str]:
    """As `database_url`, shared by the tests of a module."""
    yield from _database(server, template=template)


@pytest.fixture
def any_empty_database_url(any_server: LocalServer) -> Iterator[str]:
    """As `empty_database_url`, on each of `any_server`."""
    yield from _database(any_server, template="template1")


@pytest.fixture
def any_database_url(any_server: LocalServer, any_template: str) -> Iterator[str]:
    """As `database_url`, on each of `any_server`."""
    yield from _database(any_server, template=any_template)


@pytest.fixture(scope="session")
def template(server: LocalServer) -> str:
    """The name of the database that `database_url` clones, prepared once for all workers."""
    return _template(server)


@pytest.fixture(scope="session")
def any_template(any_server: LocalServer) -> str:
    """As `template`, on each of `any_server`."""
    return _template(any_server)


@pytest.fixture
def make_database() -> Iterator[Callable[[LocalServer, str], str]]:
    """Makes a database of a server from a template, and drops it after the test."""
    with ExitStack() as stack:
        yield lambda server, template: stack.enter_context(
            contextmanager(_database)(server, template=template)
        )


@pytest.fixture(scope="session")
def make_template() -> Callable[[LocalServer], str]:
    """Names the template of a server, made if need be."""
    return _template


def _template(server: LocalServer) -> str:
    directory = Path(os.environ["HOTMESH_TEST_DIRECTORY"])
    with lock.locked(directory / f"template-{server.data_dir.name}", timedelta(seconds=60)):
        # Marked as a template only when it is ready: one that was left half made is made anew.
        ready = f"select 1 from pg_database where datname = '{TEMPLATE}' and datistemplate"
        if _administer(server, ready) is None:
            _administer(server, f"drop database if exists {TEMPLATE} with (force)")
            _administer(server, f"create database {TEMPLATE}")
            asyncio.run(migrate(ConnectionSource(server.url(TEMPLATE)), "hotmesh"))
            _administer(server, f"alter database {TEMPLATE} with is_template true allow_connections false")
    return TEMPLATE


def _database(server: LocalServer, *, template: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _administer(server, f"create database {name} template {template}")
    yield server.url(name)
    _administer(server, f"drop database {name} with (force)")


def _administer(server: LocalServer, statement: str) -> Any:
    async def execute() -> Any:
        connection = await asyncpg.connect(server.url("postgres"))
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(execute())


def _clear_environment() -> None:
    """What the developer has set for work must not reach the tests, nor the tests that database."""
    for name in list(os.environ):
        if name.startswith(("HOTMESH_", "HMSH_", "PG")) and not name.startswith("HOTMESH_TEST_"):
            del os.environ[name]


def _guard(directory: str) -> Callable[[], None]:
    # In a session of its own, or the Ctrl-C that ends pytest would end its guard, too.
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("guard.py"), directory],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )

    def dismiss() -> None:
        process.communicate()
        os.environ.pop("HOTMESH_TEST_DIRECTORY", None)

    return dismiss
