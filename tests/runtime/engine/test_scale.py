"""Costs that must not grow with how much there is: of hooks in a row, passes, children and sleeping jobs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from harness import eventually
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.postgres import commits, engine_stream, loading
from hotmesh.postgres.work import OrdinaryWork
from hotmesh.runtime.engine.limits import EngineLimits

pytestmark = pytest.mark.anyio

HOOKS = 100


def graphs() -> str:
    names = [f"row{number}" for number in range(HOOKS)]
    hooks = ", ".join(f"{name}: {{type: hook}}" for name in names)
    row = ", ".join(
        f"{before}: [{{to: {after}}}]" for before, after in zip(["t1", *names], names, strict=False)
    )
    return f"""
app:
  id: scale
  version: '1'
  graphs:
    - subscribes: row
      activities: {{t1: {{type: trigger}}, {hooks}}}
      transitions: {{{row}}}
    - subscribes: turns
      activities:
        t2: {{type: trigger}}
        p2: {{type: hook, output: {{maps: {{n: 0}}}}}}
        w2: {{type: worker, topic: step, input: {{maps: {{n: '{{p2.output.data.n}}'}}}}, job: {{maps: {{n: '{{$self.output.data.n}}'}}}}}}
        c2: {{type: cycle, ancestor: p2, input: {{maps: {{n: '{{w2.output.data.n}}'}}}}}}
      transitions:
        t2: [{{to: p2}}]
        p2: [{{to: w2}}]
        w2:
          - to: c2
            conditions:
              match:
                - expected: true
                  actual: {{'@pipe': [['{{w2.output.data.n}}', '{{t2.output.data.limit}}'], ['{{@conditional.less_than}}']]}}
    - subscribes: parent
      activities:
        t3: {{type: trigger}}
        p3: {{type: hook, output: {{maps: {{n: 1}}}}}}
        a3: {{type: await, topic: child, input: {{maps: {{n: '{{p3.output.data.n}}'}}}}}}
        c3:
          type: cycle
          ancestor: p3
          input: {{maps: {{n: {{'@pipe': [['{{p3.output.data.n}}', 1], ['{{@math.add}}']]}}}}}}
      transitions:
        t3: [{{to: p3}}]
        p3:
          - to: a3
          - to: c3
            conditions:
              match:
                - expected: true
                  actual: {{'@pipe': [['{{p3.output.data.n}}', '{{t3.output.data.limit}}'], ['{{@conditional.less_than}}']]}}
    - subscribes: child
      activities:
        t4: {{type: trigger}}
        w4: {{type: worker, topic: step, input: {{maps: {{n: '{{t4.output.data.n}}'}}}}}}
      transitions:
        t4: [{{to: w4}}]
    - subscribes: rest
      activities:
        t6: {{type: trigger}}
        w6: {{type: worker, topic: step, input: {{maps: {{n: '{{t6.output.data.n}}'}}}}}}
        h6: {{type: hook, sleep: 3600}}
      transitions:
        t6: [{{to: w6}}]
        w6: [{{to: h6}}]
    - subscribes: sleep
      expire: 3600
      activities:
        t5: {{type: trigger}}
        h5: {{type: hook, sleep: '{{t5.output.data.seconds}}'}}
      transitions:
        t5: [{{to: h5}}]
"""


async def step(message: StreamData) -> dict[str, Any]:
    return {"n": message.data["n"] + 1}


@pytest.fixture
async def mesh(database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("scale", connection=database_url, workers=[Worker("step", step)]) as mesh:
        await mesh.deploy(graphs())
        await mesh.activate("1")
        yield mesh


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each statement of the engine and the workers has been executed."""
    counted: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)

        async def counting(*arguments: Any, **named: Any) -> Any:
            counted[name] += 1
            return await original(*arguments, **named)

        monkeypatch.setattr(owner, name, counting)

    count(commits, "commit")
    count(loading, "load_jobs")
    count(loading, "load_records")
    count(engine_stream, "lock_due_jobs")
    count(engine_stream, "next_event_at")
    count(OrdinaryWork, "claim")
    count(OrdinaryWork, "next_at")
    return counted


