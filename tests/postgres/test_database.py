"""The handle: statements by name, what is asked once more, and what a worker login is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness import connected
from hotmesh.errors import ConnectionLostError, NotAuthorizedError
from hotmesh.postgres import definitions, notifications
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.logins.login import WorkerLogin
from hotmesh.postgres.logins.work import LoginWork, work_queue
from hotmesh.postgres.work import OrdinaryWork, queue_depth

pytestmark = pytest.mark.anyio

LOGIN = WorkerLogin("app", frozenset({"t"}), "the channel", 60.0, 600.0, 600.0, 1000)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(ConnectionSource(database_url), "hotmesh", "app", patience=5)
    yield database
    await database.close()


def a_database(login: WorkerLogin | None) -> Database:
    """One that is never connected."""
    return Database(ConnectionSource("postgresql://nowhere"), 'an "odd" one', "app", login=login)


def test_a_query_is_known_by_its_file_and_bound_to_the_schema_once() -> None:
    database = a_database(None)

    text = database.query("app_state")

    assert 'from "an ""odd"" one".app where' in text
    assert database.query("app_state") is text
    with pytest.raises(KeyError):
        database.query("no such file")


def test_a_statement_is_bound_once() -> None:
    database = a_database(None)

    assert database.bound("select mesh.clock()") == 'select "an ""odd"" one".clock()'
    assert database.bound("select mesh.clock()") is database.bound("select mesh.clock()")


async def test_a_query_that_only_reads_is_asked_once_more_when_its_connection_breaks(
    database: Database, database_url: str
) -> None:
    async with database.connection() as connection:
        backend = connection.get_server_pid()
    async with connected(database_url) as other:
        await other.execute("select pg_terminate_backend($1, 5000)", backend)

    assert await definitions.app_state(database) is None


async def test_once_it_is_closed_it_says_so(database: Database) -> None:
    await database.close()

    with pytest.raises(ConnectionLostError, match="this instance of app app has stopped"):
        await definitions.app_state(database)


@pytest.mark.parametrize("login", [None, LOGIN], ids=["an ordinary login", "a worker login"])
async def test_only_a_worker_login_is_told_what_it_may_do(
    database_url: str, login: WorkerLogin | None
) -> None:
    database = Database(ConnectionSource(database_url), "hotmesh", "app", login=login)
    with pytest.raises(NotAuthorizedError) as raised:
        async with database.connection():
            raise NotAuthorizedError("no")
    await database.close()

    assert ("this is a worker login" in str(raised.value)) is (login is not None)


def test_the_work_queue_is_that_of_the_login() -> None:
    assert isinstance(work_queue(a_database(None)), OrdinaryWork)
    assert isinstance(work_queue(a_database(LOGIN)), LoginWork)


async def test_a_worker_login_knows_its_channel_and_sees_no_queues() -> None:
    database, nobody = a_database(LOGIN), Any

    assert await notifications.channel(database, nobody) == "the channel"  # type: ignore[arg-type]
    assert await queue_depth(database) == []
