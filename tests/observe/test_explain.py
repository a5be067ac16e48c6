"""Why a job does not move: each kind of thing it may wait for is named, with what would end it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import connected, eventually
from hotmesh import HotMesh, JobNotFoundError, Response, StreamData, Worker
from hotmesh.observe.explain.model import Explanation, Reason
from hotmesh.observe.jobs import find_jobs
from hotmesh.observe.obligations import list_obligations
from hotmesh.observe.observer import observing

pytestmark = pytest.mark.anyio

GRAPHS = """
app:
  id: why
  version: '1'
  graphs:
    - subscribes: work
      expire: 3600
      activities:
        t1: {type: trigger}
        w1: {type: worker, topic: w}
      transitions:
        t1: [{to: w1}]
    - subscribes: wait
      expire: 3600
      activities:
        t2: {type: trigger}
        h2: {type: hook, sleep: 3600}
      transitions:
        t2: [{to: h2}]
      hooks:
        paid:
          - to: h2
            conditions: {match: [{expected: '{t2.output.data.order}', actual: '{$self.hook.data.order}'}]}
    - subscribes: parent
      expire: 3600
      activities:
        t3: {type: trigger}
        a3: {type: await, topic: work}
      transitions:
        t3: [{to: a3}]
    - subscribes: early
      expire: 3600
      activities:
        t6: {type: trigger}
        a6: {type: await, topic: answers.early}
        w6: {type: worker, topic: w}
      transitions:
        t6: [{to: a6}]
        a6: [{to: w6}]
    - subscribes: answers.early
      expire: 3600
      activities:
        t7: {type: trigger, persist: true}
        h7: {type: hook, sleep: 3600}
      transitions:
        t7: [{to: h7}]
    - subscribes: join
      expire: 3600
      activities:
        t4: {type: trigger}
        a4: {type: hook}
        b4: {type: worker, topic: w}
        j4: {type: hook, join: all}
      transitions:
        t4: [{to: a4}, {to: b4}]
        a4: [{to: j4}]
        b4: [{to: j4}]
    - subscribes: many
      expire: 3600
      activities:
        t5: {type: trigger}
WORKERS
      transitions:
        t5: [TRANSITIONS]
