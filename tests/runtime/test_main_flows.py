"""What everybody uses, on the newest and the oldest Postgres of this machine, by its owner and by a login with no more than
the rights it needs, and through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from bouncer import Bouncer
from harness import app_login, connected, eventually, settled
from hotmesh import HotMesh, JobError, StreamData, Worker

pytestmark = pytest.mark.anyio

APP = "main-flows"

FLOWS = """
app:
  id: main-flows
  version: '1'
  graphs:
    - subscribes: order
      publishes: ordered
      expire: 3600
      activities:
        start: {type: trigger, stats: {id: '{$self.input.data.id}'}}
        nap: {type: hook, sleep: 0.1}
        approve:
          type: hook
          hook: {type: object}
          job: {maps: {by: '{$self.hook.data.by}'}}
        price:
          type: await
          topic: price
          input: {maps: {x: '{start.output.data.x}'}}
          job: {maps: {price: '{$self.output.data.y}'}}
      transitions:
        start: [{to: nap}]
        nap: [{to: approve}]
        approve: [{to: price}]
      hooks:
        approval:
          - to: approve
            conditions:
              match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]
    - subscribes: price
      expire: 3600
      activities:
        ask: {type: trigger}
        compute:
          type: worker
          topic: compute
          input: {maps: {x: '{ask.output.data.x}'}}
          job: {maps: {y: '{$self.output.data.y}'}}
      transitions:
        ask: [{to: compute}]
    - subscribes: outside
      expire: 3600
      activities:
        from: {type: trigger}
        far:
          type: worker
          topic: far
          input: {maps: {x: '{from.output.data.x}'}}
          job: {maps: {y: '{$self.output.data.y}', by: '{$self.output.data.by}'}}
      transitions:
        from: [{to: far}]
"""


@dataclass(frozen=True)
class Place:
    """A database, and the ways there: `direct` is None where the first is as good. `owner`: that of the tests."""

    url: str
    owner: str
    direct: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {
            "app_id": APP,
            "connection": self.url,
            "direct_connection": self.direct,
            "migrate": "auto" if self.url == self.owner else "verify",
        }


@pytest.fixture(params=["newest", "oldest", "newest, app login", "oldest, app login", "PgBouncer"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    match request.param:
        case "PgBouncer":
            bouncer: Bouncer = request.getfixturevalue("bouncer")
            url = request.getfixturevalue("database_url")
            yield Place(bouncer.url(url), url, url)
        case name:
            server = request.getfixturevalue("server" if name.startswith("newest") else "old_server")
            template = request.getfixturevalue("make_template")
            database = request.getfixturevalue("make_database")
            url = database(server, template(server))
            if name.endswith("app login"):
                with app_login(url) as login:
                    yield Place(login, url)
            else:
                yield Place(url, url)


@asynccontextmanager
async def mesh_at(place: Place) -> AsyncIterator[HotMesh]:
    async def compute(message: StreamData) -> dict[str, Any]:
        return {"y": message.data["x"] * 2}

    async with HotMesh.init(**place.options, workers=[Worker("compute", compute)]) as mesh:
        await mesh.deploy(FLOWS)
        await mesh.activate("1")
        yield mesh


async def test_timers_signals_children_and_interrupts(place: Place) -> None:
    told: list[str] = []

    def hear(_topic: str, output: Any) -> None:
        told.append(output.metadata["jid"])

    async with (
        mesh_at(place) as mesh,
        HotMesh.init(**place.options) as other,
        connected(place.owner) as connection,
    ):
        await other.sub("ordered", hear)
        began = time.monotonic()
        ids = [await mesh.pub("order", {"id": f"o{x}", "x": x}) for x in range(10)]
        refused = asyncio.create_task(mesh.pubsub("order", {"id": "no", "x": 0}, timeout=20))
        waits = "select count(*) from hotmesh.wait where app_id = $1"
        await eventually(lambda: _is(connection, waits, 11), what="eleven waits")
        assert time.monotonic() - began >= 0.1
        await mesh.interrupt("order", "no", reason="not wanted")
        with pytest.raises(JobError, match="not wanted"):
            await refused
        await asyncio.gather(
            *((mesh, other)[n % 2].signal("approval", {"id": job, "by": "me"}) for n, job in enumerate(ids))
        )
        await settled(connection, APP)
        states = [await other.get_state("order", job) for job in ids]
        await eventually(lambda: set(told) >= set(ids), what="all that was published")

    assert [state.data for state in states] == [{"by": "me", "price": x * 2} for x in range(10)]


async def _is(connection: Any, query: str, count: int) -> bool:
    return bool(await connection.fetchval(query, APP) == count)


PROGRAM = """
import asyncio, os, sys
from hotmesh import HotMesh, Worker
name, patience = sys.argv[1], float(sys.argv[2])
async def far(message):
    if patience:
        print("got", flush=True)
        await asyncio.sleep(patience)
    return {"y": message.data["x"] + 1, "by": name}
async def main():
    async with HotMesh.init("main-flows", engine=False, workers=[Worker("far", far)], lease=1):
        print("up", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@contextmanager
def process(place: Place, name: str, patience: float = 0) -> Iterator[subprocess.Popen[str]]:
    """A process with one worker, connected by its environment."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HOTMESH_DATABASE_URL": place.url}
    if place.direct is not None:
        environment["HOTMESH_DIRECT_URL"] = place.direct
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, name, str(patience)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


async def says(started: subprocess.Popen[str], word: str) -> None:
    assert started.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(started.stdout.readline), 30)
    assert re.match(word, line), line


async def test_a_worker_in_another_process_and_its_death(place: Place) -> None:
    async with mesh_at(place) as mesh, connected(place.owner) as connection:
        with process(place, "first", patience=600) as first:
            await says(first, "up")
            waiting = asyncio.create_task(mesh.pubsub("outside", {"x": 1}, timeout=30))
            await says(first, "got")
            first.kill()
        with process(place, "second") as second:
            await says(second, "up")
            outputs = await asyncio.gather(
                waiting, *(mesh.pubsub("outside", {"x": x}, timeout=30) for x in range(2, 6))
            )
        await settled(connection, APP)

    assert [output.data for output in outputs] == [{"y": x + 1, "by": "second"} for x in range(1, 6)]
