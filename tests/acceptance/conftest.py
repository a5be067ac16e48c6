"""One mesh for a module: its graphs from `tests/graphs/acceptance`, its workers from the module itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hotmesh import HotMesh, Worker

GRAPHS = Path(__file__).parents[1] / "graphs" / "acceptance"


@pytest.fixture(scope="module")
async def mesh(request: pytest.FixtureRequest, module_database_url: str) -> AsyncIterator[HotMesh]:
    """The app named like the module (`test_jobs.py` → `jobs.yaml`), with the workers of its `WORKERS`."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    workers = [
        made if isinstance(made, Worker) else Worker(topic, made)
        for topic, made in getattr(request.module, "WORKERS", {}).items()
    ]
    async with HotMesh.init(name, connection=module_database_url, workers=workers) as mesh:
        await mesh.deploy(GRAPHS / f"{name}.yaml")
        await mesh.activate("1")
        yield mesh
