"""Instances: how they begin, stand side by side in one process, process nothing when readonly, and end."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import anyio
import asyncpg
import pytest

from harness import connected, eventually, one_worker, settled
from hotmesh import (
    ConfigError,
    ConnectionFailedError,
    ConnectionLostError,
    EngineRequiredError,
    HotMesh,
    StreamData,
    Worker,
)
from hotmesh.postgres import loading
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.connect.source import ConnectionSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

APP = "instances"

MORE = """
    - subscribes: nap
      expire: 3600
      activities:
        lie: {type: trigger}
        wake: {type: hook, sleep: 0.2, job: {maps: {awake: true}}}
      transitions:
        lie: [{to: wake}]
"""


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@asynccontextmanager
async def mesh_on(
    connection: Any, *workers: Worker, app_id: str = APP, **options: Any
) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(app_id, connection=connection, workers=workers, **options) as mesh:
        await mesh.deploy(one_worker(app_id, more=MORE))
        await mesh.activate("1")
        yield mesh


def options_of(url: str) -> dict[str, Any]:
    """A URL as options of the driver."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return {
        "host": query["host"][0], "port": int(query["port"][0]), "user": parts.username, "database": parts.path[1:],
    }  # fmt: skip


async def held_by(url: str, member: str) -> int:
    async with connected(url) as connection:
        return int(
            await connection.fetchval(
                "select count(*) from hotmesh.worker_stream where reserved_by = $1", member
            )
        )


# -- beginning -----------------------------------------------------------------------------------------------


@pytest.mark.row(1, 2)
async def test_the_forms_of_a_connection(database_url: str) -> None:
    plain = options_of(database_url)
    short = {"class": asyncpg.Connection, "options": plain}
    long = {"store": short, "stream": short, "sub": short}
    for form in (plain, short, long, {"store": database_url, "stream": {}, "sub": {}}, {"dsn": database_url}):
        async with mesh_on(form, Worker("w", double)) as mesh:
            assert (await mesh.pubsub("one", {"x": 3}, timeout=10)).data == {"y": 6}
    with pytest.raises(ConfigError, match="lacks stream, sub"):
        await HotMesh.init(APP, connection={"store": short})


@pytest.mark.row(4)
async def test_a_server_that_is_not_there(database_url: str) -> None:
    elsewhere = {**options_of(database_url), "host": "/nowhere"}
    unknown = {**options_of(database_url), "user": "nobody-here"}
    for form in (elsewhere, unknown):
        with pytest.raises(ConnectionFailedError, match="postgres-provider-connection-failed"):
            await HotMesh.init(APP, connection=form)


@pytest.mark.row(14, 15)
async def test_names_that_cannot_be(database_url: str) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"app_id": "a"}, r"config\.appId \[a\] is reserved"),
        ({"app_id": "a_b"}, r"config\.appId \[a_b\] is invalid"),
        ({"app_id": ""}, r"config\.appId \[\] is invalid"),
        ({"app_id": "b", "namespace": "a_b"}, r"config\.namespace \[a_b\] is invalid"),
        ({"app_id": "b", "guid": "x\0"}, r"config\.guid is a text of 1 to 512 characters"),
        ({"app_id": "b", "guid": ""}, r"config\.guid is a text of 1 to 512 characters"),
    ]
    for options, words in refused:
        with pytest.raises(ConfigError, match=words):
            await HotMesh.init(connection=database_url, **options)


@pytest.mark.row(16)
async def test_two_instances_begin_and_deploy_at_once(empty_database_url: str) -> None:
    async def begin(number: int) -> Any:
        async with mesh_on(empty_database_url, Worker("w", double)) as mesh:
            return (await mesh.pubsub("one", {"x": number}, timeout=10)).data

    assert await asyncio.gather(*map(begin, range(3))) == [{"y": 0}, {"y": 2}, {"y": 4}]


@pytest.mark.row(17)
async def test_an_instance_without_an_engine_says_so(database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url, engine=False) as mesh:
        for call in (mesh.pub("one"), mesh.pubsub("one"), mesh.signal("t", {}), mesh.signal_all("t", {}, {})):
            with pytest.raises(EngineRequiredError):
                await call


@pytest.mark.row(6)
async def test_closing_what_was_never_opened(database_url: str) -> None:
    await Link(ConnectionSource(database_url)).close()


@pytest.mark.row(11, 12, 22)
async def test_a_pool_of_the_users(database_url: str) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=0, max_size=20)
    slow = {"poll": 30}
    worker = Worker("w", double)
    async with (
        mesh_on(pool, settings=slow) as mesh,
        HotMesh.init(APP, connection=pool, workers=[worker], engine=False, settings=slow),
    ):
        took = []
        for _ in range(5):
            began = time.monotonic()
            assert (await mesh.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}
            took.append(time.monotonic() - began)
        assert min(took) < 0.5
    await pool.close()


