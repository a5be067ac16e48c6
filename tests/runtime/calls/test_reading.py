"""What can be read of jobs, and how they are cancelled, interrupted and removed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import connected, eventually, owed
from hotmesh import (
    ConfigError,
    GetStateError,
    HotMesh,
    JobCompletedError,
    JobNotFoundError,
    StreamData,
    Worker,
)

pytestmark = pytest.mark.anyio

GRAPHS = """
app:
  id: readers
  version: '1'
  graphs:
    - subscribes: order
      publishes: order.done
      expire: 3600
      activities:
        placed: {type: trigger}
        charge:
          type: worker
          topic: charge
          input: {maps: {amount: '{placed.output.data.amount}'}}
          job: {maps: {receipt: '{$self.output.data.receipt}'}}
        ship:
          type: worker
          topic: ship
          input: {maps: {receipt: '{charge.output.data.receipt}', to: '{placed.output.data.to}'}}
        parcel:
          type: hook
          output: {maps: {weight: 3}}
      transitions:
        placed: [{to: charge}]
        charge: [{to: ship}]
        ship: [{to: parcel}]
    - subscribes: idle
      expire: 3600
      activities:
        begin: {type: trigger}
        nobody: {type: worker, topic: nobody, input: {maps: {n: '{begin.output.data.n}'}}}
        sleeper: {type: hook, sleep: 3600}
        signalled: {type: hook}
      transitions:
        begin: [{to: nobody}, {to: sleeper}, {to: signalled}]
      hooks:
        wake.up:
          - to: signalled
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
    - subscribes: rounds
      expire: 3600
      activities:
        start: {type: trigger}
        pivot: {type: hook, output: {maps: {n: 0}}}
        count:
          type: worker
          topic: count
          input: {maps: {n: '{pivot.output.data.n}'}}
          job: {maps: {n: '{$self.output.data.n}'}}
        again: {type: cycle, ancestor: pivot, input: {maps: {n: '{count.output.data.n}'}}}
      transitions:
        start: [{to: pivot}]
        pivot: [{to: count}]
        count:
          - to: again
            conditions:
              match:
                - expected: true
                  actual: {'@pipe': [['{count.output.data.n}', 3], ['{@conditional.less_than}']]}
    - subscribes: fails
      expire: 3600
      activities:
        first: {type: trigger}
        refused: {type: worker, topic: refused}
      transitions:
        first: [{to: refused}]
