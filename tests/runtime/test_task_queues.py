"""Task queues: which instances share a connection, and that it ends with the last of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from harness import connected, one_worker
from hotmesh import ConfigError, HotMesh, PostgresConnection, StreamData, Worker, connect_client
from hotmesh.postgres.connect.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

APP = "queues"


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert PostgresConnection.statistics().connections == 0


def shared() -> dict[str, tuple[int, int]]:
    """Task queue → connections and users."""
    by_queue = PostgresConnection.statistics().by_task_queue
    return {name: (found.connections, found.users) for name, found in by_queue.items()}


async def deployed(mesh: HotMesh) -> None:
    await mesh.deploy(one_worker(mesh.app_id))
    await mesh.activate("1")


@pytest.mark.row(13)
async def test_instances_of_task_queues_of_their_own_run_one_app(database_url: str) -> None:
    first = HotMesh.init(APP, connection=database_url, task_queue="first")
    second = HotMesh.init(
        APP, engine={"connection": database_url, "task_queue": "second"}, workers=[Worker("w", double)]
    )
    async with first as one, second as two:
        assert shared() == {"first": (1, 1), "second": (1, 1)}
        await deployed(one)
        for mesh in (one, two):
            assert (await mesh.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}


def general(mesh: HotMesh) -> Link:
    """The connection for calls."""
    (found,) = (link for link in mesh._member.database.links if link.name == "calls")
    return found


async def test_instances_of_one_task_queue_share_the_connection_for_calls(database_url: str) -> None:
    def init(app_id: str = APP, **options: Any) -> Any:
        return HotMesh.init(app_id, **{"connection": database_url, "task_queue": "q", **options})

    async with init() as one, init("other") as other, init(connection={"dsn": database_url}) as third:
        await deployed(one)
        await deployed(other)
        assert shared() == {"q": (1, 3)}
        assert general(one) is general(other) is general(third)
        jobs = [await mesh.pub("one", {"x": 1}) for mesh in (one, other)]
        states = await asyncio.gather(
            *(mesh.get_status(job) for mesh, job in zip((one, other), jobs, strict=True) for _ in range(20))
        )
        assert states == [1] * 40
        assert general(one).reconnects == 0
        # Whoever asks for a native connection gets none that an instance uses.
        client = await connect_client(database_url, "q")
        await client.fetchval("select 1")
        assert shared() == {"q": (2, 4)}
        await other.stop()
        assert shared() == {"q": (2, 3)}
        assert await one.get_status(jobs[0]) == 1
        async with (
            init(settings={"connect_timeout": 5}),
            init(connection={"dsn": database_url, "timeout": 9}),
        ):
            assert shared() == {"q": (4, 5)}
        connection = await PostgresConnection.connect(database_url, task_queue="q")
        await connection.disconnect()
        await connection.disconnect()
    async with HotMesh.init(APP, connection=database_url):
        assert shared() == {}


async def test_a_start_that_fails_shares_nothing_any_more(database_url: str) -> None:
    twice = [Worker("w", double), Worker("w", double)]
    for options in ({"workers": twice}, {"connection": "postgresql://nobody-here@/x?host=/nowhere"}):
        with pytest.raises(Exception, match=r"already has a worker|connection-failed"):
            await HotMesh.init(APP, **{"connection": database_url, "task_queue": "q", **options})  # type: ignore[arg-type]
        assert shared() == {}
    for wrong in ("", 7):
        with pytest.raises(ConfigError, match="task_queue must be a non-empty text"):
            HotMesh.init(APP, task_queue=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="task_queue must be a non-empty text"):
            Worker("w", double, task_queue=wrong)  # type: ignore[arg-type]


async def test_workers_of_task_queues_of_their_own_have_outposts_of_their_own(database_url: str) -> None:
    apart = {"dsn": database_url, "timeout": 9}
    workers = [
        Worker(topic, double, connection=apart, task_queue=queue)
        for topic, queue in (("w", "fast"), ("v", "fast"), ("u", "slow"), ("t", None))
    ]
    async with HotMesh.init(APP, connection=database_url, workers=workers) as mesh:
        assert [outpost._member.workers.topics for outpost in mesh.outposts] == [["w", "v"], ["u"], ["t"]]
        assert shared() == {"fast": (1, 1), "slow": (1, 1)}
        mesh.add_worker(Worker("s", double, connection=apart, task_queue="slow"))
        assert mesh.outposts[1]._member.workers.topics == ["u", "s"]
    async with HotMesh.init(APP, connection=database_url, workers=workers, task_queue="all") as mesh:
        assert len(mesh.outposts) == 1
        assert shared() == {"all": (2, 2)}
    async with connected(database_url) as connection:
        await connection.fetchval("select 1")
