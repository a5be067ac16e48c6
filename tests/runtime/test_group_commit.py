"""How many commits an engine has on their way: two under load, one where other engines keep the database busy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import connected, eventually, one_worker, settled
from hotmesh import HotMesh, StreamData, Worker

pytestmark = pytest.mark.anyio

APP = "commits"


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


class Turnstile:
    """Holds back the commits of an engine, and counts those that are on their way."""

    def __init__(self, mesh: HotMesh) -> None:
        self.waiting = self.most = 0
        self.open = asyncio.Event()
        self._honest = mesh._store.commit
        mesh._store.commit = self._commit  # type: ignore[method-assign]

    async def _commit(self, *arguments: Any, **options: Any) -> Any:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.open.wait()
            return await self._honest(*arguments, **options)
        finally:
            self.waiting -= 1


async def all_done(mesh: HotMesh, calls: list[asyncio.Task[Any]], url: str) -> None:
    outputs = await asyncio.gather(*calls)
    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(len(calls))]
    async with connected(url) as connection:
        await settled(connection, APP)


def start(mesh: HotMesh) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(60)]


async def test_an_engine_alone_has_two_commits_on_their_way(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", double)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        turnstile = Turnstile(mesh)
        calls = start(mesh)
        await eventually(lambda: turnstile.waiting == 2, what="the second commit")
        turnstile.open.set()
        await all_done(mesh, calls, database_url)


async def test_an_engine_in_company_has_one_unless_that_is_held_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotmesh.runtime.engine.HELD_UP", 6.0)
    async with (
        HotMesh.init(APP, connection=database_url, workers=[Worker("w", double)]) as mesh,
        HotMesh.init(APP, connection=database_url),
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        engine = mesh._engine
        assert engine is not None
        turnstile = Turnstile(mesh)
        calls = start(mesh)
        await eventually(lambda: engine._company, what="a look around")
        turnstile.open.set()
        await all_done(mesh, calls, database_url)
        assert turnstile.most == 1

        # What stands in the way of the first is not in the way of the second.
        turnstile.open.clear()
        monkeypatch.setattr("hotmesh.runtime.engine.HELD_UP", 0.2)
        calls = [*start(mesh)]
        await eventually(lambda: turnstile.waiting == 1)
        calls += start(mesh)
        await eventually(lambda: turnstile.waiting == 2, within=60, what="the second commit")
        turnstile.open.set()
        await asyncio.gather(*calls)
