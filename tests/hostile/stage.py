"""What the attacks are made on: an app with work for a stolen login, and much that is none of its business."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from guarded import login, provision

from harness import connected, eventually, init_within
from hotmesh import HotMesh, StreamData, Worker, WorkerCredential
from hotmesh.runtime.limits import MemberLimits
from hotmesh.runtime.upkeep.stalled_logins import StalledLoginLimits

SECRET = "TOP-SECRET"
"""Is in everything that a stolen login must never see."""


def _graph(topic: str, start: str, call: str) -> str:
    """Started by `order.<topic>`: one worker, whose answer is the job's data."""
    return f"""
    - subscribes: order.{topic}
      expire: 3600
      activities:
        {start}: {{type: trigger}}
        {call}:
          type: worker
          topic: {topic}
          input: {{maps: {{x: '{{{start}.output.data.x}}'}}}}
          job: {{maps: {{y: '{{$self.output.data.y}}'}}}}
      transitions: {{{start}: [{{to: {call}}}]}}"""


def graphs(app_id: str) -> str:
    return f"""
app:
  id: {app_id}
  version: '1'
  graphs:{_graph("charge", "start", "call")}{_graph("ship", "packed", "send")}{_graph("hidden", "begin", "hide")}
    - subscribes: ask
      expire: 3600
      activities:
        asked: {{type: trigger}}
        wait: {{type: hook, job: {{maps: {{y: '{{$self.hook.data.y}}'}}}}}}
      transitions: {{asked: [{{to: wait}}]}}
      hooks:
        told:
          - to: wait
            conditions: {{match: [{{expected: '{{$job.metadata.jid}}', actual: '{{$self.hook.data.id}}'}}]}}
"""


CLAIM = "select * from hotmesh.worker_claim($1, $2, $3, $4, $5, $6)"
ANSWER = "select hotmesh.worker_answer($1, $2, $3, $4, $5, $6, $7)"
ADD = "select hotmesh.worker_add($1, $2, $3, $4, $5, $6, $7, $8)"
POSTPONE = "select hotmesh.worker_postpone($1, $2, $3, $4, $5, $6)"
EXTEND = "select hotmesh.worker_extend($1, $2, $3, $4, $5)"
BURY = "select hotmesh.worker_bury($1, $2, $3, $4, $5, $6)"
NEXT = "select hotmesh.worker_next_at($1, $2, $3)"


@dataclass
class Stage:
    """`owner` may do everything; `stolen` is the login of the attacker, `honest` that of another worker of its topic."""

    url: str
    owner: asyncpg.Connection
    mesh: HotMesh
    stolen: WorkerCredential
    honest: WorkerCredential
    worker: asyncpg.Connection

    @asynccontextmanager
    async def attacker(self) -> AsyncIterator[asyncpg.Connection]:
        async with connected(login(self.url, self.stolen)) as connection:
            yield connection

    async def work(self, x: Any = 1) -> str:
        """A new job whose work the stolen login may take; returns its id."""
        return await self.mesh.pub("order.charge", {"x": x})

    async def generation(self, job_id: str) -> Any:
        return await self.owner.fetchval("select generation from hotmesh.job where job_id = $1", job_id)

    async def finish(self) -> None:
        """The app goes on: a job of each kind runs to its end, by the honest worker, and by one of the mesh."""
        charged = asyncio.create_task(self.mesh.pubsub("order.charge", {"x": 4}, timeout=20))
        shipped = asyncio.create_task(self.mesh.pubsub("order.ship", {"x": 4}, timeout=20))

        async def told() -> bool:
            held = await claim(self.worker, 100, member="honest")
            if held:
                assert all(await answer(self.worker, held, '{"y": 8}', member="honest"))
            return charged.done()

        await eventually(told, within=20, what="the charge")
        assert (await charged).data == {"y": 8}
        assert (await shipped).data == {"y": 8}


WATCHFUL = MemberLimits(
    stalled_logins=StalledLoginLimits(longest_transaction=0.5, look_period=0.2, idle_period=0.2)
)
"""Of a member that soon ends what stands still."""


@asynccontextmanager
async def staged(url: str, limits: MemberLimits = WATCHFUL) -> AsyncIterator[Stage]:
    """The stage, set up in a database of its own."""

    async def double(message: StreamData) -> dict[str, Any]:
        return {"y": message.data["x"] * 2}

    async with HotMesh.init("vault", connection=url) as vault:
        await vault.deploy(graphs("vault"))
        await vault.activate("1")
        await vault.pub("order.charge", {"x": f"{SECRET} of another app"})
    async with (
        connected(url) as owner,
        init_within(limits, "shop", connection=url, workers=[Worker("ship", double)]) as mesh,
    ):
        await mesh.deploy(graphs("shop"))
        await mesh.activate("1")
        await mesh.pub("order.hidden", {"x": f"{SECRET} of another topic"}, extended={"id": "hidden"})
        stolen = await provision(
            url, ["charge"], max_held=5, max_callback=100, max_delay=50, connection_limit=12
        )
        honest = await provision(url, ["charge", "refund"])
        async with connected(login(url, honest)) as worker:
            yield Stage(url, owner, mesh, stolen, honest, worker)


async def claim(
    connection: asyncpg.Connection,
    limit: int = 1,
    *,
    topic: str = "charge",
    member: str = "m",
    lease: float = 30.0,
) -> list[Any]:
    return list(await connection.fetch(CLAIM, member, [topic], [None], ["{}"], [limit], lease))


def named(rows: Sequence[Any]) -> list[list[Any]]:
    """The three arrays that name work."""
    return [
        [row["generation"] for row in rows],
        [row["activity_id"] for row in rows],
        ["{" + ",".join(map(str, row["dimension"])) + "}" for row in rows],
    ]


async def answer(
    connection: asyncpg.Connection,
    rows: Sequence[Any],
    data: str | None = "{}",
    *,
    status: str | None = "success",
    code: int | None = 200,
    member: str = "m",
) -> list[bool]:
    count = len(rows)
    held: list[bool] = await connection.fetchval(
        ANSWER, member, *named(rows), [status] * count, [code] * count, [data] * count
    )
    return held


async def add(
    connection: asyncpg.Connection,
    row: Any,
    data: str | None = '{"y": 666}',
    *,
    guid: str | None = "g",
    status: str | None = "success",
    code: int | None = 200,
    **other: Any,
) -> str:
    """Add an answer to the work of a row; `other`: job_id, generation, activity, dimension that it is said to be of."""
    [generation], [activity], [dimension] = named([row])
    named_as = {
        "job_id": row["job_id"],
        "generation": generation,
        "activity": activity,
        "dimension": dimension,
    }
    outcome: str = await connection.fetchval(ADD, *(named_as | other).values(), guid, status, code, data)
    return outcome
