"""A database whose worker logins need their passwords, on each server that this machine has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from guarded import GUARDED, remove_logins

from hotmesh.postgres.local import LocalServer, lock

pytest.register_assert_rewrite("attacks", "stage")

_numbers = count()


@pytest.fixture(scope="session")
def guarded_server(any_server: LocalServer) -> LocalServer:
    """As `any_server`, with passwords for members of the role `GUARDED`."""
    with lock.locked(
        Path(os.environ["HOTMESH_TEST_DIRECTORY"], f"guarded-{any_server.data_dir.name}"),
        timedelta(seconds=60),
    ):
        asyncio.run(_guard(any_server.url("postgres")))
    return any_server


async def _guard(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("select count(*) from pg_roles where rolname = $1", GUARDED):
            return
        path = Path(await connection.fetchval("show hba_file"))
        rules = path.read_text()  # noqa: ASYNC240 - nothing else runs
        path.write_text(f"local all +{GUARDED} scram-sha-256\n{rules}")  # noqa: ASYNC240
        await connection.execute(f"create role {GUARDED} nologin")
        await connection.execute("select pg_reload_conf()")
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def guarded_database(guarded_server: LocalServer, any_template: str) -> Iterator[str]:
    """The URL of a database of a `guarded_server`, shared by the tests of a module."""
    name = f"guarded_{os.getpid()}_{next(_numbers)}"
    asyncio.run(_administer(guarded_server, f"create database {name} template {any_template}"))
    yield guarded_server.url(name)
    asyncio.run(remove_logins(guarded_server.url(name)))
    asyncio.run(_administer(guarded_server, f"drop database {name} with (force)"))


@pytest.fixture
def guarded_url(guarded_database: str) -> Iterator[str]:
    """As `guarded_database`; the logins that a test makes are gone after it."""
    yield guarded_database
    asyncio.run(remove_logins(guarded_database))


async def _administer(server: LocalServer, statement: str) -> None:
    connection = await asyncpg.connect(server.url("postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
