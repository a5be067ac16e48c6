"""What tests of running meshes share: waiting for a state, short graphs, a worker, and what a database still owes."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from hotmesh import HotMesh
from hotmesh.compat import normal_form
from hotmesh.core.advance.endings import bury
from hotmesh.core.advance.limits import DEFAULT_LIMITS
from hotmesh.evaluate import system_environment
from hotmesh.postgres import commits, engine_stream, loading
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.migrate import grant
from hotmesh.postgres.steps import Batch
from hotmesh.runtime.limits import MemberLimits
from hotmesh.runtime.options import Options
from hotmesh.runtime.startup import Starting, start_instance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from hotmesh import StreamData
    from hotmesh.core.codec import Codec


@contextmanager
def app_login(url: str) -> Iterator[str]:
    """The URL of a migrated database with the login of an app, which owns nothing there and was granted what it needs."""
    name = "app_" + url.partition("?")[0].rpartition("/")[2]

    async def make() -> None:
        async with connected(url) as owner:
            await owner.execute(f"create role {name} login")
        await grant(ConnectionSource(url), "hotmesh", [name])

    async def remove() -> None:
        async with connected(url) as owner:
            await owner.execute(f"drop owned by {name}; drop role {name}")

    asyncio.run(make())
    try:
        yield url.replace("://hotmesh@", f"://{name}@")
    finally:
        asyncio.run(remove())


OBLIGATIONS = ("worker_stream", "engine_stream", "timer", "wait")
"""The tables whose rows mean that something is still to come."""


async def eventually(
    look: Callable[[], Any], *, within: float = 10.0, what: str | Callable[[], object] = "the state"
) -> Any:
    """The first true value of `look` (a function or a coroutine function), which is asked again and again; AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what() if callable(what) else what} did not come within {within:g} s")
        await asyncio.sleep(0.01)


class Doubler:
    """A worker that doubles once it may, and counts the runs of each job."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.runs = Counter[str]()

    async def __call__(self, message: StreamData) -> dict[str, Any]:
        self.runs[message.metadata.jid] += 1
        await self.gate.wait()
        return {"y": message.data["x"] * 2}


def init_within(limits: MemberLimits, app_id: str, **options: Any) -> Starting[HotMesh]:
    """As `HotMesh.init`, with services that have these bounds."""
    signature = inspect.signature(HotMesh.init).parameters.values()
    given = {parameter.name: parameter.default for parameter in signature} | {"app_id": app_id} | options

    async def begin() -> HotMesh:
        return HotMesh(await start_instance(Options.read(**normal_form(given)), limits))

    return Starting(begin)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def owed(connection: asyncpg.Connection, app_id: str, schema: str = "hotmesh") -> dict[str, int]:
    """What an app still owes: rows of each table of obligations, and jobs that have not ended; without the zeros."""
    counts = {
        table: await connection.fetchval(f'select count(*) from "{schema}".{table} where app_id = $1', app_id)
        for table in OBLIGATIONS
    }
    counts["live jobs"] = await connection.fetchval(
        f'select count(*) from "{schema}".job where app_id = $1 and status > 0', app_id
    )
    return {name: count for name, count in counts.items() if count}


async def settled(connection: asyncpg.Connection, app_id: str, *, within: float = 10.0) -> None:
    """Wait until the app owes nothing any more."""
    last: dict[str, int] = {}

    async def nothing() -> bool:
        last.clear()
        last.update(await owed(connection, app_id))
        return not last

    await eventually(nothing, within=within, what=lambda: f"an end of {last}")


async def bury_job(url: str, app_id: str, job_id: str, codec: Codec | None = None) -> None:
    """What an engine does with a job after its last try to handle what is due."""
    database = Database(ConnectionSource(url), "hotmesh", app_id, lambda: codec)
    try:
        job = await loading.load_job(database, job_id)
        assert job is not None
        reason = "Poison message detected: by a test"
        step = bury(None, job, reason, datetime.now(UTC), system_environment(), DEFAULT_LIMITS)
        batch = Batch(payload=database.payload)
        batch.add(0, step, local=(), send_delay=lambda _: 0.0)
        async with database.connection() as connection, connection.transaction():
            await engine_stream.bury_events(database, connection, job_id, job.generation, reason)
            epoch = await connection.fetchval("select epoch from hotmesh.app where app_id = $1", app_id)
            committed = await commits.commit(database, connection, batch, "engine", epoch, 1, 30.0, None)
            assert not committed.refused
    finally:
        await database.close()


def one_worker(app_id: str, topic: str = "w", *, more: str = "", activity: str = "") -> str:
    """trigger → worker, with the worker's answer as the job's data; `more` are further graphs."""
    return f"""
app:
  id: {app_id}
  version: '1'
  graphs:
    - subscribes: one
      publishes: one.done
      expire: 3600
      activities:
        start: {{type: trigger}}
        call:
          type: worker
          topic: {topic}
          input: {{maps: {{x: '{{start.output.data.x}}'}}}}
          job: {{maps: {{y: '{{$self.output.data.y}}'}}}}
          {activity}
      transitions:
        start: [{{to: call}}]
{more}"""
