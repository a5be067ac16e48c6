"""The views: what they say, and that a filter on them reaches the indexes of the tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually
from hotmesh import HotMesh, JobError, Worker

pytestmark = pytest.mark.anyio

GRAPHS = """
app:
  id: views
  version: '7'
  graphs:
    - subscribes: order
      expire: 3600
      activities:
        t1: {type: trigger, stats: {key: '{$self.input.data.customer}'}}
        w1: {type: worker, topic: w, job: {maps: {y: '{$self.output.data.y}'}}}
        p1: {type: hook, output: {maps: {z: 1}}}
      transitions:
        t1: [{to: w1}]
        w1: [{to: p1}]
    - subscribes: idle
      expire: 3600
      activities:
        t2: {type: trigger}
        h2: {type: hook, sleep: 600}
        w2: {type: worker, topic: nobody}
      transitions:
        t2: [{to: h2}, {to: w2}]
      hooks:
        paid:
          - to: h2
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
    - subscribes: bad
      expire: 3600
      activities:
        t3: {type: trigger}
        w3: {type: worker, topic: bad}
      transitions:
        t3: [{to: w3}]
"""


class Declined(Exception):
    code = 422


async def work(_: Any) -> dict[str, Any]:
    return {"y": 2}


async def decline(message: Any) -> dict[str, Any]:
    raise Declined(message.metadata.jid + (" \0" if message.metadata.jid == "nul" else ""))


@asynccontextmanager
async def mesh_of(url: str) -> AsyncIterator[HotMesh]:
    workers = [Worker("w", work), Worker("bad", decline)]
    async with HotMesh.init(app_id="views", connection=url, workers=workers) as mesh:
        await mesh.deploy(GRAPHS)
        await mesh.activate("7")
        yield mesh


async def test_the_state_of_a_job_in_a_word(database_url: str) -> None:
    async with mesh_of(database_url) as mesh, connected(database_url) as connection:
        options = {"id": "complete", "entity": "customer", "search": {"k": "v"}}
        await mesh.pubsub("order", {"customer": "c1"}, timeout=10, extended=options)
        await mesh.pub("idle", {}, extended={"id": "running"})
        await mesh.pub("idle", {}, extended={"id": "interrupted"})
        await mesh.interrupt("idle", "interrupted", reason="enough")
        await mesh.pub("idle", {}, extended={"id": "pending", "pending": 60})
        await mesh.pub("idle", {}, extended={"id": "expired", "pending": 60})
        await connection.execute("update hotmesh.job set expires_at = now() where job_id = 'expired'")
        for job_id in ("failed", "nul"):
            with pytest.raises(JobError):
                await mesh.pubsub("bad", {}, timeout=10, extended={"id": job_id})

        rows = await connection.fetch("select * from hotmesh.job_status where app_id = 'views'")
    found = {row["job_id"]: row for row in rows}
    assert {job_id: row["state"] for job_id, row in found.items() if job_id != row["state"]} == {
        "nul": "failed"
    }
    assert len(found) == 7
    complete, running, failed = found["complete"], found["running"], found["failed"]
    assert (complete["topic"], complete["version"], complete["job_key"]) == ("order", "7", "c1")
    assert (complete["entity"], complete["cancelled"], complete["open_obligations"]) == ("customer", False, 0)
    assert (json.loads(complete["data"]), json.loads(complete["search"])) == ({"y": 2}, {"_k": "v"})
    assert complete["duration"] == complete["ended_at"] - complete["created_at"]
    assert complete["idle"] is None
    assert running["open_obligations"] == 2
    assert timedelta() <= running["idle"] <= running["duration"]
    assert (failed["error_code"], failed["error_message"]) == ("422", "Declined: failed")
    assert (failed["error_activity"], failed["error_attempt"]) == ("w3", 1)
    assert (found["nul"]["error_activity"], found["nul"]["error_attempt"]) == (None, None)
    assert (found["interrupted"]["error_activity"], found["interrupted"]["error_attempt"]) == (None, None)
    assert (found["interrupted"]["error_code"], found["interrupted"]["error_message"]) == ("410", "enough")
    assert "\\u0000" in found["nul"]["error_message"]


async def test_what_a_job_did_and_when(database_url: str) -> None:
    async with mesh_of(database_url) as mesh, connected(database_url) as connection:
        done = (await mesh.pubsub("order", {}, timeout=10)).metadata.jid
        idle = await mesh.pub("idle", {})
        timeline = (
            "select * from hotmesh.job_timeline where app_id = 'views' and job_id = $1 order by started_after"
        )
        finished, unfinished = await connection.fetch(timeline, done), await connection.fetch(timeline, idle)
    assert [(row["activity_id"], row["type"], row["address"], row["state"]) for row in finished] == [
        (None, "job", "0", "closed"),
        ("w1", "worker", "0/0", "closed"),
        ("p1", "hook", "0/0/0", "closed"),
    ]
    assert finished[0]["started_after"] == timedelta()
    assert finished[1]["started_after"] >= timedelta()
    assert (json.loads(finished[1]["output"]), finished[1]["code"]) == ({"y": 2}, 200)
    assert {(row["activity_id"], row["state"]) for row in unfinished} == {
        (None, "open"),
        ("h2", "open"),
        ("w2", "queued"),
    }


async def test_what_is_queued_and_what_waits(database_url: str) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> dict[str, Any]:
        started.set()
        await release.wait()
        return {}

    async with mesh_of(database_url) as mesh, connected(database_url) as connection:
        job_ids = [await mesh.pub("idle", {}) for _ in range(4)]
        await connection.execute(
            "update hotmesh.worker_stream set created_at = created_at - interval '1 hour', "
            "visible_at = visible_at - interval '1 hour' where job_id = $1",
            job_ids[0],
        )
        await connection.execute(
            "update hotmesh.worker_stream set visible_at = now() + interval '1 hour', attempt = 1 where job_id = $1",
            job_ids[1],
        )
        async with HotMesh.init(
            app_id="views",
            connection=database_url,
            engine=False,
            guid="holder",
            workers=[Worker("nobody", slow, max_concurrency=1)],
        ):
            await started.wait()
            (queue,) = await connection.fetch("select * from hotmesh.open_work where app_id = 'views'")
            release.set()
            await eventually(lambda: _answered(connection))
        sleeping = await connection.fetch("select * from hotmesh.sleeping where job_id = $1", job_ids[2])
        waiting = await connection.fetch("select * from hotmesh.waiting where job_id = $1", job_ids[2])
        everybody = await connection.fetchval(
            "select count(*) from hotmesh.waiting where signal_topic = 'paid'"
        )
    assert (queue["topic"], queue["total"]) == ("nobody", 4)
    assert (queue["ready"], queue["held"], queue["scheduled"]) == (2, 1, 1)
    assert (queue["retried"], queue["workers"]) == (1, 1)
    assert queue["oldest_age"] > timedelta(minutes=59)
    assert queue["longest_wait"] < timedelta(minutes=59)
    (timer,), (wait,) = sleeping, waiting
    assert (timer["job_topic"], timer["activity_id"], timer["address"], timer["failures"]) == (
        "idle",
        "h2",
        "0/0",
        0,
    )
    assert timedelta(minutes=9) < timer["due_in"] <= timedelta(minutes=10)
    assert (wait["signal_topic"], wait["signal_key"], wait["job_topic"]) == ("paid", job_ids[2], "idle")
    assert wait["waiting_for"] >= timedelta()
    assert everybody == 4


async def _answered(connection: asyncpg.Connection) -> bool:
    return not await connection.fetchval(
        "select count(*) from hotmesh.worker_stream where reserved_by is not null"
    )


async def test_every_table_and_every_column_of_the_views_and_of_job_is_documented(database_url: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
    async with connected(database_url) as connection:
        columns = await connection.fetch(
            "select table_name, column_name from information_schema.columns where table_schema = 'hotmesh'"
        )
        views = {
            row[0]
            for row in await connection.fetch("select viewname from pg_views where schemaname = 'hotmesh'")
        }
    assert views == {"job_status", "job_timeline", "open_work", "retrying", "sleeping", "waiting"}
    for name in views | {"job"}:
        section = page.partition(f"### {name}\n")[2].partition("\n### ")[0]
        missing = {
            row["column_name"]
            for row in columns
            if row["table_name"] == name and f"`{row['column_name']}`" not in section
        }
        assert not missing, (name, missing)
    assert (
        not {row["table_name"] for row in columns if f"`{row['table_name']}`" not in page}
        - views
        - {"job", "activity"}
    )


JOBS = 50_000

FILL = f"""
    insert into hotmesh.job (
        app_id, job_id, generation, version, topic, seq, token, status, created_at, updated_at)
    select 'app' || 3 * (n % 2), 'job' || n, md5(n::text)::uuid, '1', 't', 1, 0, 1, now(), now()
      from generate_series(1, {JOBS}) as n;
    insert into hotmesh.activity (generation, activity_id, dimension, type, state, started_at, ended_at)
    select generation, 'a', '{{0,0}}', 'worker', 'closed', now(), now() from hotmesh.job;
    insert into hotmesh.worker_stream (
        app_id, topic, generation, activity_id, dimension, job_id, workflow_name, visible_at, created_at)
    select app_id, 'w' || seq, generation, 'w', '{{0,1}}', job_id, 'x', now(), now() from hotmesh.job;
    insert into hotmesh.timer (app_id, job_id, generation, activity_id, dimension, due_at, set_at)
    select app_id, job_id, generation, 'h', '{{0,2}}', now() + random() * interval '1 day', now() from hotmesh.job;
    insert into hotmesh.wait (app_id, job_id, generation, activity_id, dimension, topic, key, created_at)
    select app_id, job_id, generation, 'h', '{{0,2}}', 's', job_id, now() from hotmesh.job;
