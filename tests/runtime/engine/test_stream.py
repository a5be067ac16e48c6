"""The engine stream: as much of what is due as is asked for, and nothing that another engine has in hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from harness import connected, settled
from hotmesh import HotMesh
from hotmesh.runtime.engine.stream import EngineStream

pytestmark = pytest.mark.anyio

APP = "naps"

GRAPH = f"""
app:
  id: {APP}
  version: '1'
  graphs:
    - subscribes: nap
      expire: 3600
      activities:
        begin: {{type: trigger}}
        sleep: {{type: hook, sleep: 3600, job: {{maps: {{slept: true}}}}}}
      transitions:
        begin: [{{to: sleep}}]
"""


@asynccontextmanager
async def sleeping(url: str, count: int) -> AsyncIterator[tuple[EngineStream, asyncpg.Connection]]:
    """An engine that takes nothing of its own accord, and jobs whose timers are due."""
    async with HotMesh.init(APP, connection=url) as mesh, connected(url) as connection:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        assert mesh._member.engine is not None
        stream = mesh._member.engine.stream
        stream.stop()
        await stream.run_once()  # behind a look that was under way, which would still have taken them
        for number in range(count):
            await mesh.pub("nap", {}, extended={"id": f"nap-{number}"})
        await connection.execute("update hotmesh.timer set due_at = now()")
        yield stream, connection


async def test_as_many_jobs_are_handled_as_are_asked_for(database_url: str) -> None:
    async with sleeping(database_url, 3) as (stream, connection):
        assert [await stream.run_once(2) for _ in range(3)] == [2, 1, 0]
        await settled(connection, APP, within=1)
        assert stream.failures == 0


async def test_a_job_that_another_engine_has_in_hand_is_passed_over(database_url: str) -> None:
    async with sleeping(database_url, 2) as (stream, connection):
        async with connected(database_url) as other, other.transaction():
            await other.execute("select from hotmesh.job where job_id = 'nap-0' for update")
            assert await stream.run_once() == 1
            assert await stream.run_once() == 0
            states = await connection.fetch("select job_id, status from hotmesh.job order by job_id")
            assert [tuple(row) for row in states] == [("nap-0", 1), ("nap-1", 0)]

        assert await stream.run_once() == 1
        await settled(connection, APP, within=1)


async def test_a_job_that_cannot_be_handled_harms_no_other_of_its_batch(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with sleeping(database_url, 3) as (stream, connection):
        await connection.execute(
            "create function public.refuse() returns trigger language plpgsql as "
            "$$ begin raise exception 'no'; end $$; create trigger refuse before update on hotmesh.job "
            "for each row when (old.job_id = 'nap-1') execute function public.refuse()"
        )
        assert await stream.run_once() >= 3  # what is put off may be due again by now

        ended = await connection.fetch("select job_id from hotmesh.job where status = 0 order by 1")
        assert [row["job_id"] for row in ended] == ["nap-0", "nap-2"]
        assert await connection.fetchval("select count(*) from hotmesh.timer where job_id = 'nap-1'") == 1
    assert "events could not be handled (job nap-1)" in caplog.text
