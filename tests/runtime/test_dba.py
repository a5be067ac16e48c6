"""Pruning: what has been over for long enough goes, in batches; what lives stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

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


async def test_row_337_nothing_to_prune_is_all_zeros(database_url: str) -> None:
    assert await DBA.prune("house", database_url) == PruneResult()


async def test_row_338_only_what_is_older_than_the_retention_goes(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    old, young = await mesh.pub("done"), await mesh.pub("done")
    await age(database, old, 10)
    await age(database, young, 3)

    assert (await DBA.prune("house", database_url, expire="7 days")).jobs == 1
    assert [row["job_id"] for row in await database.fetch("select job_id from hotmesh.job")] == [young]
    assert await rows(database, "activity") == 1


async def test_batches_add_up(mesh: HotMesh, database: asyncpg.Connection, database_url: str) -> None:
    for _ in range(5):
        await age(database, await mesh.pub("done"), 10)

    assert (await DBA.prune("house", database_url, batch_size=2)).jobs == 5


async def test_row_343_attributes_are_stripped_once_and_the_data_stays(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    job_id = await mesh.pub("done")

    first = await DBA.prune("house", database_url, attributes=True)
    second = await DBA.prune("house", database_url, attributes=True)

    assert (first.attributes, first.marked) == (1, 1)
    assert (second.attributes, second.marked) == (0, 0)
    assert (await mesh.get_state("done", job_id)).data == {"n": 1}


async def test_row_344_entities_limit_what_is_pruned(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    for entity in ("order", "invoice", None):
        await age(database, await mesh.pub("done", {"entity": entity}), 10)

    assert (await DBA.prune("house", database_url, entities=["order"])).jobs == 1
    assert await rows(database, "job") == 2


async def test_row_345_transient_jobs_have_no_entity(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    for entity in ("order", None):
        await age(database, await mesh.pub("done", {"entity": entity}), 10)

    result = await DBA.prune("house", database_url, jobs=False, prune_transient=True)

    assert (result.jobs, result.transient) == (0, 1)


async def test_row_348_each_stream_has_a_retention_of_its_own(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    for stream in ("engine", "worker"):
        await database.execute(
            "insert into hotmesh.dead_letter (app_id, stream, topic, job_id, generation, activity_id, dimension, message,"
            " reason, dead_at) values ('house', $1, 't', 'j', gen_random_uuid(), 'a', '{}', '{}', 'r',"
            " now() - interval '10 days')",
            stream,
        )

    result = await DBA.prune(
        "house", database_url, engine_streams_expire="24 hours", worker_streams_expire="30 days"
    )

    assert (result.engine_streams, result.worker_streams, result.streams) == (1, 0, 1)


async def test_row_351_a_wait_of_a_running_job_survives_and_early_signals_do_not(
    mesh: HotMesh, database: asyncpg.Connection, database_url: str
) -> None:
    job_id = await mesh.pub("waits")
    await database.execute(
        "update hotmesh.job set created_at = now() - interval '30 days' where job_id = $1", job_id
    )
    await database.execute("update hotmesh.wait set created_at = now() - interval '30 days'")
    await mesh.signal("go", {"id": "nobody"})
    await database.execute("update hotmesh.signal set expires_at = now()")

    result = await DBA.prune("house", database_url, expire=0)
    await mesh.signal("go", {"id": job_id, "v": 5})

    assert (result.jobs, result.signals) == (0, 1)
    assert (await _output(mesh, job_id)) == {"got": 5}


async def _output(mesh: HotMesh, job_id: str) -> Any:
    from harness import eventually

    async def complete() -> bool:
        return await mesh.get_status(job_id) == 0

    await eventually(complete)
    return (await mesh.get_state("waits", job_id)).data


async def test_a_batch_size_of_nothing_is_refused(database_url: str) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        await DBA.prune("house", database_url, batch_size=0)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("My-App", "my_app"), ("a--b", "a_b"), ("x-", "x"), ("--", "connections"), ("é", "connections")],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert DBA.safe_name(name) == safe
