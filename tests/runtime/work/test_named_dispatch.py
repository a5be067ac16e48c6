"""Workers of one topic, registered by workflow name: each gets its own work, also across processes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from harness import connected, eventually, settled
from hotmesh import ConfigError, HotMesh, JobError, Response, StreamData, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio

APP = "named"


def graphs(*names: str) -> str:
    """One graph per name, each with a worker on the topic `w`; `go` maps the name from its payload."""
    found = "".join(
        f"""
    - subscribes: {name}
      expire: 3600
      activities:
        t{index}: {{type: trigger}}
        w{index}:
          type: worker
          topic: w
          input: {{maps: {{x: '{{t{index}.output.data.x}}'}}}}
          job: {{maps: {{by: '{{$self.output.data.by}}'}}}}
      transitions:
        t{index}: [{{to: w{index}}}]"""
        for index, name in enumerate(names)
    )
    return f"""
app:
  id: {APP}
  version: '1'
  graphs:{found}
    - subscribes: go
      expire: 3600
      activities:
        start: {{type: trigger}}
        call:
          type: worker
          topic: w
          input: {{maps: {{workflowName: '{{start.output.data.name}}'}}}}
          job: {{maps: {{by: '{{$self.output.data.by}}', name: '{{$self.output.data.name}}'}}}}
      transitions:
        start: [{{to: call}}]