async def test_a_guid_is_that_of_one_instance(database_url: str) -> None:
    async with mesh_on(database_url, guid="me"):
        with pytest.raises(
            ConfigError, match=r"config\.guid \[me\] is in use by another instance of app instances"
        ):
            await HotMesh.init(APP, connection=database_url, guid="me")
        async with HotMesh.init("another", connection=database_url, guid="me"):
            pass
    with pytest.raises(ConfigError, match="there is no setting"):
        await HotMesh.init(APP, connection=database_url, guid="me", settings={"nonsense": 1})
    starting = asyncio.create_task(_begin(database_url))
    await asyncio.sleep(0.02)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with mesh_on(database_url, Worker("w", double), guid="me") as mesh:
        assert (await mesh.pubsub("one", {"x": 1}, timeout=10)).data == {"y": 2}


async def _begin(url: str) -> None:
    mesh = await HotMesh.init(APP, connection=url, guid="me")
    await mesh.stop()


# -- side by side --------------------------------------------------------------------------------------------


async def test_apps_and_namespaces_stand_side_by_side(database_url: str) -> None:
    ran: dict[tuple[str, str], list[int]] = {}

    def noting(name: tuple[str, str]) -> Worker:
        async def callback(message: StreamData) -> dict[str, Any]:
            ran.setdefault(name, []).append(message.data["x"])
            return {"y": f"{name[0]} {name[1]}"}

        return Worker("w", callback)

    names = [(app, space) for app in ("shop", "bank") for space in ("hotmesh", "other-Space")]
    async with anyio.create_task_group() as tasks, contextmanager_stack() as stack:
        del tasks
        meshes = {
            name: await stack(
                mesh_on(database_url, noting(name), app_id=name[0], namespace=name[1], guid="same")
            )
            for name in names
        }
        told: dict[tuple[str, str], list[str]] = {name: [] for name in names}
        for name, mesh in meshes.items():
            await mesh.psub("*", lambda _, output, name=name: told[name].append(output.metadata.jid))
        outputs = await asyncio.gather(
            *(
                mesh.pubsub("one", {"x": 1}, timeout=20, extended={"id": f"{a}.{b}"})
                for (a, b), mesh in meshes.items()
            )
        )
        await eventually(lambda: all(told.values()))
        assert [output.data["y"] for output in outputs] == [f"{app} {space}" for app, space in names]
        assert told == {name: [f"{name[0]}.{name[1]}"] for name in names}
        for name, mesh in meshes.items():
            others = [f"{a}.{b}" for a, b in names if (a, b) != name]
            assert [await loading.load_status(mesh._member.database, job_id) for job_id in others] == [
                None
            ] * 3
    assert ran == {name: [1] for name in names}


@asynccontextmanager
async def contextmanager_stack() -> AsyncIterator[Any]:
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        yield stack.enter_async_context


# -- readonly ------------------------------------------------------------------------------------------------


@pytest.mark.row(19)
async def test_a_readonly_engine_creates_and_others_advance(database_url: str) -> None:
    calls: list[int] = []

    async def counted(message: StreamData) -> dict[str, Any]:
        calls.append(message.data["x"])
        return {"y": 1}

    async with mesh_on(database_url, Worker("w", counted), readonly=True, settings={"poll": 0.05}) as mesh:
        jobs = [await mesh.pub("one", {"x": 1}), await mesh.pub("nap")]
        async with connected(database_url) as connection:
            await connection.execute("update hotmesh.timer set due_at = now()")
        await asyncio.sleep(0.3)  # six polls, in which it could have done what it must not
        assert calls == []
        assert [await mesh.get_status(job) for job in jobs] == [1, 1]
        async with mesh_on(database_url, Worker("w", double)), connected(database_url) as connection:
            await settled(connection, APP)
        states = [(await mesh.get_state("", job)).data for job in jobs]
    assert (states, calls) == ([{"y": 2}, {"awake": True}], [])


async def test_what_a_readonly_engine_leaves_is_taken_up_at_once(database_url: str) -> None:
    slow = {"poll": 30.0}
    async with (
        mesh_on(database_url, settings=slow),
        mesh_on({"dsn": database_url, "readonly": True}, Worker("w", double), settings=slow) as readonly,
    ):
        began = time.monotonic()
        for topic, data, expected in (("nap", {}, {"awake": True}), ("one", {"x": 4}, {"y": 8})):
            assert (await readonly.pubsub(topic, data, timeout=10)).data == expected
        assert time.monotonic() - began < 15
        assert not len(readonly._member.engine.cache)  # type: ignore[union-attr]


async def test_a_readonly_worker_takes_nothing(database_url: str) -> None:
    calls: list[int] = []
    idle = Worker("w", lambda message: calls.append(1), readonly=True)
    async with mesh_on(database_url, idle, settings={"poll": 0.05}) as mesh:
        job = await mesh.pub("one", {"x": 1})
        await asyncio.sleep(0.2)
        assert (calls, await mesh.get_status(job)) == ([], 1)
        async with (
            mesh_on(database_url, Worker("w", double), engine=False),
            connected(database_url) as connection,
        ):
            await settled(connection, APP)
    assert calls == []


