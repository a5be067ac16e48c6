"""Pruning: what has been over for long enough goes, in batches; what lives stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import asyncpg
import pytest

from hotmesh import DBA, ConfigError, HotMesh, PruneResult

pytestmark = pytest.mark.anyio

GRAPH = """
app:
  id: house
  version: '1'
  graphs:
    - subscribes: done
      expire: 60
      activities:
        t1: {type: trigger, entity: '{$self.input.data.entity}', job: {maps: {n: 1}}}
        h1: {type: hook, output: {maps: {x: 1}}}
      transitions: {t1: [{to: h1}]}
    - subscribes: waits
      expire: 60
      activities:
        t2: {type: trigger}
        h2: {type: hook, job: {maps: {got: '{$self.hook.data.v}'}}}
      transitions: {t2: [{to: h2}]}
      hooks:
        go:
          - to: h2
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
"""


@pytest.fixture
async def mesh(database_url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init("house", connection=database_url) as mesh:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        yield mesh


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def age(database: asyncpg.Connection, job_id: str, days: int) -> None:
    """The job ended so long ago."""
    await database.execute(
        "update hotmesh.job set created_at = now() - $2 * interval '1 day', "
        "expires_at = now() - $2 * interval '1 day' where job_id = $1",
        job_id,
        days,
    )


async def rows(database: asyncpg.Connection, table: str) -> int:
    return int(await database.fetchval(f"select count(*) from hotmesh.{table}"))


async def dead(
    database: asyncpg.Connection, stream: str = "worker", job_id: str = "j", days: int = 10
) -> None:
    """Something of the stream was given up so long ago."""
    await database.execute(
        "insert into hotmesh.dead_letter (app_id, stream, topic, job_id, generation, activity_id, dimension, message,"
        " reason, dead_at) select 'house', $1, 't', $2, coalesce((select generation from hotmesh.job where job_id = $2),"
        " gen_random_uuid()), 'a', '{}', '{}', 'r', now() - $3 * interval '1 day'",
        stream,
        job_id,
        days,
    )


@pytest.mark.row(336)
async def test_deploy_brings_the_function_and_the_column(
    empty_database_url: str,
) -> None:
    await DBA.deploy(empty_database_url, "house")
    await DBA.deploy(empty_database_url)

    connection = await asyncpg.connect(empty_database_url)
    try:
        row = await connection.fetchrow("select * from hotmesh.prune('house', p_expire => '1 hour')")
        assert row is not None
        assert dict(row) == dict.fromkeys(row.keys(), 0) | {"more": False}
        assert await connection.fetch("select pruned_at from hotmesh.job") == []
    finally:
        await connection.close()


@pytest.mark.row(337)
async def test_nothing_to_prune_is_all_zeros(database_url: str) -> None:
    assert await DBA.prune("house", database_url) == PruneResult()


@pytest.mark.row(338)
async def test_only_what_is_older_than_the_retention_goes(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    old, young = await mesh.pub("done"), await mesh.pub("done")
    await age(database, old, 10)
    await age(database, young, 3)

    assert (await DBA.prune("house", database_url, expire="7 days")).jobs == 1
    assert [row["job_id"] for row in await database.fetch("select job_id from hotmesh.job")] == [young]
    assert await rows(database, "activity") == 1


@pytest.mark.row(339)
async def test_a_dead_letter_of_ten_days(database: asyncpg.Connection, database_url: str) -> None:
    await dead(database)
    await dead(database, days=3)

    assert await DBA.prune("house", database_url) == PruneResult(streams=1, worker_streams=1)


async def test_batches_add_up(mesh: HotMesh, database: asyncpg.Connection, database_url: str) -> None:
    for _ in range(5):
        await age(database, await mesh.pub("done"), 10)

    assert (await DBA.prune("house", database_url, batch_size=2)).jobs == 5


@pytest.mark.row(340, 343)
async def test_attributes_are_stripped_once_and_the_data_stays(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    job_id = await mesh.pub("done", extended={"search": {"sku": "A1"}, "marker": {"-seen": "1"}})

    first = await DBA.prune("house", database_url, attributes=True)
    second = await DBA.prune("house", database_url, attributes=True)

    assert (first.attributes, first.marked) == (1, 1)
    assert (second.attributes, second.marked) == (0, 0)
    assert await rows(database, "activity") == 0
    assert await database.fetchval("select pruned_at is not null from hotmesh.job")
    assert (await mesh.get_state("done", job_id)).data == {"n": 1}
    assert await mesh.get_query_state(job_id, ["sku", '"-seen"']) == {"sku": "A1", "-seen": "1"}


@pytest.mark.row(341, 346)
async def test_what_is_not_wanted_is_left_alone(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    await age(database, await mesh.pub("done"), 10)
    await mesh.pub("done")
    await dead(database)

    nothing = await DBA.prune("house", database_url, jobs=False, streams=False)
    assert nothing == PruneResult()
    only = await DBA.prune("house", database_url, jobs=False, streams=False, attributes=True)
    assert only == PruneResult(attributes=1, marked=1)
    assert (await rows(database, "job"), await rows(database, "dead_letter")) == (2, 1)


@pytest.mark.row(342)
async def test_with_keep_hmark_it_stays_on_record_what_ran(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    job_id = await mesh.pub("done", extended={"marker": {"-seen": "1"}})

    result = await DBA.prune("house", database_url, attributes=True, keep_hmark=True)

    assert (result.attributes, result.marked) == (1, 1)
    row = await database.fetchrow("select * from hotmesh.activity")
    assert row is not None
    assert (row["activity_id"], row["state"], row["code"], row["output"]) == ("h1", "closed", 200, None)
    assert row["ended_at"] is not None
    assert await mesh.get_query_state(job_id, ['"-seen"']) == {"-seen": "1"}


async def test_a_job_with_a_dead_letter_is_not_stripped(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    await dead(database, job_id=await mesh.pub("done"), days=0)

    assert await DBA.prune("house", database_url, attributes=True) == PruneResult()


@pytest.mark.row(344)
async def test_entities_limit_what_is_pruned(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    for entity in ("order", "invoice", None):
        await mesh.pub("done", {"entity": entity})

    stripped = await DBA.prune("house", database_url, attributes=True, entities=["order"])
    assert (stripped.attributes, stripped.marked) == (1, 1)

    for row in await database.fetch("select job_id from hotmesh.job"):
        await age(database, row["job_id"], 10)
    assert (await DBA.prune("house", database_url, entities=["order"])).jobs == 1
    assert await rows(database, "job") == 2


@pytest.mark.row(345)
async def test_transient_jobs_have_no_entity(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    for entity, days in (("order", 10), (None, 10), (None, 3)):
        await age(database, await mesh.pub("done", {"entity": entity}), days)

    result = await DBA.prune("house", database_url, jobs=False, prune_transient=True)

    assert (result.jobs, result.transient) == (0, 1)
    assert await rows(database, "job") == 2


@pytest.mark.row(347, 348, 349, 350)
@pytest.mark.parametrize(
    ("options", "engine", "worker"),
    [
        ({"expire": "24 hours", "jobs": False}, 1, 1),
        ({"engine_streams_expire": "24 hours", "worker_streams_expire": "30 days"}, 1, 0),
        ({"streams": False, "engine_streams": True, "expire": "24 hours"}, 1, 0),
        ({"worker_streams": False, "expire": "24 hours"}, 1, 0),
        ({"expire": "30 days"}, 0, 0),
    ],
)
async def test_each_stream_has_a_switch_and_a_retention_of_its_own(
    database: asyncpg.Connection, database_url: str, options: dict[str, Any], engine: int, worker: int
) -> None:
    for stream in ("engine", "worker"):
        await dead(database, stream, days=2)

    result = await DBA.prune("house", database_url, **options)

    assert result == PruneResult(streams=engine + worker, engine_streams=engine, worker_streams=worker)


async def test_two_prunes_at_once_share_the_work(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    for _ in range(6):
        await age(database, await mesh.pub("done"), 10)
    counts: list[int] = []

    async def prune() -> None:
        counts.append((await DBA.prune("house", database_url, batch_size=1)).jobs)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(prune)
        tasks.start_soon(prune)

    assert sum(counts) == 6


@pytest.mark.row(351)
async def test_a_wait_of_a_running_job_survives_and_early_signals_do_not(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    job_id = await mesh.pub("waits")
    await database.execute(
        "update hotmesh.job set created_at = now() - interval '30 days' where job_id = $1", job_id
    )
    await database.execute("update hotmesh.wait set created_at = now() - interval '30 days'")
    await mesh.signal("go", {"id": "nobody"})
    await database.execute("update hotmesh.signal set expires_at = now()")
    await database.execute(
        "insert into hotmesh.subscription (app_id, member, topic, expires_at) values ('house', 'gone', 't', now())"
    )

    result = await DBA.prune("house", database_url, expire=0)
    await mesh.signal("go", {"id": job_id, "v": 5})

    assert (result.jobs, result.signals) == (0, 1)
    assert await rows(database, "subscription") == 0
    assert (await _output(mesh, job_id)) == {"got": 5}


async def _output(mesh: HotMesh, job_id: str) -> Any:
    from harness import eventually

    async def complete() -> bool:
        return await mesh.get_status(job_id) == 0

    await eventually(complete)
    return (await mesh.get_state("waits", job_id)).data


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": 1.5}, {"entities": "order"}, {"expire": "soon"}]
)
async def test_what_cannot_be_used_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        await DBA.prune("house", "postgresql://nobody", **options)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("My-App", "my_app"), ("a--b", "a_b"), ("x-", "x"), ("--", "connections"), ("é", "connections")],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert DBA.safe_name(name) == safe
