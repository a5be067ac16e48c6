"""What a member held that has died is for others at once; what others hold stays theirs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually, init_within, one_worker
from hotmesh import HotMesh, Worker
from hotmesh.core.wire import dumps_text
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.members import give_back_gone, gone_members, leave_mesh, take_guid
from hotmesh.runtime.limits import MemberLimits
from hotmesh.runtime.members.listener import ListenerLimits

pytestmark = pytest.mark.anyio

APP = "shop"
DEAD = "w-8805"


@asynccontextmanager
async def member(url: str, guid: str = DEAD) -> AsyncIterator[asyncpg.Connection]:
    """One that listens, with its guid; it dies at the end of the block."""
    async with connected(url) as connection:
        assert await take_guid(Database(ConnectionSource(url), "hotmesh", APP), connection, guid) is None
        yield connection


async def hold(url: str, job_id: str, guid: str = DEAD) -> None:
    async with connected(url) as owner:

        async def held() -> bool:
            return bool(
                await owner.fetchval(
                    "update hotmesh.worker_stream set reserved_by = $2, delivery = 1, visible_at = now() + interval '30 s' "
                    "where job_id = $1 returning true",
                    job_id,
                    guid,
                )
            )

        await eventually(held, what="its work")


async def holder(url: str, job_id: str) -> Any:
    async with connected(url) as owner:
        return await owner.fetchval("select reserved_by from hotmesh.worker_stream where job_id = $1", job_id)


async def double(message: Any) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@asynccontextmanager
async def shop(url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(APP, connection=url) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        yield mesh


async def test_work_of_a_member_that_has_died_is_taken_within_seconds(
    any_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = any_database_url
    async with shop(url) as mesh:
        async with member(url):
            job_id = await mesh.pub("one", {"x": 4})
            await hold(url, job_id)
        mesh.add_worker(Worker("w", double))
        await eventually(lambda: done(mesh, job_id), within=8, what="an answer long before the lease is over")
        assert (await mesh.get_state("one", job_id)).data == {"y": 8}
    assert "work given back of a member that is gone" in caplog.text
    async with connected(url) as owner:
        assert await owner.fetchval("select count(*) from hotmesh.member where guid = $1", DEAD) == 0


PROGRAM = """
import asyncio, sys
from hotmesh import HotMesh, Worker

async def never(message):
    print(message.job_id, flush=True)
    await asyncio.sleep(3600)

async def main():
    worker = Worker("w", never)
    async with HotMesh.init("shop", connection=sys.argv[1], engine=False, guid="w-8805", workers=[worker]) as mesh:
        await mesh.closed()

