"""What a flow leaves in memory: nothing, even where nobody looks for cycles."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator

import pytest

from harness import one_worker
from hotmesh import HotMesh, StreamData, Worker

pytestmark = pytest.mark.anyio

APP = "memory"


async def double(message: StreamData) -> dict[str, int]:
    return {"y": message.data["x"] * 2}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_flows_are_freed_without_the_garbage_collector(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", double)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")

        async def flows(count: int) -> int:
            for _ in range(count // 50):
                await asyncio.gather(*(mesh.pubsub("one", {"x": 1}, timeout=30) for _ in range(50)))
            return sys.getallocatedblocks()

        before = await flows(1_500)  # the limits of callers who have gone are swept at a thousand
        after = await flows(1_000)

        assert after - before < 1_000, "blocks of memory that a thousand flows left behind"
