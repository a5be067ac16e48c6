"""The read side over a database: what it says of jobs, and that it sees one moment where that matters."""

from __future__ import annotations

from typing import get_args

import pytest

from harness import connected
from hotmesh import HotMesh, VersionNotFoundError
from hotmesh.observe.apps import deployed, list_apps
from hotmesh.observe.jobs import State, find_jobs, list_jobs, whole_job
from hotmesh.observe.obligations import ObligationKind, list_obligations
from hotmesh.observe.observer import observing

pytestmark = pytest.mark.anyio

GRAPHS = """
app:
  id: seen
  version: '3'
  graphs:
    - subscribes: one
      expire: 3600
      activities:
        t1: {type: trigger}
        w1: {type: worker, topic: nobody, workflow_name: slow}
        a1: {type: await, topic: below}
        h1: {type: hook, sleep: 3600}
      transitions:
        t1: [{to: w1}, {to: a1}, {to: h1}]
      hooks:
        paid:
          - to: h1
            conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}
    - subscribes: below
      expire: 3600
      activities:
        t2: {type: trigger, stats: {id: child}}
        h2: {type: hook, sleep: 3600}
      transitions:
        t2: [{to: h2}]
"""


async def deploy(mesh: HotMesh) -> None:
    await mesh.deploy(GRAPHS)
    await mesh.activate("3")


async def test_each_state_of_a_job_in_a_word(database_url: str) -> None:
    error = '{"message": "no"}'
    cases = ((2, None), (2, error), (-1, None), (0, None), (0, error), (-999_999_999, error))
    async with connected(database_url) as connection:
        found = [
            await connection.fetchval("select hotmesh.job_state($1, $2)", status, stored)
            for status, stored in cases
        ]
    assert found == ["running", "running", "pending", "complete", "failed", "interrupted"]
    assert set(found) == set(get_args(State))


async def test_everything_that_a_job_can_wait_for(database_url: str) -> None:
    async with HotMesh.init("seen", connection=database_url) as mesh:
        await deploy(mesh)
        await mesh.pub("one", {}, extended={"id": "j"})
    async with observing(database_url, "hotmesh") as observer, connected(database_url) as connection:
        await connection.execute(
            "insert into hotmesh.engine_stream (app_id, job_id, generation, message_id, kind, activity_id, dimension, "
            "status, code, visible_at, created_at) select app_id, job_id, generation, 'x', 'enter', 'w1', '{0}', "
            "'success', 200, now(), now() from hotmesh.job where job_id = 'j'"
        )
        (job,) = await find_jobs(observer, "j")
        found = {one.kind: one for one in await list_obligations(observer, job.generation)}
        child = await connection.fetchval("select job_id from hotmesh.job where parent_job_id = 'j'")
        (below,) = await find_jobs(observer, child, "seen")
    assert found.keys() == set(get_args(ObligationKind))
    assert {kind: (one.activity_id, one.name, one.detail) for kind, one in found.items()} == {
        "work": ("w1", "nobody", "nobody"),
        "message": ("w1", "enter", "enter"),
        "timer": ("h1", "", None),
        "signal": ("h1", "paid", "paid j"),
        "child": ("a1", child, child),
    }
    assert (found["signal"].key, found["child"].status) == ("j", below.status)
    assert (found["timer"].due_at - found["timer"].since).total_seconds() == pytest.approx(3600, abs=1)
    assert found["signal"].until is None
    assert all(one.dimension[0] == 0 for one in found.values())


async def test_jobs_of_one_app_in_one_state_on_one_topic(database_url: str) -> None:
    async with HotMesh.init("seen", connection=database_url) as mesh:
        await deploy(mesh)
        for number in range(3):
            await mesh.pub("one", {}, extended={"id": f"j{number}"})
        await mesh.interrupt("one", "j1")
        async with observing(database_url, "hotmesh") as observer:
            assert await list_apps(observer) == ["seen"]
            running = await list_jobs(observer, "seen", state="running", topic="one")
            interrupted = await list_jobs(observer, state="interrupted")
            assert await list_jobs(observer, "other") == []
            assert len(await list_jobs(observer, limit=2)) == 2
    assert [job.job_id for job in running] == ["j2", "j0"]
    assert [(job.job_id, job.state) for job in interrupted] == [("j1", "interrupted")]


async def test_what_changes_meanwhile_is_not_seen(database_url: str) -> None:
    async with HotMesh.init("seen", connection=database_url) as mesh:
        await deploy(mesh)
        await mesh.pub("one", {}, extended={"id": "j"})
        async with observing(database_url, "hotmesh") as observer:
            async with observer.at_one_moment() as then:
                before = await find_jobs(then, "j")
                await mesh.scrub("j")
                assert await find_jobs(then, "j") == before
            assert await find_jobs(observer, "j") == []
            assert await whole_job(observer, "seen", "j") is None


async def test_plans_for_those_who_keep_none(database_url: str) -> None:
    async with HotMesh.init("seen", connection=database_url) as mesh:
        await deploy(mesh)
    async with observing(database_url, "hotmesh") as observer:
        plan_of = deployed(observer, "seen")
        assert set((await plan_of("3")).graphs) == {"one", "below"}
        with pytest.raises(VersionNotFoundError):
            await plan_of("4")