"""


async def charge(message: StreamData) -> dict[str, Any]:
    return {"receipt": f"r{message.data['amount']}"}


async def ship(message: StreamData) -> dict[str, Any]:
    return {"tracking": message.data["receipt"] + message.data["to"]}


async def count(message: StreamData) -> dict[str, Any]:
    return {"n": message.data["n"] + 1}


class Refused(Exception):
    code = 422


async def refuse(_: StreamData) -> dict[str, Any]:
    raise Refused("no")


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[HotMesh]:
    workers = [
        Worker("charge", charge),
        Worker("ship", ship),
        Worker("count", count),
        Worker("refused", refuse),
    ]
    async with HotMesh.init(app_id="readers", connection=url, workers=workers) as mesh:
        await mesh.deploy(GRAPHS)
        await mesh.activate("1")
        yield mesh


@pytest.mark.row(54)
async def test_the_status_of_an_unknown_job(database_url: str) -> None:
    async with reading(database_url) as mesh:
        with pytest.raises(JobNotFoundError, match=r"^Job nope not found in app [a-z]+$"):
            await mesh.get_status("nope")


@pytest.mark.row(55)
async def test_the_state_of_a_scrubbed_job(database_url: str) -> None:
    async with reading(database_url) as mesh, connected(database_url) as connection:
        done = await mesh.pubsub("order", {"amount": 5, "to": "Rome"}, timeout=10)
        idle = await mesh.pub("idle", {"n": 1})
        other = await mesh.pub("idle", {"n": 2})
        for job_id in (done.metadata.jid, idle):
            await mesh.scrub(job_id)
            with pytest.raises(GetStateError, match=f"Job {job_id} not found"):
                await mesh.get_state("order", job_id)
            with pytest.raises(JobNotFoundError):
                await mesh.get_status(job_id)
        await mesh.scrub("nope")

        left = await connection.fetchval("select count(distinct generation) from hotmesh.activity")
        assert left == 1
        assert await owed(connection, "readers") == {
            "worker_stream": 1,
            "timer": 1,
            "wait": 1,
            "live jobs": 1,
        }
        assert await mesh.get_status(other) == 3
        assert await mesh.pub("idle", {}, extended={"id": idle}) == idle


async def test_a_worker_that_answers_for_a_scrubbed_job_disturbs_nobody(database_url: str) -> None:
    async with HotMesh.init(app_id="readers", connection=database_url) as mesh:
        await mesh.deploy(GRAPHS)
        await mesh.activate("1")
        job_id = await mesh.pub("order", {"amount": 1, "to": "Oslo"}, extended={"id": "gone"})
        scrubbed = False

        async def scrub(message: StreamData) -> dict[str, Any]:
            nonlocal scrubbed
            if not scrubbed:
                await mesh.scrub(message.metadata.jid)
                scrubbed = True
            return {"receipt": "late"}

        workers = [Worker("charge", scrub), Worker("ship", ship)]
        async with HotMesh.init(app_id="readers", connection=database_url, workers=workers) as other:
            await eventually(lambda: scrubbed)
            output = await other.pubsub(
                "order", {"amount": 1, "to": "Oslo"}, timeout=10, extended={"id": job_id}
            )
    assert output.data == {"receipt": "late"}


@pytest.mark.row(59)
async def test_search_fields_markers_and_entity(database_url: str) -> None:
    extended = {
        "search": {"k": "v", "n": 7, "yes": True},
        "marker": {"-m": "x", "dropped": "y"},
        "entity": "customer",
    }
    async with reading(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("idle", {}, extended=extended)
        found = await mesh.get_query_state(
            job_id, ["k", "n", "yes", '"-m"', '"_k"', "unknown", "dropped", "m"]
        )
        assert found == {
            "k": "v", "n": "7", "yes": "true", "-m": "x", "_k": "v", "unknown": None, "dropped": None, "m": None,
        }  # fmt: skip
        assert await mesh.get_query_state("nope", ["k"]) == {"k": None}
        with pytest.raises(ConfigError):
            await mesh.get_query_state(job_id, "k")
        entity = await connection.fetchval("select entity from hotmesh.job where job_id = $1", job_id)
    assert entity == "customer"


@pytest.mark.row(65)
async def test_text_with_special_characters_is_stored_as_it_is(database_url: str) -> None:
    text = """'single' "double" $1 %L \\ {a.b} {@x} \u2028 ☕"""
    async with reading(database_url) as mesh:
        job_id = await mesh.pub("idle", {"n": text}, extended={"search": {"k": text}})
        raw = await mesh.get_raw(job_id)
        exported = await mesh.export(job_id, enrich_inputs=True)
        assert (await mesh.get_query_state(job_id, ["k"]))["k"] == text
    assert raw["input"] == {"n": text}
    assert raw["_k"] == text
    assert exported["process"]["0"]["begin"]["output"]["data"] == {"n": text}
    assert exported["activities"][0]["input"] == {"n": text}


async def test_everything_that_is_stored_of_a_job(database_url: str) -> None:
    async with reading(database_url) as mesh:
        job_id = await mesh.pub("idle", {"n": 1}, extended={"search": {"k": "v"}, "marker": {"-m": 1}})
        raw = await mesh.get_raw(job_id)
        await mesh.cancel(job_id)
        cancelled = await mesh.get_raw(job_id)
        with pytest.raises(GetStateError, match=r"Job nope not found in app [a-z]+$"):
            await mesh.get_raw("nope")
    assert (raw[":"], raw["status"], raw["job_id"], raw["topic"]) == (3, 3, job_id, "idle")
    assert (raw["_k"], raw["-m"]) == ("v", 1)
    assert raw["sleeper,0,0"]["state"] == "open"
    assert "-cancelled-" not in raw
    assert (cancelled["-cancelled-"], cancelled[":"]) == ("1", 3)
    json.dumps(raw)


async def test_cancelling_is_durable_changes_nothing_else_and_forgives_unknown_jobs(
    database_url: str,
) -> None:
    async with reading(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("idle", {})
        await mesh.cancel(job_id)
        await mesh.cancel(job_id)
        await mesh.cancel("nope")
        await mesh.signal("wake.up", {"id": job_id})
        await eventually(lambda: _has_status(mesh, job_id, 2))
        assert await connection.fetchval("select cancelled from hotmesh.job where job_id = $1", job_id)


async def _has_status(mesh: HotMesh, job_id: str, status: int) -> bool:
    return await mesh.get_status(job_id) == status


@pytest.mark.row(196)
async def test_an_interrupt_with_reason_and_code(database_url: str) -> None:
    async with reading(database_url) as mesh:
        job_id = await mesh.pub("idle", {})
        await mesh.interrupt("idle", job_id, reason="enough", code=418, stack="here")
        status = await mesh.get_status(job_id)
        state = await mesh.get_state("idle", job_id)
        exported = await mesh.export(job_id)
    assert -1_000_000_000 <= status < -999_999_000
    assert json.loads(state.metadata.err) == {
        "code": 418, "message": "enough", "stack": "here", "job_id": job_id,
    }  # fmt: skip
    assert exported["status"] == str(status)


@pytest.mark.row(197)
async def test_a_second_interrupt(database_url: str) -> None:
    async with reading(database_url) as mesh:
        job_id = await mesh.pub("idle", {})
        await mesh.interrupt("idle", job_id)
        with pytest.raises(
            JobCompletedError, match=f"^Job {job_id} already completed: it was interrupted at 20"
        ):
            await mesh.interrupt("idle", job_id)
        assert await mesh.interrupt("idle", job_id, suppress=True) is None


@pytest.mark.row(198)
async def test_an_interrupt_of_an_unknown_job(database_url: str) -> None:
    async with reading(database_url) as mesh:
        with pytest.raises(JobNotFoundError, match=r"^Job nope not found in app [a-z]+$"):
            await mesh.interrupt("idle", "nope")
        assert await mesh.interrupt("idle", "nope", suppress=True) is None


@pytest.mark.row(201)
@pytest.mark.parametrize("how", ["interrupt", "scrub"])
async def test_nothing_of_a_stopped_job_stays_queued(database_url: str, how: str) -> None:
    async with reading(database_url) as mesh, connected(database_url) as connection:
        stopped = await mesh.pub("idle", {})
        other = await mesh.pub("idle", {})
        # Reserved work and delayed messages count as well.
        await connection.execute(
            "update hotmesh.worker_stream set reserved_by = 'somebody', visible_at = now() + interval '1 hour' "
            "where job_id = $1",
            stopped,
        )
        await connection.execute(
            "insert into hotmesh.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension, "
            "status, code, visible_at, created_at) select app_id, job_id, generation, 'x', 'enter', 'nobody', '{0}', "
            "'success', 200, now() + interval '1 hour', now() from hotmesh.job"
        )
        before = await _rows_of(connection, other)
        if how == "interrupt":
            await mesh.interrupt("idle", stopped)
            await mesh.interrupt("idle", stopped, suppress=True)
        else:
            await mesh.scrub(stopped)
            await mesh.scrub(stopped)
        assert await _rows_of(connection, stopped) == [0, 0, 0, 0]
        assert await _rows_of(connection, other) == before == [1, 1, 1, 1]


async def _rows_of(connection: Any, job_id: str) -> list[int]:
    tables = ("worker_stream", "engine_stream", "timer", "wait")
    return [
        await connection.fetchval(f"select count(*) from hotmesh.{table} where job_id = $1", job_id)
        for table in tables
    ]


@pytest.mark.row(209)
async def test_the_export_of_a_finished_job(database_url: str) -> None:
    async with reading(database_url) as mesh:
        output = await mesh.pubsub("order", {"amount": 5, "to": "Rome"}, timeout=10)
        exported = await mesh.export(output.metadata.jid)
        with pytest.raises(GetStateError, match=r"Job nope not found in app [a-z]+$"):
            await mesh.export("nope")
    assert exported["dependencies"] == []
    assert exported["status"] == "0"
    assert "activities" not in exported
    top = exported["process"]["0"]
    assert top["placed"]["output"]["data"] == {"amount": 5, "to": "Rome"}
    assert top["0"]["charge"]["output"]["data"] == {"receipt": "r5"}
    assert top["0"]["0"]["0"]["parcel"]["output"]["data"] == {"weight": 3}
    metadata = top["0"]["charge"]["output"]["metadata"]
    assert (metadata["aid"], metadata["atp"], metadata["stp"], metadata["dad"]) == (
        "charge",
        "worker",
        "charge",
        ",0,0",
    )
    job = exported["process"]["$order"]
    assert job["data"] == {"receipt": "r5"}
    assert (job["metadata"]["jid"], job["metadata"]["js"]) == (output.metadata.jid, 0)
    json.dumps(exported)


@pytest.mark.row(210)
async def test_the_export_with_inputs(database_url: str) -> None:
    async with reading(database_url) as mesh:
        output = await mesh.pubsub("order", {"amount": 5, "to": "Rome"}, timeout=10)
        activities = (await mesh.export(output.metadata.jid, enrich_inputs=True))["activities"]
        idle = await mesh.pub("idle", {"n": 4})
        queued = (await mesh.export(idle, enrich_inputs=True))["activities"]
        job_id = await mesh.pub("fails", {})
        await eventually(lambda: _has_status(mesh, job_id, 0))
        failed = (await mesh.export(job_id, enrich_inputs=True))["activities"]

    assert [(entry["name"], entry["type"], entry["dimension"]) for entry in activities] == [
        ("charge", "worker", "0/0"),
        ("ship", "worker", "0/0/0"),
    ]
    assert [entry["input"] for entry in activities] == [{"amount": 5}, {"receipt": "r5", "to": "Rome"}]
    assert [entry["output"] for entry in activities] == [{"receipt": "r5"}, {"tracking": "r5Rome"}]
    for entry in activities:
        assert entry["started_at"].endswith("Z")
        assert entry["completed_at"].endswith("Z")
        assert entry["duration_ms"] >= 0
        assert entry["error"] is None
        assert entry["retry_attempt"] == 0
        assert "cycle_iteration" not in entry
    assert [(entry["name"], entry["input"], entry["output"], entry["completed_at"]) for entry in queued] == [
        ("nobody", {"n": 4}, None, None)
    ]
    assert queued[0]["retry_attempt"] == 0
    assert failed[0]["error"]["code"] == 422


@pytest.mark.parametrize("engine", [True, False], ids=["with an engine", "without an engine"])
async def test_an_export_says_how_often_answered_work_has_failed(database_url: str, engine: bool) -> None:
    async def third_time(message: StreamData) -> Any:
        if message.metadata.get("try", 0) < 2:
            raise ValueError("not yet")
        return {"receipt": "r"}

    retry = {"maximum_attempts": 5, "initial_interval": 0.01, "maximum_interval": 0.01}
    async with (
        reading(database_url) as mesh,
        HotMesh.init(
            "readers",
            connection=database_url,
            engine=engine,
            workers=[Worker("nobody", third_time, retry=retry)],
        ),
    ):
        job_id = await mesh.pub("idle", {"n": 1})
        await eventually(lambda: _has_status(mesh, job_id, 2))
        entry = (await mesh.export(job_id, enrich_inputs=True))["activities"][0]

    assert (entry["output"], entry["retry_attempt"]) == ({"receipt": "r"}, 2)


async def test_an_export_tells_the_passes_of_a_cycle_apart(database_url: str) -> None:
    async with reading(database_url) as mesh:
        output = await mesh.pubsub("rounds", {}, timeout=10)
        activities = (await mesh.export(output.metadata.jid, enrich_inputs=True))["activities"]
    assert [(entry["cycle_iteration"], entry["input"], entry["output"]) for entry in activities] == [
        (0, {"n": 0}, {"n": 1}),
        (1, {"n": 1}, {"n": 2}),
        (2, {"n": 2}, {"n": 3}),
    ]


async def test_an_export_has_the_parts_that_were_asked_for(database_url: str) -> None:
    async with reading(database_url) as mesh:
        job_id = await mesh.pub("idle", {})
        assert (await mesh.export(job_id, allow=["status"])) == {"status": "3"}
        some = await mesh.export(job_id, enrich_inputs=True, block=["process", "dependencies"])
        assert some.keys() == {"status", "activities"}
        with pytest.raises(ConfigError, match="dependencies, process, status, activities"):
            await mesh.export(job_id, allow=["state"])


async def test_an_instance_without_an_engine_reads(database_url: str) -> None:
    async with reading(database_url) as mesh:
        job_id = await mesh.pub("idle", {"n": 4})
        async with HotMesh.init(app_id="readers", connection=database_url, engine=False) as reader:
            assert (await reader.get_raw(job_id))[":"] == 3
            assert (await reader.export(job_id))["status"] == "3"
            assert (await reader.explain(job_id)).status == 3
