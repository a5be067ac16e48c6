"""How many commits an engine has on their way, and what slow ones mean for the work that they answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from harness import Doubler, connected, eventually, init_within, one_worker, settled
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.postgres import commits
from hotmesh.postgres.steps import Batch
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.limits import MemberLimits
from interception import Turnstile, database_of, intercept

pytestmark = pytest.mark.anyio

APP = "commits"


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


async def all_done(mesh: HotMesh, calls: list[asyncio.Task[Any]], url: str) -> None:
    outputs = await asyncio.gather(*calls)
    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(len(calls))]
    async with connected(url) as connection:
        await settled(connection, APP)


def start(mesh: HotMesh) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(60)]


async def test_an_engine_alone_has_two_commits_on_their_way(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", double)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        turnstile = Turnstile(mesh)
        calls = start(mesh)
        await eventually(lambda: turnstile.waiting == 2, what="the second commit")
        turnstile.open.set()
        await all_done(mesh, calls, database_url)


async def test_a_batch_that_is_too_much_for_one_statement_is_divided(database_url: str) -> None:
    limits = MemberLimits(engine=EngineLimits(commit_size=300))
    async with init_within(limits, APP, connection=database_url, workers=[Worker("w", double)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        sizes: list[int] = []

        async def commit(connection: Any, batch: Batch, *arguments: Any, **options: Any) -> Any:
            sizes.append(batch.size)
            return await honest(connection, batch, *arguments, **options)

        honest = intercept(database_of(mesh), commits.commit, commit)
        await all_done(mesh, start(mesh), database_url)

        assert max(sizes) <= 300
        assert len(sizes) < 120  # several steps still go together


@asynccontextmanager
async def in_company(url: str, *, held_up_after: float) -> AsyncIterator[tuple[HotMesh, Turnstile]]:
    """An engine that has found another one beside it, with nothing to do."""
    limits = MemberLimits(engine=EngineLimits(held_up_after=held_up_after))
    async with (
        init_within(limits, APP, connection=url, workers=[Worker("w", double)]) as mesh,
        HotMesh.init(APP, connection=url),
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        engine = mesh._member.engine
        assert engine is not None
        turnstile = Turnstile(mesh)
        calls = start(mesh)
        await eventually(lambda: engine.group_commit.in_company, what="a look around")
        turnstile.open.set()
        await all_done(mesh, calls, url)
        yield mesh, turnstile


async def test_an_engine_in_company_has_one(database_url: str) -> None:
    async with in_company(database_url, held_up_after=6.0) as (_, turnstile):
        assert turnstile.most == 1


async def test_what_holds_up_the_first_is_not_in_the_way_of_the_second(database_url: str) -> None:
    async with in_company(database_url, held_up_after=0.2) as (mesh, turnstile):
        turnstile.open.clear()
        calls = [*start(mesh)]
        await eventually(lambda: turnstile.waiting == 1)
        calls += start(mesh)
        await eventually(lambda: turnstile.waiting == 2, within=60, what="the second commit")
        turnstile.open.set()
        await asyncio.gather(*calls)


# -- answers that wait for their commit ------------------------------------------------------------------


@asynccontextmanager
async def answering(
    mesh: HotMesh, gated: Doubler, url: str, count: int
) -> AsyncIterator[tuple[Turnstile, list[asyncio.Task[Any]], asyncpg.Connection]]:
    """So many jobs whose callbacks run in this process. Whose answers are committed is up to the turnstile."""
    await mesh.deploy(one_worker(APP))
    await mesh.activate("1")
    calls = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(count)]
    await eventually(lambda: len(gated.runs) == count, what="the callbacks")
    async with connected(url) as connection:
        yield Turnstile(mesh), calls, connection


async def test_work_is_held_until_its_answer_is_committed(database_url: str) -> None:
    gated, elsewhere = Doubler(), Doubler()
    async with (
        HotMesh.init(APP, connection=database_url, workers=[Worker("w", gated)], lease=0.5) as mesh,
        answering(mesh, gated, database_url, 1) as (turnstile, calls, connection),
        HotMesh.init(
            APP,
            connection=database_url,
            engine=False,
            workers=[Worker("w", elsewhere)],
            settings={"poll": 0.1},
        ),
    ):
        gated.gate.set()
        await eventually(lambda: turnstile.waiting, what="the commit of the answer")
        lapses = "select visible_at from hotmesh.worker_stream"
        first = await connection.fetchval(lapses)

        async def renewed() -> bool:
            return (
                await connection.fetchval(f"{lapses} where visible_at > $1", first + timedelta(seconds=1))
                is not None
            )

        await eventually(renewed, what="two renewals")
        turnstile.open.set()
        await all_done(mesh, calls, database_url)
    assert not elsewhere.runs
    assert set(gated.runs.values()) == {1}


async def test_what_has_an_answer_here_is_not_run_again_when_its_lease_has_lapsed(database_url: str) -> None:
    gated = Doubler()
    settings = {"lease": 0.3, "poll": 0.1, "poison_threshold": 1}
    async with (
        HotMesh.init(APP, connection=database_url, workers=[Worker("w", gated)], settings=settings) as mesh,
        answering(mesh, gated, database_url, 1) as (turnstile, calls, connection),
    ):
        mesh._member.leases.stop()
        gated.gate.set()

        async def claimed_again() -> bool:
            return int(await connection.fetchval("select delivery from hotmesh.worker_stream")) > 2

        await eventually(claimed_again, what="a second claim")
        turnstile.open.set()
        await all_done(mesh, calls, database_url)
    assert set(gated.runs.values()) == {1}


async def test_answers_that_come_too_late_cost_the_others_one_more_commit(database_url: str) -> None:
    gated = Doubler()
    async with (
        HotMesh.init(
            APP, connection=database_url, workers=[Worker("w", gated)], settings={"poll": 0.1}
        ) as mesh,
        answering(mesh, gated, database_url, 12) as (turnstile, calls, connection),
    ):
        turnstile.open.set()
        late = list(gated.runs)[:3]
        take = "update hotmesh.worker_stream set reserved_by = $1, visible_at = now() + $2 where job_id = any($3)"
        await connection.execute(take, "another", timedelta(hours=1), late)
        gated.gate.set()
        await eventually(lambda: sum(call.done() for call in calls) == 9, what="the others")
        assert turnstile.all == 2

        await connection.execute(take, None, timedelta(), late)
        await all_done(mesh, calls, database_url)
    assert gated.runs == {job_id: 2 if job_id in late else 1 for job_id in gated.runs}
