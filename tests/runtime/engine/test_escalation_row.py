"""The work item that a hook's `escalation` block writes, and how it ends with the wait."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from harness import eventually
from hotmesh import HotMesh, JobError, SystemEvent

pytestmark = pytest.mark.anyio

GRAPH = """
app:
  id: review
  version: '1'
  graphs:
    - subscribes: review.start
      expire: 3600
      activities:
        t1: {type: trigger}
        h1:
          type: hook
          sleep: '{t1.output.data.sleep}'
          escalation:
            role: approver
            type: order-approval
            subtype: '{t1.output.data.region}'
            priority: 2
            description: {'@pipe': [['Order ', '{t1.output.data.order}'], ['{@string.concat}']]}
            metadata: {order: '{t1.output.data.order}', deep: {region: '{t1.output.data.region}'}}
            envelope: {hint: look twice}
          job: {maps: {ok: '{$self.hook.data.ok}'}}
        h2:
          type: hook
      transitions:
        t1:
          - to: h1
          - to: h2
            conditions: {match: [{expected: true, actual: '{t1.output.data.plain}'}]}
      hooks:
        review.done:
          - to: h1
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
    - subscribes: review.rounds
      expire: 3600
      activities:
        t3: {type: trigger}
        p3: {type: hook}
        h3: {type: hook, sleep: '{p3.output.data.sleep}', escalation: {role: approver, metadata: {round: '{p3.output.data.round}'}}}
        c3: {type: cycle, ancestor: p3, input: {maps: {round: '{h3.hook.data.round}', sleep: '{h3.hook.data.sleep}'}}}
      transitions:
        t3: [{to: p3}]
        p3: [{to: h3}]
        h3: [{to: c3, conditions: {match: [{expected: false, actual: '{$self.hook.data.ok}'}]}}]
      hooks:
        review.round:
          - to: h3
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
"""


told: list[SystemEvent] = []


@pytest.fixture
async def mesh(database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("review", connection=database_url, events=told.append) as mesh:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        yield mesh


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def item(database: asyncpg.Connection, job_id: str, status: str | None = None) -> Any:
    async def look() -> Any:
        row = await database.fetchrow("select * from hotmesh.escalation where workflow_id = $1", job_id)
        return row if row is not None and status in (None, row["status"]) else None

    return await eventually(look)


@pytest.mark.row(173)
async def test_the_item_is_written_with_the_wait(mesh: HotMesh, database: asyncpg.Connection) -> None:
    job_id = await mesh.pub("review.start", {"order": "A1", "region": "north"})

    row = await item(database, job_id)
    assert (row["signal_key"], row["workflow_id"], row["topic"]) == (job_id, job_id, "review.done")
    assert (row["role"], row["type"], row["subtype"], row["priority"]) == (
        "approver",
        "order-approval",
        "north",
        2,
    )
    assert (row["status"], row["namespace"], row["app_id"]) == ("pending", "hotmesh", "review")


@pytest.mark.row(181)
async def test_pipes_and_nested_values_are_resolved(mesh: HotMesh, database: asyncpg.Connection) -> None:
    job_id = await mesh.pub("review.start", {"order": "A1", "region": "north"})

    row = await item(database, job_id)
    assert row["description"] == "Order A1"
    assert json.loads(row["metadata"]) == {"order": "A1", "deep": {"region": "north"}}
    assert json.loads(row["envelope"]) == {"hint": "look twice"}


@pytest.mark.row(175)
async def test_a_signal_resolves_the_item_and_the_job_goes_on(
    mesh: HotMesh, database: asyncpg.Connection
) -> None:
    job_id = await mesh.pub("review.start", {"order": "A1"})

    await mesh.signal("review.done", {"id": job_id, "ok": True})

    row = await item(database, job_id, "resolved")
    assert json.loads(row["resolver_payload"]) == {"id": job_id, "ok": True}
    assert row["resolved_at"] is not None
    assert (await mesh.get_state("review.start", job_id)).data == {"ok": True}


@pytest.mark.row(178)
async def test_a_timer_that_wins_expires_the_item(mesh: HotMesh, database: asyncpg.Connection) -> None:
    output = await mesh.pubsub("review.start", {"order": "A1", "sleep": 0.05}, timeout=10)

    assert (await item(database, output.metadata.jid))["status"] == "expired"


@pytest.mark.row(179)
async def test_an_interrupt_cancels_the_item(mesh: HotMesh, database: asyncpg.Connection) -> None:
    job_id = await mesh.pub("review.start", {"order": "A1"})

    await mesh.interrupt("review.start", job_id)

    assert (await item(database, job_id))["status"] == "cancelled"


async def test_every_round_of_a_cycle_has_an_item_of_its_own(
    mesh: HotMesh, database: asyncpg.Connection
) -> None:
    job_id = await mesh.pub("review.rounds", {})
    items = "select status from hotmesh.escalation where workflow_id = $1 order by metadata ->> 'round' nulls first"

    async def seen() -> list[str]:
        return [row["status"] for row in await database.fetch(items, job_id)]

    async def are(*expected: str) -> None:
        async def look() -> bool:
            return await seen() == list(expected)

        await eventually(look, what=" and ".join(expected))

    await are("pending")
    await mesh.signal("review.round", {"id": job_id, "ok": False, "round": 2})
    await are("resolved", "pending")
    await mesh.signal("review.round", {"id": job_id, "ok": False, "round": 3, "sleep": 0.05})
    await are("resolved", "resolved", "expired")

    def verbs() -> list[str]:
        return [event.type.rpartition(".")[2] for event in told if event.workflow_id == job_id]

    await eventually(lambda: len(verbs()) == 6)
    assert verbs() == ["created", "resolved", "created", "resolved", "created", "expired"]


@pytest.mark.row(176)
async def test_a_hook_without_the_block_writes_no_item(mesh: HotMesh, database: asyncpg.Connection) -> None:
    await mesh.pub("review.start", {"order": "A1", "plain": True})

    assert await database.fetchval("select count(*) from hotmesh.escalation") == 1


@pytest.mark.row(177)
async def test_an_item_of_its_own_needs_no_signal_key(database: asyncpg.Connection) -> None:
    for _ in range(2):
        await database.execute(
            "insert into hotmesh.escalation (namespace, app_id, role) values ('n', 'a1', 'ops')"
        )

    assert await database.fetchval("select count(*) from hotmesh.escalation where signal_key is null") == 2


async def test_an_item_that_cannot_be_written_fails_its_hook_only(mesh: HotMesh) -> None:
    broken = GRAPH.replace("priority: 2", "priority: high").replace("version: '1'", "version: '2'")
    await mesh.deploy(broken)
    await mesh.activate("2")

    with pytest.raises(JobError, match=r"escalation\.priority of hook h1 resolved to 'high'"):
        await mesh.pubsub("review.start", {"order": "A1"}, timeout=10)