"""

ANALYZE = "analyze hotmesh.job, hotmesh.activity, hotmesh.worker_stream, hotmesh.timer, hotmesh.wait"
"""Apart, once all of it is committed: a planner without statistics reads whole tables."""

ONE_JOB = "where app_id = 'app3' and job_id = 'job33333'"


async def test_filtered_views_read_only_what_they_show(database_url: str) -> None:
    """On 50,000 jobs of two apps; a scan of a table, or of all that an app has in it, would read thousands of rows for one."""
    async with connected(database_url) as connection:
        await connection.execute(FILL)
        await connection.execute(ANALYZE)
        for query, most in (
            (f"select * from hotmesh.job_status {ONE_JOB}", 10),
            (f"select * from hotmesh.job_timeline {ONE_JOB} order by started_after", 20),
            (f"select * from hotmesh.sleeping {ONE_JOB}", 10),
            (f"select * from hotmesh.waiting {ONE_JOB}", 10),
            (
                "select * from hotmesh.waiting where app_id = 'app3' and signal_topic = 's' and signal_key = 'job3'",
                10,
            ),
            ("select * from hotmesh.sleeping where app_id = 'app3' order by due_at limit 10", 50),
            ("select * from hotmesh.open_work where app_id = 'app3' and topic = 'no.such'", 10),
            ("select * from hotmesh.obligations(md5('33333')::uuid)", 10),
            ("select * from hotmesh.obligations(md5('33333')::uuid) where kind = 'timer'", 1),
        ):
            plan = json.loads(await connection.fetchval(f"explain (analyze, format json) {query}"))
            scanned = list(_scans(plan[0]["Plan"]))
            assert not [name for name, kind, _ in scanned if kind == "Seq Scan"], (query, scanned)
            assert sum(rows for _, _, rows in scanned) <= most, (query, scanned)


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Table, kind and number of the rows read of each scan of a plan."""
    if "Relation Name" in node:
        read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield node["Relation Name"], node["Node Type"], read * node["Actual Loops"]
    for below in node.get("Plans", ()):
        yield from _scans(below)
