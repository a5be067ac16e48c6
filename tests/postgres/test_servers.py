"""The servers that tests run on."""

from __future__ import annotations

import pytest

from harness import connected
from hotmesh.postgres.local import LocalServer

pytestmark = pytest.mark.anyio


async def test_a_database_of_any_server_is_on_that_server(
    any_database_url: str, any_server: LocalServer
) -> None:
    async with connected(any_database_url) as connection:
        version = connection.get_server_version()
        tables = await connection.fetchval(
            "select count(*) from pg_class where relnamespace = 'hotmesh'::regnamespace"
        )

    assert str(version.major) == any_server.version.split(".")[0]
    assert tables > 0


def test_the_old_server_is_older_than_the_other(server: LocalServer, old_server: LocalServer) -> None:
    assert int(old_server.version.split(".")[0]) < int(server.version.split(".")[0])