async def test_a_hundred_hooks_in_a_row_are_one_commit(calls: Counter[str], mesh: HotMesh) -> None:
    output = await mesh.pubsub("row", {}, timeout=10)

    assert output.metadata.js == 0
    assert calls["commit"] == 1


async def test_a_pass_is_one_commit_and_memory_keeps_a_bounded_part_of_its_history(
    calls: Counter[str], mesh: HotMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    original = commits.commit

    async def look(*arguments: Any, **options: Any) -> Any:
        committed = await original(*arguments, **options)
        assert mesh._member.engine is not None
        jobs = [cached.job for cached in mesh._member.engine.cache if cached.job is not None]
        kept.extend(sum(map(len, job.records.values())) for job in jobs)
        return committed

    monkeypatch.setattr(commits, "commit", look)
    output = await mesh.pubsub("turns", {"limit": 400}, timeout=60)

    assert output.data == {"n": 400}
    assert calls["commit"] <= 402
    assert max(kept) <= EngineLimits().cached_records
    assert calls["load_records"] <= 400 * 3 / EngineLimits().cached_records + 2


async def test_a_late_pass_is_loaded_with_as_few_pages_as_an_early_one(database: asyncpg.Connection) -> None:
    await database.execute("alter table hotmesh.activity set (autovacuum_enabled = false)")

    async def insert(first: int, last: int) -> None:
        await database.execute(
            "insert into hotmesh.activity (generation, activity_id, dimension, type, state, output, ended_at) "
            "select '00000000-0000-0000-0000-000000000001', a, array[0, n, 0], 'worker', 'closed', '{\"x\": 1}', now() "
            f"from generate_series({first}, {last}) as n, unnest(array['p1', 'w1', 'c1']) as a"
        )

    async def pages(number: int) -> int:
        place = "{" + f"0,{number},0" + "}"
        explained = await database.fetchval(
            "explain (analyze, buffers, format json) select * from hotmesh.load_records("
            "array_fill('00000000-0000-0000-0000-000000000001'::uuid, array[3]), array['p1', 'w1', 'c1'], "
            f"array_fill('{place}'::text, array[3]))"
        )
        plan = json.loads(explained)[0]["Plan"]
        assert plan["Actual Rows"] <= 12
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    await insert(0, 1_999)
    await database.execute("analyze hotmesh.activity")
    await pages(10)  # from here on the session may keep its plan
    early = min([await pages(1_000) for _ in range(3)])
    await insert(2_000, 9_999)

    # The least of some looks: whatever else happens in the server may make a session plan anew, which reads the catalogs.
    assert min([await pages(9_990) for _ in range(3)]) < early + 50


async def test_a_step_finds_its_job_among_many_that_the_planner_does_not_know_of(
    database_url: str, database: asyncpg.Connection
) -> None:
    await database.execute("alter table hotmesh.job set (autovacuum_enabled = false)")
    async with HotMesh.init("scale", connection=database_url, workers=[Worker("step", step)]) as mesh:
        await mesh.deploy(graphs())
        await mesh.activate("1")
        await mesh.pubsub("parent", {"limit": 3}, timeout=10)  # plans are made while the tables are empty
        await database.execute(
            "insert into hotmesh.job "
            "(app_id, job_id, generation, version, topic, seq, token, status, created_at, updated_at) "
            "select 'scale', 'other-' || n, gen_random_uuid(), '1', 'sleep', 1, 0, 1, now(), now() "
            "from generate_series(1, 5000) as n"
        )
        for _ in range(3):
            await mesh.pubsub("turns", {"limit": 5}, timeout=10)
            await mesh.pubsub("parent", {"limit": 5}, timeout=10)

    async def fetched() -> int:
        """Sessions tell what they have counted when they end."""
        return await database.fetchval(  # type: ignore[no-any-return]
            "select idx_tup_fetch from pg_stat_user_tables where schemaname = 'hotmesh' and relname = 'job'"
        )

    assert 0 < await eventually(fetched) < 5_000


async def test_many_children_are_started_and_heard_in_few_commits(calls: Counter[str], mesh: HotMesh) -> None:
    output = await mesh.pubsub("parent", {"limit": 300}, timeout=60)

    assert output.metadata.js == 0
    assert calls["commit"] <= 100


async def test_sleeping_jobs_cost_an_idle_engine_no_more_than_its_polls(
    calls: Counter[str], database_url: str
) -> None:
    poll = 0.25
    async with HotMesh.init(
        "scale", connection=database_url, workers=[Worker("step", step)], settings={"poll": poll}
    ) as mesh:
        await mesh.deploy(graphs())
        await mesh.activate("1")
        await asyncio.gather(*(mesh.pub("sleep", {"seconds": 3600}) for _ in range(500)))
        await asyncio.sleep(2 * poll)
        calls.clear()
        await asyncio.sleep(4 * poll)

    assert calls["commit"] == calls["load_jobs"] == calls["load_records"] == 0
    # A poll looks for due jobs and for work, and asks when the next ones are due.
    assert all(count <= 6 for count in calls.values()), calls


async def test_a_timer_fires_within_100_ms_while_many_sleep(
    mesh: HotMesh, database: asyncpg.Connection
) -> None:
    await asyncio.gather(*(mesh.pub("sleep", {"seconds": 3600}) for _ in range(200)))
    jobs = [await mesh.pub("sleep", {"seconds": 0.3 + number * 0.13}) for number in range(7)]
    due = {
        row["job_id"]: row["due_at"]
        for row in await database.fetch(
            "select job_id, due_at from hotmesh.timer where job_id = any($1)", jobs
        )
    }
    assert len(due) == len(jobs)

    async def ended() -> list[Any] | None:
        rows = await database.fetch(
            "select job_id, ended_at from hotmesh.job where job_id = any($1) and ended_at is not null", jobs
        )
        return rows if len(rows) == len(jobs) else None

    late = sorted((row["ended_at"] - due[row["job_id"]]).total_seconds() for row in await eventually(ended))
    assert late[0] >= 0
    # The median, because tests share their machine.
    assert late[len(late) // 2] <= 0.1, late


async def test_many_children_that_end_elsewhere_are_heard_in_bounded_steps(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most: list[int] = []
    original = engine_stream.lock_due_jobs

    async def look(*arguments: Any, **options: Any) -> Any:
        due = await original(*arguments, **options)
        most.extend(len(item.events) for item in due)
        return due

    async with HotMesh.init("scale", connection=database_url) as mesh:
        await mesh.deploy(graphs())
        await mesh.activate("1")
        monkeypatch.setattr(engine_stream, "lock_due_jobs", look)
        parent = asyncio.create_task(mesh.pubsub("parent", {"limit": 1_200}, timeout=60))
        async with HotMesh.init("scale", connection=database_url, workers=[Worker("step", step)]):
            output = await parent

    assert output.metadata.js == 0
    assert max(most) <= EngineLimits().events_per_step


async def test_memory_for_idle_jobs_is_bounded_by_what_their_records_take(database_url: str) -> None:
    async def large(message: StreamData) -> dict[str, Any]:
        return {"n": message.data["n"] + 1, "text": "x" * 50_000}

    options = {"cache_bytes": 400_000}
    workers = [Worker("step", large)]
    async with HotMesh.init("scale", connection=database_url, workers=workers, settings=options) as mesh:
        await mesh.deploy(graphs())
        await mesh.activate("1")
        outputs = await asyncio.gather(*(mesh.pubsub("turns", {"limit": 30}, timeout=60) for _ in range(20)))
        assert all(output.data == {"n": 30} for output in outputs)

        jobs = [await mesh.pub("rest", {"n": number}) for number in range(20)]
        engine = mesh._member.engine
        assert engine is not None
        await eventually(lambda: not any(cached.busy for cached in engine.cache))
        assert 0 < engine.cache.bytes <= 2 * options["cache_bytes"]
        assert 0 < len(engine.cache) < len(jobs)
