"""The tables of one app, for tests of what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tables import APP, Tables

from harness import connected


@pytest.fixture
async def tables(database_url: str) -> AsyncIterator[Tables]:
    async with connected(database_url) as connection:
        await connection.execute("insert into hotmesh.app (app_id) values ($1)", APP)
        yield Tables(connection, database_url)
