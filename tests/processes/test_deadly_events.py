"""An event whose step kills its engine is given up, and nothing that was locked beside it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from harness import connected, eventually
from hotmesh import HotMesh
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.engine_stream import count_due, note_deaths
from hotmesh.postgres.members import gone_members, take_guid

pytestmark = pytest.mark.anyio

APP = "deadly"

GRAPH = """
app:
  id: deadly
  version: '1'
  graphs:
    - subscribes: nap
      expire: 3600
      activities:
        start: {type: trigger}
        nap: {type: hook, sleep: 3600, job: {maps: {done: true}}}
      transitions:
        start: [{to: nap}]
"""

PROGRAM = """
import asyncio, os, sys
from hotmesh import HotMesh
from hotmesh.runtime.engine.step_watch import StepWatch

run = StepWatch.run

def deadly(self, job_id, *arguments, **options):
    if job_id == "job-0":
        os._exit(9)  # as the out-of-memory killer would
    return run(self, job_id, *arguments, **options)

StepWatch.run = deadly

async def main():
    async with HotMesh.init("deadly", connection=sys.argv[1], settings={"poison_threshold": 3}) as mesh:
        await mesh.closed()

asyncio.run(main())
"""


async def test_only_what_kills_its_engine_is_given_up(database_url: str, tmp_path: Path) -> None:
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        for number in range(6):
            await mesh.pub("nap", {}, extended={"id": f"job-{number}"})
    deaths = 0
    async with connected(database_url) as owner:
        # The deadly one in the middle of the others.
        await owner.execute(
            "update hotmesh.timer set due_at = now() - case when job_id = 'job-0' then 3 else right(job_id, 1)::integer end * "
            "interval '1 second'"
        )
        open_jobs = "select count(*) from hotmesh.job where status > 0"
        while await owner.fetchval(open_jobs):
            assert deaths < 12, "nobody found out"
            with (tmp_path / "stderr").open("ab") as stderr:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-c",
                    PROGRAM,
                    database_url,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                    stderr=stderr,
                )

            async def over(process: asyncio.subprocess.Process = process) -> bool:
                return process.returncode is not None or not await owner.fetchval(open_jobs)

            await eventually(over, within=30, what="an end")
            deaths += process.returncode is not None
            if process.returncode is None:
                process.kill()
            await process.wait()
        ended = await owner.fetch("select job_id, status, error::text from hotmesh.job order by job_id")
        letters = await owner.fetch("select job_id, reason from hotmesh.dead_letter")
    assert [row["status"] for row in ended[1:]] == [0] * 5
    assert ended[0]["status"] < 0
    assert json.loads(ended[0]["error"])["code"] == 598
    assert [row["job_id"] for row in letters] == ["job-0"]
    assert "3 engines died with it, the last one of nothing else" in letters[0]["reason"]
    log = (tmp_path / "stderr").read_text()
    assert "engines die one after the other" in log
    assert "what is due for job job-0 is handled alone, because it was taken 2 times" in log


async def test_single_deaths_change_nothing(database_url: str) -> None:
    """And the third one after the other does; workers do not count."""
    database = Database(ConnectionSource(database_url), "hotmesh", APP)
    async with (
        HotMesh.init(APP, connection=database_url, engine=False) as mesh,
        connected(database_url) as owner,
    ):
        await owner.execute("insert into hotmesh.app (app_id) values ($1) on conflict do nothing", APP)
        assert mesh.app_id == APP
        for number, engine, careful in (
            (1, True, False),
            (2, True, False),
            (3, False, False),
            (4, True, True),
        ):
            async with connected(database_url) as dying:
                assert await take_guid(database, dying, f"m{number}", engine=engine) is None

            async def noted(number: int = number, engine: bool = engine) -> bool:
                await note_deaths(database, owner)
                if engine:
                    return bool(
                        await owner.fetchval(
                            "select died_at is not null from hotmesh.member where guid = $1", f"m{number}"
                        )
                    )
                return f"m{number}" in await gone_members(database, owner)

            await eventually(noted, what="its death")
            assert await note_deaths(database, owner) is careful
        await owner.execute("update hotmesh.app set engine_died_at = now() - interval '6 minutes'")
        assert not await note_deaths(database, owner)


async def test_nothing_is_counted_of_what_is_not_due(database_url: str) -> None:
    database = Database(ConnectionSource(database_url), "hotmesh", APP)
    async with HotMesh.init(APP, connection=database_url) as mesh, connected(database_url) as owner:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        await mesh.pub("nap", {}, extended={"id": "only"})
        assert await count_due(database, owner, 10, 3) == []
        assert await owner.fetchval("select delivery from hotmesh.timer") == 0
        await owner.execute("update hotmesh.timer set delivery = 2")
        told = await mesh.explain("only")
        assert "engines die, and took it 2 times" in str(told)