# -- ending --------------------------------------------------------------------------------------------------


@pytest.mark.row(20)
async def test_a_stopped_instance_processes_nothing_and_others_do(database_url: str) -> None:
    calls: dict[str, int] = {"first": 0, "second": 0}

    def counted(name: str) -> Worker:
        async def callback(message: StreamData) -> dict[str, Any]:
            calls[name] += 1
            return {"y": name}

        return Worker("w", callback)

    async with (
        mesh_on(database_url, counted("first")) as first,
        mesh_on(database_url, counted("second")) as second,
    ):
        assert (await first.pubsub("one", {"x": 1}, timeout=10)).data == {"y": "first"}
        await first.stop()
        for _ in range(20):
            assert (await second.pubsub("one", {"x": 1}, timeout=10)).data == {"y": "second"}
        with pytest.raises(ConnectionLostError, match="has stopped"):
            await first.pub("one", {"x": 1})
        began = time.monotonic()
        await first.stop()
        assert time.monotonic() - began < 2
    assert calls == {"first": 1, "second": 20}


@pytest.mark.row(21)
async def test_the_same_app_again_after_stop_all(database_url: str) -> None:
    for _ in range(2):
        first = await HotMesh.init(APP, connection=database_url, workers=[Worker("w", double)], guid="fixed")
        await first.deploy(one_worker(APP, more=MORE))
        await first.activate("1")
        second = await HotMesh.init("other", connection=database_url)
        assert (await first.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}
        began = time.monotonic()
        await HotMesh.stop_all()
        assert time.monotonic() - began < 8  # nothing runs, so none of the grace is needed
        await HotMesh.stop_all()
        await asyncio.gather(first.stop(), second.stop())
        with pytest.raises(ConnectionLostError):
            await first.pub("one", {"x": 2})


async def test_two_that_stop_it_at_once_both_wait_for_its_end(database_url: str) -> None:
    async with mesh_on(database_url) as mesh:
        await asyncio.gather(mesh.stop(), mesh.stop())
        assert mesh._member.lifetime.ended
        async with connected(database_url) as connection:
            left = "select count(*) from pg_stat_activity where application_name = 'hotmesh instances'"
            await eventually(lambda: _is(connection, left, 0))


async def _is(connection: Any, query: str, expected: Any) -> bool:
    return bool(await connection.fetchval(query) == expected)


@pytest.mark.parametrize("stubborn", [False, True], ids=["callbacks that end", "callbacks that do not"])
async def test_nothing_stays_held_by_an_instance_that_stopped(database_url: str, stubborn: bool) -> None:
    started: list[int] = []
    ended = threading.Event()

    async def shielded(message: StreamData) -> dict[str, Any]:
        started.append(message.data["x"])
        with anyio.CancelScope(shield=stubborn):
            await anyio.sleep(1.5 if stubborn else 0.05)
        return {"y": 1}

    def threaded(message: StreamData) -> dict[str, Any]:
        started.append(message.data["x"])
        ended.wait(5 if stubborn else 0.05)
        return {"y": 1}

    workers = [
        Worker("w", shielded, max_concurrency=3, workflow_name="one"),
        Worker("v", threaded, max_concurrency=2),
    ]
    graph = one_worker(APP) + one_worker(APP, "v").partition("graphs:")[2].replace("one", "two").replace(
        "start", "begin"
    ).replace("call", "ask")
    mesh = await HotMesh.init(APP, connection=database_url, workers=workers, guid="stopping")
    await mesh.deploy(graph)
    await mesh.activate("1")
    for number in range(12):
        await mesh.pub("two" if number % 2 else "one", {"x": number})
    await eventually(lambda: len(started) >= 5)
    if stubborn:
        # A claim whose answer was lost: held in its name, and it does not know.
        async with connected(database_url) as connection:
            await connection.execute(
                "update hotmesh.worker_stream set reserved_by = 'stopping', visible_at = now() + interval '30 s'"
            )
    await mesh.stop(grace=0.1 if stubborn else 5)
    ended.set()
    assert await held_by(database_url, "stopping") == 0
    async with mesh_on_again(database_url), connected(database_url) as connection:
        await settled(connection, APP, within=5)


@asynccontextmanager
async def mesh_on_again(url: str) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(APP, connection=url, workers=[Worker("w", double), Worker("v", double)]) as mesh:
        yield mesh


async def test_what_is_being_done_when_it_stops_is_done(database_url: str) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow(message: StreamData) -> dict[str, Any]:
        entered.set()
        await gate.wait()
        return {"y": 5}

    async with mesh_on(database_url, Worker("w", slow)) as mesh:
        call = asyncio.create_task(mesh.pubsub("one", {"x": 1}, timeout=10))
        await entered.wait()
        stopping = asyncio.create_task(mesh.stop())
        await asyncio.sleep(0)
        gate.set()
        await stopping
        assert (await call).data == {"y": 5}
