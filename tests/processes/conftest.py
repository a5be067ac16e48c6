"""A troupe for each test, ended with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from troupe import Forge, Troupe


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture
async def troupe(forge: Forge, database_url: str, scratch: Path) -> AsyncIterator[Troupe]:
    troupe = Troupe(forge, database_url, scratch)
    try:
        await troupe.open()
        yield troupe
    finally:
        await troupe.end()