asyncio.run(main())
"""


async def test_work_of_a_process_that_was_killed_is_taken_long_before_its_lease_is_over(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop(database_url) as mesh:
        job_id = await mesh.pub("one", {"x": 4})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, database_url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode().strip() == job_id
        assert await holder(database_url, job_id) == DEAD
        process.kill()
        await process.wait()
        killed = time.monotonic()

        async def told() -> bool:
            return "w-8805 is gone and holds it until" in str(await mesh.explain(job_id))

        await eventually(told, within=3, what="the news of its death")
        mesh.add_worker(Worker("w", double))
        await eventually(lambda: done(mesh, job_id), within=15, what="an answer")
        assert time.monotonic() - killed < 15, "a lease has 30 s"
        assert (await mesh.get_state("one", job_id)).data == {"y": 8}
    assert "work given back of a member that is gone" in caplog.text


async def done(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) == 0


async def test_what_the_living_hold_stays_theirs(any_database_url: str) -> None:
    """Also of those of whom nobody can tell whether they live: they have no lock, and never had."""
    url = any_database_url
    async with shop(url) as mesh, member(url, "alive"):
        of_the_living, of_the_deaf = await mesh.pub("one", {"x": 1}), await mesh.pub("one", {"x": 2})
        await hold(url, of_the_living, "alive")
        await hold(url, of_the_deaf, "deaf")
        await asyncio.sleep(5)  # for longer than the engine takes to find the dead
        assert await holder(url, of_the_living) == "alive"
        assert await holder(url, of_the_deaf) == "deaf"


async def test_who_comes_back_keeps_what_it_holds(any_database_url: str) -> None:
    url = any_database_url
    database = Database(ConnectionSource(url), "hotmesh", APP)
    async with shop(url) as mesh, connected(url) as engine:
        async with member(url):
            job_id = await mesh.pub("one", {"x": 1})
            await hold(url, job_id)

        async def gone() -> bool:
            return DEAD in await gone_members(database, engine)

        await eventually(gone, what="its death")
        async with member(url):
            assert await give_back_gone(database, engine, [DEAD]) == []
            assert await gone_members(database, engine) == frozenset()
            assert await holder(url, job_id) == DEAD


async def test_who_connects_anew_while_engines_look_keeps_what_it_holds(any_database_url: str) -> None:
    """It has lost its connection and its lock: engines look again before they believe that it is dead."""
    url = any_database_url
    database = Database(ConnectionSource(url), "hotmesh", APP)
    limits = MemberLimits(listener=ListenerLimits(look_period=0.1, confirm_after=2.0))
    async with init_within(limits, APP, connection=url) as mesh, connected(url) as owner:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        async with member(url):
            job_id = await mesh.pub("one", {"x": 1})
            await hold(url, job_id)

        async def gone() -> bool:
            return DEAD in await gone_members(database, owner)

        await eventually(gone, what="its death")
        await asyncio.sleep(0.6)  # for several looks
        assert await holder(url, job_id) == DEAD
        async with member(url):
            await asyncio.sleep(2.5)
            assert await holder(url, job_id) == DEAD
        await eventually(lambda: _free(url, job_id), within=8, what="its end")


async def _free(url: str, job_id: str) -> bool:
    return await holder(url, job_id) is None


async def test_who_leaves_is_not_among_the_dead(any_database_url: str) -> None:
    url = any_database_url
    database = Database(ConnectionSource(url), "hotmesh", APP)
    async with shop(url), connected(url) as owner, member(url) as leaving, member(url, "other"):
        async with connected(url) as somebody:  # who never had the guid
            await leave_mesh(database, somebody, "other", engine=False)
        await leave_mesh(database, leaving, DEAD, engine=False)
        left = await owner.fetch("select guid from hotmesh.member where guid in ($1, 'other')", DEAD)
        assert [row["guid"] for row in left] == ["other"]


async def test_only_held_work_is_given_back_and_counts_as_delivered(any_database_url: str) -> None:
    url = any_database_url
    database = Database(ConnectionSource(url), "hotmesh", APP)
    async with connected(url) as owner:
        async with member(url):
            for number, (holds, seconds) in enumerate(((DEAD, 30), (DEAD, -1), ("other", 30), (None, 30))):
                await owner.execute(
                    "insert into hotmesh.worker_stream (app_id, topic, generation, activity_id, dimension, job_id, workflow_name, "
                    "delivery, visible_at, reserved_by, created_at) values ($1, $2, gen_random_uuid(), 'w', '{0}', $2, 'n', 2, "
                    "now() + $3 * interval '1 second', $4, now())",
                    APP,
                    f"t{number}",
                    float(seconds),
                    holds,
                )

        async def given() -> Any:
            return await give_back_gone(database, owner, [DEAD])

        assert await eventually(given) == [(DEAD, 1)]
        rows = await owner.fetch(
            "select topic, reserved_by, delivery, visible_at <= now() as ready from hotmesh.worker_stream order by topic"
        )
        assert [tuple(row) for row in rows] == [
            ("t0", None, 2, True),
            ("t1", DEAD, 2, True),
            ("t2", "other", 2, False),
            ("t3", None, 2, False),
        ]


async def test_explain_says_who_is_gone(any_database_url: str) -> None:
    url = any_database_url
    async with shop(url) as mesh:
        async with member(url):
            job_id, other = await mesh.pub("one", {"x": 1}), await mesh.pub("one", {"x": 2})
            await hold(url, job_id)
        async with connected(url) as owner:

            async def told() -> bool:
                # The engine would deal with it within seconds.
                await owner.execute(
                    "insert into hotmesh.member values ($1, $2, now()) on conflict do nothing", APP, DEAD
                )
                await hold(url, job_id)
                return DEAD in str(await mesh.explain(other)) and f"{DEAD} is gone" in str(
                    await mesh.explain(job_id)
                )

            await eventually(told, what="an explanation")
        explained = await mesh.explain(job_id)
        assert f"{DEAD} is gone and holds it until" in str(explained), dumps_text(explained.as_dict())
        assert "no worker serves w: start one" in str(await mesh.explain(other))