""".replace("WORKERS", "\n".join(f"        m{n}: {{type: worker, topic: w}}" for n in range(300))).replace(
    "TRANSITIONS", ", ".join(f"{{to: m{n}}}" for n in range(300))
)


@asynccontextmanager
async def mesh_with(url: str, *workers: Worker, **options: Any) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(app_id="why", connection=url, workers=workers, **options) as mesh:
        await mesh.deploy(GRAPHS)
        await mesh.activate("1")
        yield mesh


def reasons(told: Explanation) -> Iterator[Reason]:
    for branch in told.branches:
        yield from branch.reasons


async def until(mesh: HotMesh, job_id: str, kind: str) -> Explanation:
    """The explanation, once it has a reason of this kind."""

    async def look() -> Explanation | None:
        told = await mesh.explain(job_id)
        return told if any(reason.kind == kind for reason in reasons(told)) else None

    found: Explanation = await eventually(look, what=f"a reason {kind}")
    return found


async def test_an_unknown_job(database_url: str) -> None:
    async with mesh_with(database_url) as mesh:
        with pytest.raises(JobNotFoundError, match=r"Job nope not found in app why$"):
            await mesh.explain("nope")


async def test_work_that_nobody_takes(database_url: str) -> None:
    async with mesh_with(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("work", {})
        await connection.execute("update hotmesh.worker_stream set created_at = created_at - interval '30 s'")
        told = await mesh.explain(job_id)
    (branch,) = told.branches
    assert (branch.activity_id, branch.type, branch.dimension) == ("w1", "worker", (0, 0))
    (reason,) = branch.reasons
    assert (reason.kind, reason.topic, reason.attempt, reason.held_by) == ("work", "w", 0, None)
    assert reason.since is not None
    assert 30 <= (told.now - reason.since).total_seconds() < 90
    assert told.unblock == ("start a worker on topic w",)
    assert (told.state, told.status, told.unaccounted, told.omitted) == ("running", 1, 0, 0)
    text = str(told)
    assert "worker w1 at 0/0 waits for" in text
    assert "taken by nobody" in text
    assert "→ start a worker on topic w" in text


async def test_work_that_waits_behind_other_work(database_url: str) -> None:
    release = asyncio.Event()

    async def slow(_: StreamData) -> dict[str, Any]:
        await release.wait()
        return {}

    async with (
        mesh_with(database_url) as mesh,
        mesh_with(database_url, Worker("w", slow, max_concurrency=1), guid="busy") as other,
    ):
        first = await other.pub("work", {})
        held = await until(mesh, first, "held")
        second = await mesh.pub("work", {})
        told = await mesh.explain(second)
        release.set()
    (holding,) = reasons(held)
    assert (holding.held_by, holding.topic) == ("busy", "w")
    assert holding.until is not None
    assert holding.until > held.now
    assert "the answer of busy" in held.unblock[0]
    assert "workers of topic w (busy) are busy" in told.unblock[0]


async def test_a_try_that_is_still_to_come(database_url: str) -> None:
    async def fail(_: StreamData) -> dict[str, Any]:
        raise RuntimeError("not now")

    retry = {"maximum_attempts": 5, "initial_interval": 600, "maximum_interval": 3600}
    async with mesh_with(database_url, Worker("w", fail, retry=retry)) as mesh:
        job_id = await mesh.pub("work", {})
        told = await until(mesh, job_id, "retry")
    (reason,) = reasons(told)
    assert reason.attempt == 1
    assert reason.until is not None
    assert reason.until > told.now
    assert "once failed" in reason.text
    assert reason.unblock.startswith("due in ")


async def test_a_signal_and_a_timer(database_url: str) -> None:
    async with mesh_with(database_url) as mesh:
        told = await mesh.explain(await mesh.pub("wait", {"order": "A7"}))
    (branch,) = told.branches
    assert (branch.activity_id, branch.type) == ("h2", "hook")
    timer, signal = branch.reasons
    assert (timer.kind, signal.kind) == ("timer", "signal")
    assert (signal.topic, signal.key) == ("paid", "A7")
    assert timer.until is not None
    assert 3500 < (timer.until - told.now).total_seconds() <= 3600
    assert told.unblock == ("due in 60 min", "signal topic paid with key A7")
    assert (told.status, told.unaccounted) == (1, 0)


async def test_a_child_and_what_it_waits_for(database_url: str) -> None:
    async with mesh_with(database_url) as mesh, connected(database_url) as connection:
        parent = await mesh.pub("parent", {})
        child = await connection.fetchval("select job_id from hotmesh.job where parent_job_id = $1", parent)
        told = await mesh.explain(parent)
        await mesh.scrub(child)
        without = await mesh.explain(parent)
    (reason,) = reasons(told)
    assert reason.kind == "child"
    assert reason.child is not None
    assert (reason.child.job_id, reason.child.unblock) == (child, ("start a worker on topic w",))
    assert f"job {child} on topic work" in str(told)
    assert told.unaccounted == 0
    assert (without.branches, without.unaccounted) == ((), 1)
    assert "interrupt the job" in str(without)


async def test_a_child_that_goes_on_after_its_answer_keeps_nobody(database_url: str) -> None:
    async with mesh_with(database_url) as mesh, observing(database_url, "hotmesh") as observer:
        parent = await mesh.pub("early", {})
        told = await mesh.explain(parent)
        (found,) = await find_jobs(observer, parent)
        open_ = await list_obligations(observer, found.generation)
    assert [(branch.activity_id, branch.reasons[0].kind) for branch in told.branches] == [("w6", "work")]
    assert (told.status, told.unaccounted) == (1, 0)
    assert [one.kind for one in open_] == ["work"]


async def test_a_hook_with_a_pending_signal_waits_for_the_next_one(database_url: str) -> None:
    async with mesh_with(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("wait", {"order": "A7"})
        await mesh.signal("paid", {"order": "A7"}, "pending", 202)
        pending = "select count(*) from hotmesh.activity where activity_id = 'h2' and state = 'pending'"
        await eventually(lambda: connection.fetchval(pending))
        told = await mesh.explain(job_id)
    assert [reason.kind for reason in reasons(told)] == ["timer", "signal"]


async def test_a_join_that_waits_for_a_branch(database_url: str) -> None:
    async with mesh_with(database_url) as mesh:
        told = await mesh.explain(await mesh.pub("join", {}))
    found = {branch.activity_id: branch.reasons[0] for branch in told.branches}
    assert found.keys() == {"b4", "j4"}
    assert found["j4"].kind == "join"
    assert (found["j4"].arrived, found["j4"].missing) == (("a4",), ("b4",))
    assert found["j4"].unblock == "progress of b4"
    assert (told.status, told.unaccounted) == (2, 0)


async def test_an_answer_that_is_pending(database_url: str) -> None:
    async def later(_: StreamData) -> Response:
        return Response({}, status="pending")

    async with mesh_with(database_url, Worker("w", later)) as mesh:
        told = await until(mesh, await mesh.pub("work", {}), "answers")
    assert told.unblock == ("add an answer to w1",)
    assert told.unaccounted == 0


async def test_a_message_that_no_engine_handles(database_url: str) -> None:
    async with mesh_with(database_url) as mesh:
        job_id = await mesh.pub("wait", {"order": "A7"})
    async with (
        HotMesh.init(app_id="why", connection=database_url, readonly=True) as sender,
        connected(database_url) as connection,
    ):
        await sender.signal("paid", {"order": "A7"})
        fresh = await sender.explain(job_id)
        await connection.execute(
            "update hotmesh.engine_stream set visible_at = now() - interval '1 minute', attempt = 2"
        )
        told = await sender.explain(job_id)
    assert [reason.kind for reason in reasons(fresh)] == ["message", "timer"]
    assert fresh.unblock[0] == "an engine takes it in a moment"
    assert told.unblock[0] == "start an engine"
    assert "handling it has failed 2 times" in str(told)
    assert told.unaccounted == 0


async def test_consumers_that_are_paused(database_url: str) -> None:
    async with mesh_with(database_url) as mesh:
        await mesh.pause()
        work, wait = await mesh.pub("work", {}), await mesh.pub("wait", {"order": "A7"})
        await mesh.signal("paid", {"order": "A7"})
        told = await mesh.explain(work)
        assert told.unblock == ("resume the workers of topic w",)
        assert told.notes == ("all engines are paused: resume them", "all workers are paused: resume them")
        assert (await mesh.explain(wait)).unblock[0] == "resume the engines"
        # The rate of a topic counts alone.
        await mesh.resume(topic="w", scope="workers")
        told = await mesh.explain(work)
        assert told.unblock == ("start a worker on topic w",)
        assert told.notes == ("all engines are paused: resume them",)
        await mesh.throttle(50, topic="w", scope="workers")
        told = await mesh.explain(work)
        assert "workers of topic w are throttled: one message per 50 ms" in told.notes


async def test_a_job_in_pending_mode(database_url: str) -> None:
    async with mesh_with(database_url) as mesh:
        told = await mesh.explain(await mesh.pub("work", {}, extended={"pending": 60}))
    (reason,) = reasons(told)
    assert (told.state, told.status, reason.kind) == ("pending", -1, "pending")
    assert reason.until is not None
    assert 50 < (reason.until - told.now).total_seconds() <= 60
    assert told.unblock == ("resume the job",)


async def test_work_that_is_tried_alone(database_url: str) -> None:
    async with mesh_with(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("work", {})
        await connection.execute(
            "update hotmesh.worker_stream set delivery = 5, beside = false, reserved_by = 'w-1', visible_at = now() + '30 s'"
        )
        told = await mesh.explain(job_id)
    (reason,) = reasons(told)
    assert "held by w-1 and tried alone there, because its process died 4 times with it" in reason.text


async def test_a_dead_letter(database_url: str) -> None:
    async with mesh_with(database_url) as mesh, connected(database_url) as connection:
        job_id = await mesh.pub("work", {})
        await connection.execute("update hotmesh.worker_stream set delivery = 5")

        async def never(_: StreamData) -> dict[str, Any]:
            return {}

        async with HotMesh.init(
            app_id="why", connection=database_url, engine=False, workers=[Worker("w", never)]
        ):
            await eventually(lambda: _letters(mesh))
        await eventually(lambda: _ended(mesh, job_id))
        told = await mesh.explain(job_id)
        (letter,) = await mesh.list_dead_letters()
    assert (told.state, told.branches) == ("failed", ())
    assert [(buried.id, buried.activity_id) for buried in told.dead_letters] == [(letter.id, "w1")]
    assert told.unblock == (f"requeue dead letter {letter.id}",)
    assert "it has ended with an error: Poison message detected" in str(told)


async def _letters(mesh: HotMesh) -> bool:
    return bool(await mesh.list_dead_letters())


async def _ended(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) == 0


async def test_jobs_that_have_ended(database_url: str) -> None:
    async def done(_: StreamData) -> dict[str, Any]:
        return {}

    async with mesh_with(database_url, Worker("w", done)) as mesh:
        output = await mesh.pubsub("work", {}, timeout=10)
        complete = await mesh.explain(output.metadata.jid)
        job_id = await mesh.pub("wait", {"order": 1})
        await mesh.cancel(job_id)
        await mesh.interrupt("wait", job_id, reason="enough")
        interrupted = await mesh.explain(job_id)
    assert (complete.state, complete.branches, complete.unblock) == ("complete", (), ())
    assert "it is complete: nothing is open" in str(complete)
    assert (interrupted.state, interrupted.branches, interrupted.unaccounted) == ("interrupted", (), 0)
    assert interrupted.notes == ("it is marked as cancelled", "it was interrupted: enough (code 410)")


async def test_a_job_with_more_than_anybody_wants_to_read(database_url: str) -> None:
    async with mesh_with(database_url) as mesh:
        told = await mesh.explain(await mesh.pub("many", {}))
    assert (told.status, len(told.branches), told.omitted, told.unaccounted) == (300, 200, 100, 0)
    assert "for 100 more of the same" in str(told)


async def test_an_explanation_is_plain_data_as_well(database_url: str) -> None:
    async with mesh_with(database_url) as mesh, connected(database_url):
        told = (await mesh.explain(await mesh.pub("parent", {}))).as_dict()
    again = json.loads(json.dumps(told))
    assert again == told
    (branch,) = told["branches"]
    assert (branch["activity_id"], branch["dimension"]) == ("a3", "0/0")
    assert branch["reasons"][0]["child"]["branches"][0]["reasons"][0]["topic"] == "w"
    assert told["unblock"] == [branch["reasons"][0]["unblock"]]
