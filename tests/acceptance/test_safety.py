"""Crash safety and further fixes; crashes themselves are in `tests/crash`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh import HotMesh, JobOutput, StreamData, Worker

pytestmark = pytest.mark.anyio

worked: list[str] = []


async def work(message: StreamData) -> dict[str, Any]:
    worked.append(message.metadata.jid)
    return {"n": message.data.get("n")}


async def text(message: StreamData) -> dict[str, str]:
    return {"text": "x" * message.data["size"]}


WORKERS = {
    "work": Worker("work", work, max_concurrency=100),
    "a:x": lambda _: {"who": "a"},
    "b:x": lambda _: {"who": "b"},
    "text": text,
}


@pytest.mark.row(365)
async def test_a_stale_message_changes_nothing_of_a_reused_id(
    mesh: HotMesh, module_database_url: str
) -> None:
    requests: list[StreamData] = []
    release = asyncio.Event()

    async def hold(message: StreamData) -> dict[str, Any]:
        requests.append(message)
        await release.wait()
        return {"done": message.metadata.gid}

    async with HotMesh.init(
        "safety", connection=module_database_url, workers=[Worker("stubborn", hold)]
    ) as other:
        await other.pub("stubborn", {}, extended={"id": "reused"})
        await eventually(lambda: len(requests) == 1)
        await other.scrub("reused")
        await other.pub("stubborn", {}, extended={"id": "reused"})
        await eventually(lambda: len(requests) == 2)
        old, new = requests
        assert old.metadata.gid != new.metadata.gid
        release.set()

        async def complete() -> bool:
            return await mesh.get_status("reused") == 0

        await eventually(complete)
        assert (await mesh.get_state("stubborn", "reused")).data == {"done": new.metadata.gid}


@pytest.mark.row(366)
async def test_a_message_that_survives_twelve_deaths_completes(
    mesh: HotMesh, module_database_url: str
) -> None:
    job_id = await mesh.pub("stubborn", {})
    async with connected(module_database_url) as connection:
        await connection.execute("update hotmesh.worker_stream set delivery = 12 where job_id = $1", job_id)
    worker = Worker("stubborn", lambda _: {"done": True})
    async with HotMesh.init(
        "safety", connection=module_database_url, workers=[worker], settings={"poison_threshold": 20}
    ):

        async def complete() -> bool:
            return await mesh.get_status(job_id) == 0

        await eventually(complete)
    assert (await mesh.get_state("stubborn", job_id)).data == {"done": True}


@pytest.mark.row(368)
async def test_topics_with_colons_are_queues_of_their_own(mesh: HotMesh) -> None:
    assert (await mesh.pubsub("colons", {}, timeout=5)).data == {"a": "a", "b": "b"}


@pytest.mark.row(369)
async def test_two_apps_with_one_topic_do_not_meet(mesh: HotMesh, module_database_url: str) -> None:
    graph = """
app:
  id: neighbour
  version: '1'
  graphs:
    - subscribes: chain
      expire: 3600
      activities:
        t: {type: trigger}
        w: {type: worker, topic: work, job: {maps: {who: '{$self.output.data.who}'}}}
      transitions: {t: [{to: w}]}
"""
    worker = Worker("work", lambda _: {"who": "neighbour"})
    async with HotMesh.init("neighbour", connection=module_database_url, workers=[worker]) as other:
        await other.deploy(graph)
        await other.activate("1")
        jobs = [other.pubsub("chain", {}, timeout=5) for _ in range(10)]
        mine = [mesh.pubsub("chain", {"n": 1}, timeout=5) for _ in range(10)]
        outputs = await asyncio.gather(*jobs, *mine)
    assert [output.data for output in outputs] == [{"who": "neighbour"}] * 10 + [{"n": 1, "done": 1}] * 10


@pytest.mark.row(373)
@pytest.mark.parametrize("what", ["worker", "await", "cycle"])
async def test_at_its_threshold_nothing_runs(mesh: HotMesh, what: str) -> None:
    before = len(worked)
    output = await mesh.pubsub("thresholds", {"what": what}, timeout=5)
    assert (output.data, output.metadata.js, len(worked)) == ({"begun": True}, 0, before)


@pytest.mark.row(375)
async def test_three_hundred_jobs_at_once(mesh: HotMesh, module_database_url: str) -> None:
    told: list[JobOutput] = []
    await mesh.sub("chain.done", lambda _, output: told.append(output))
    jobs = await asyncio.gather(
        *(mesh.pub("chain", {"n": n}, extended={"id": f"three {n}"}) for n in range(300))
    )
    await eventually(lambda: len(told) >= 300, within=30)
    await mesh.unsub("chain.done")
    assert sorted(output.metadata.jid for output in told) == sorted(jobs)
    async with connected(module_database_url) as connection:
        steps = await connection.fetchval("select avg(seq) from hotmesh.job where job_id like 'three %'")
    # A step is part of one commit, which it shares with others.
    assert steps <= 10


@pytest.mark.row(376)
@pytest.mark.parametrize("size", [7_400, 7_450, 7_500, 7_550, 7_600, 8_100])
async def test_results_around_the_limit_of_notify(mesh: HotMesh, module_database_url: str, size: int) -> None:
    async with HotMesh.init("safety", connection=module_database_url, readonly=True) as asking:
        # Processed by the other instance, so that the result travels.
        output = await asking.pubsub("text", {"size": size}, timeout=5)
    assert output.data == {"text": "x" * size}
    assert mesh.app_id == "safety"


@pytest.mark.row(377)
async def test_jobs_end_by_the_version_they_began_with(module_database_url: str) -> None:
    def graph(version: str) -> str:
        return f"""
app:
  id: upgrade
  version: '{version}'
  graphs:
    - subscribes: go
      expire: 3600
      activities:
        t: {{type: trigger}}
        s: {{type: hook, sleep: 0.2}}
        r: {{type: hook, job: {{maps: {{result: 'of {version}'}}}}}}
      transitions:
        t: [{{to: s}}]
        s: [{{to: r}}]
"""

    async with HotMesh.init("upgrade", connection=module_database_url) as mesh:
        await mesh.deploy(graph("1"))
        await mesh.activate("1")
        running = [asyncio.create_task(mesh.pubsub("go", {}, timeout=10)) for _ in range(50)]
        await asyncio.sleep(0)
        await mesh.deploy(graph("2"))
        await mesh.activate("2")
        outputs = await asyncio.gather(*running, *(mesh.pubsub("go", {}, timeout=10) for _ in range(50)))
    assert all(output.data == {"result": f"of {output.metadata.vrs}"} for output in outputs)
    assert {output.metadata.vrs for output in outputs[50:]} == {"2"}