"""


GRAPHS = graphs("w-alpha", "beta", "gamma")
"""Their workflow names are `alpha` (the worker's topic in front is left out), `beta` and `gamma`."""


def by(who: str) -> Callable[[StreamData], Any]:
    async def callback(message: StreamData) -> dict[str, Any]:
        return {"by": who, "name": message.metadata.wfn}

    return callback


def named(name: str | None, who: str | None = None, **options: Any) -> Worker:
    return Worker("w", by(who or str(name)), workflow_name=name, **options)


@asynccontextmanager
async def mesh_on(url: str, *workers: Worker, **options: Any) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(APP, connection=url, workers=workers, **options) as mesh:
        await mesh.deploy(GRAPHS)
        await mesh.activate("1")
        yield mesh


async def test_each_worker_gets_the_work_of_its_name_and_the_plain_one_the_rest(database_url: str) -> None:
    async with mesh_on(database_url, named("alpha"), named("beta"), named(None, "plain")) as mesh:
        found = {}
        for topic in ("w-alpha", "beta", "gamma"):
            found[topic] = (await mesh.pubsub(topic, {"x": 1}, timeout=10)).data["by"]
        given = await mesh.pubsub("go", {"name": "beta"}, timeout=10)
        other = await mesh.pubsub("go", {"name": "Größe ☕"}, timeout=10)
        unnamed = await mesh.pubsub("go", {"name": ""}, timeout=10)
    assert found == {"w-alpha": "alpha", "beta": "beta", "gamma": "plain"}
    assert given.data == {"by": "beta", "name": "beta"}
    assert other.data == {"by": "plain", "name": "Größe ☕"}
    assert unnamed.data == {"by": "plain", "name": "go"}


async def test_work_of_an_unknown_name_waits_until_a_process_has_it(database_url: str) -> None:
    async with mesh_on(database_url, named("alpha")) as mesh, connected(database_url) as connection:
        waiting = await mesh.pub("beta", {"x": 1})
        for _ in range(3):
            assert (await mesh.pubsub("w-alpha", {"x": 1}, timeout=10)).data == {"by": "alpha"}
        row: Any = await connection.fetchrow(
            "select reserved_by, delivery, attempt from hotmesh.worker_stream where job_id = $1", waiting
        )
        assert dict(row) == {"reserved_by": None, "delivery": 0, "attempt": 0}
        explanation = await mesh.explain(waiting)
        assert "start a worker on topic w" in str(explanation)

        mesh.add_worker(named("beta"))
        await settled(connection, APP)
        assert (await mesh.get_state("beta", waiting)).data == {"by": "beta"}


async def test_processes_with_different_names_take_only_their_own(database_url: str) -> None:
    async with (
        mesh_on(database_url) as caller,
        mesh_on(database_url, named("alpha", "one"), engine=False),
        mesh_on(database_url, named("beta", "two"), engine=False),
    ):
        topics = ["w-alpha", "beta", "w-alpha", "beta"] * 10
        found = await asyncio.gather(*(caller.pubsub(topic, {"x": 1}, timeout=20) for topic in topics))
    assert [output.data["by"] for output in found] == ["one", "two"] * 20


async def test_a_full_name_keeps_its_work_from_the_plain_worker(database_url: str) -> None:
    release = asyncio.Event()
    running = 0

    async def slow(message: StreamData) -> dict[str, Any]:
        nonlocal running
        running += 1
        await release.wait()
        return {"by": "slow"}

    one = Worker("w", slow, workflow_name="alpha", max_concurrency=1)
    async with mesh_on(database_url, one, named(None, "plain")) as mesh:
        jobs = [await mesh.pub("w-alpha", {"x": 1}) for _ in range(5)]
        assert (await mesh.pubsub("beta", {"x": 1}, timeout=10)).data == {"by": "plain"}
        assert running == 1
        release.set()
        async with connected(database_url) as connection:
            await settled(connection, APP)
        states = [(await mesh.get_state("w-alpha", job)).data for job in jobs]
    assert states == [{"by": "slow"}] * 5


async def test_a_failed_try_of_named_work_goes_to_its_name_again(database_url: str) -> None:
    tries: list[str] = []

    def failing(who: str) -> Callable[[StreamData], Any]:
        async def callback(message: StreamData) -> Any:
            tries.append(who)
            return Response({"message": "no"}, status="error") if len(tries) < 3 else {"by": who}

        return callback

    policy = {"maximum_attempts": 3, "initial_interval": 0.01, "backoff_coefficient": 1}
    workers = [
        Worker("w", failing("named"), workflow_name="alpha", retry=policy),
        Worker("w", failing("plain"), retry=policy),
    ]
    async with mesh_on(database_url, *workers) as mesh:
        assert (await mesh.pubsub("w-alpha", {"x": 1}, timeout=10)).data == {"by": "named"}
    assert tries == ["named"] * 3


async def test_the_busy_are_told_from_those_that_take_other_names(database_url: str) -> None:
    release = asyncio.Event()

    async def slow(message: StreamData) -> dict[str, Any]:
        await release.wait()
        return {"by": "slow"}

    one = Worker("w", slow, workflow_name="alpha", max_concurrency=1)
    async with mesh_on(database_url, one, guid="busy") as mesh, mesh_on(database_url) as other:
        first, second = await mesh.pub("w-alpha", {"x": 1}), await mesh.pub("w-alpha", {"x": 1})
        other_name = await mesh.pub("beta", {"x": 1})
        await eventually(lambda: mesh.explain(first))
        assert (await other.explain(second)).unblock == (
            "the workers of topic w (busy) are busy with other jobs; start more of them",
        )
        (advice,) = (await other.explain(other_name)).unblock
        assert advice.startswith("start a worker on topic w that takes workflow name beta, or any")
        release.set()


async def test_names_that_cannot_work_are_refused(database_url: str) -> None:
    with pytest.raises(ConfigError, match="workflow_name of worker w must be a non-empty text"):
        named("")
    with pytest.raises(ConfigError, match="already has a worker on topic w for workflow name alpha"):
        async with mesh_on(database_url, named("alpha"), named("alpha")):
            raise AssertionError
    async with mesh_on(database_url, named(None, "plain")) as mesh:
        with pytest.raises(ConfigError, match="one for alpha can only be there from the start"):
            mesh.add_worker(named("alpha"))
        with pytest.raises(JobError, match="the workflow name of worker call has a NUL character"):
            await mesh.pubsub("go", {"name": "a\0b"}, timeout=10)


async def test_a_long_queue_of_another_name_is_not_read_row_by_row(database_url: str) -> None:
    async with mesh_on(database_url), connected(database_url) as connection:
        await connection.execute(
            """
            insert into hotmesh.worker_stream (app_id, topic, generation, activity_id, dimension, job_id,
                workflow_name, visible_at, created_at)
            select 'named', 'w', gen_random_uuid(), 'a', '{0}', 'j' || n, case n when 4900 then 'mine' else 'other' end,
                   clock_timestamp() - interval '1 hour', now()
              from generate_series(1, 5000) as n;
            analyze hotmesh.worker_stream;
            """
        )
        async with connection.transaction():
            due = await connection.fetchval(
                "select hotmesh.next_work_at('named', '{w}', '{mine}', array['{}'])"
            )
            rows = await connection.fetch(
                "select job_id from hotmesh.claim_work('named', 'me', '{w}', '{10}', 30, null, '{mine}', array['{}'])"
            )
            read = await connection.fetchval(
                "select idx_tup_fetch from pg_stat_xact_user_tables where relname = 'worker_stream'"
            )
        assert due < 0
        assert [row["job_id"] for row in rows] == ["j4900"]
        assert read < 50
