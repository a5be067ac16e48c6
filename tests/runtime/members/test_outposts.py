"""Workers with a connection of their own: who serves them, and that they stay part of their instance."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

import asyncpg
import pytest

from harness import connected, eventually, one_worker, owed
from hotmesh import (
    ConfigError,
    ConnectionFailedError,
    ConnectionLostError,
    HotMesh,
    SchemaError,
    StreamData,
    Worker,
)

pytestmark = pytest.mark.anyio

APP = "outposts"

SLOW = {"poll": 30.0}
"""Nothing is found by polling within a test."""


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


def apart(url: str, label: str = "apart") -> dict[str, Any]:
    """The same place by other options, so that it is a connection of its own."""
    return {"dsn": url, "server_settings": {"application_name": label}}


async def deployed(mesh: HotMesh, topic: str = "w") -> None:
    await mesh.deploy(one_worker(mesh.app_id, topic))
    await mesh.activate("1")


async def sessions(url: str, label: str) -> int:
    async with connected(url) as connection:
        return int(
            await connection.fetchval(
                "select count(*) from pg_stat_activity where application_name = $1 and datname = current_database()",
                label,
            )
        )


async def test_a_worker_with_a_connection_of_its_own_is_served_by_an_outpost(database_url: str) -> None:
    held: list[str] = []

    async def noting(message: StreamData) -> dict[str, Any]:
        async with connected(database_url) as connection:
            held.append(await connection.fetchval("select reserved_by from hotmesh.worker_stream"))
        return await double(message)

    worker = Worker("w", noting, connection=apart(database_url))
    async with HotMesh.init(APP, connection=database_url, workers=[worker], guid="me", settings=SLOW) as mesh:
        await deployed(mesh)
        [outpost] = mesh.outposts
        assert (outpost.guid_, outpost.app_id, outpost.namespace) == ("me.1", APP, mesh.namespace)
        assert (await mesh.pubsub("one", {"x": 4}, timeout=10)).data == {"y": 8}
        assert await sessions(database_url, "apart") >= 2
        async with HotMesh.init(APP, connection=database_url) as other:
            profiles = await other.roll_call(5)
        assert {profile.engine_id for profile in profiles if "worker_topic" in profile} == {"me.1"}
    assert held == ["me.1"]
    assert outpost.stopped
    await eventually(lambda: _gone(database_url, "apart"))


async def _gone(url: str, *labels: str) -> bool:
    return not any([await sessions(url, label) for label in labels])


async def test_workers_share_an_outpost_by_connection_and_need_none_for_the_instances_own(
    database_url: str,
) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=0, max_size=9)
    workers = [
        Worker("own", double),
        Worker("same", double, connection=database_url),
        Worker("one", double, connection=apart(database_url)),
        Worker("two", double, connection={"store": apart(database_url), "stream": {}, "sub": {}}),
        Worker("three", double, connection=pool),
        Worker("idle", double, connection=apart(database_url, "never"), readonly=True),
        Worker("idle", double, connection={**apart(database_url, "never"), "readonly": True}),
    ]
    async with HotMesh.init(APP, connection=database_url, workers=workers) as mesh:
        assert mesh._member.workers.topics == ["own", "same"]
        assert [outpost._member.workers.topics for outpost in mesh.outposts] == [["one", "two"], ["three"]]
        assert mesh.outposts == mesh.outposts
        assert await sessions(database_url, "never") == 0
    await pool.close()


async def test_without_an_engine_the_first_workers_connection_is_the_instances(database_url: str) -> None:
    workers = [
        Worker(topic, double, connection=apart(database_url, label))
        for topic, label in (("w", "a"), ("v", "b"))
    ]
    async with HotMesh.init(APP, connection=database_url) as mesh:
        await deployed(mesh)
        # There is nothing else that it could connect to: the environment names no database.
        async with HotMesh.init(APP, engine=False, workers=workers) as serving:
            assert serving._member.workers.topics == ["w"]
            assert [outpost._member.workers.topics for outpost in serving.outposts] == [["v"]]
            assert (await mesh.pubsub("one", {"x": 1}, timeout=10)).data == {"y": 2}
        async with HotMesh.init(APP, connection=database_url, engine=False, workers=workers) as serving:
            assert len(serving.outposts) == 2


async def test_rates_and_pauses_hold_for_outposts(database_url: str) -> None:
    worker = Worker("w", double, connection=apart(database_url))
    async with HotMesh.init(APP, connection=database_url, workers=[worker], settings=SLOW) as mesh:
        await deployed(mesh)
        [outpost] = mesh.outposts

        def rate() -> int:
            return outpost._member.workers.figures()[0].rate

        targets: list[dict[str, Any]] = [{"topic": "w"}, {}, {"guid": mesh.guid_}, {"guid": outpost.guid_}]
        for target in targets:
            await mesh.throttle(700, **target)
            await eventually(lambda: rate() == 700, what=f"a rate of {target}")
            await mesh.resume(**target)
            await eventually(lambda: rate() == 0)


async def test_metrics_explanations_and_codecs_include_outposts(database_url: str) -> None:
    class Reversed:
        def encode(self, text: str) -> str:
            return text[::-1]

        def decode(self, text: str) -> str:
            return text[::-1]

    release = asyncio.Event()

    async def waits(message: StreamData) -> dict[str, Any]:
        await release.wait()
        return await double(message)

    workers = [Worker("w", waits, connection=apart(database_url))]
    async with HotMesh.init(
        APP, connection=database_url, workers=workers, codec=Reversed(), metrics="127.0.0.1:0"
    ) as mesh:
        await deployed(mesh)
        job = await mesh.pub("one", {"x": 3})

        async def runs() -> bool:
            return bool((await mesh.metrics())["callbacks_running"].get("w"))

        await eventually(runs)
        assert mesh._member.serves("w", "one")
        release.set()
        await eventually(lambda: _done(mesh, job))
        assert (await mesh.get_state("one", job)).data == {"y": 6}
        assert (await mesh.metrics())["callbacks_ended"] == {"w": {"success": 1}}

        def scrape() -> str:
            with urllib.request.urlopen(f"http://{mesh.metrics_address}/metrics", timeout=10) as answer:
                text: str = answer.read().decode()
                return text

        text = await asyncio.to_thread(scrape)
        assert (
            'hotmesh_callbacks_ended_total{app="outposts",namespace="hotmesh",outcome="success",topic="w"} 1.0'
            in text
        )


async def _done(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) == 0


async def test_a_further_worker_joins_an_outpost_that_is_there(database_url: str) -> None:
    here, there = apart(database_url), apart(database_url, "elsewhere")
    async with HotMesh.init(
        APP, connection=database_url, workers=[Worker("v", double, connection=here)]
    ) as mesh:
        await deployed(mesh)
        mesh.add_worker(Worker("w", double, connection=here))
        assert mesh.outposts[0]._member.workers.topics == ["v", "w"]
        assert (await mesh.pubsub("one", {"x": 4}, timeout=10)).data == {"y": 8}
        mesh.add_worker(Worker("same", double, connection=database_url))
        assert mesh._member.workers.topics == ["same"]
        with pytest.raises(
            ConfigError, match="worker u has a connection that no other worker of this instance has"
        ):
            mesh.add_worker(Worker("u", double, connection=there))
        with pytest.raises(ConfigError, match="already has a worker on topic w"):
            mesh.add_worker(Worker("w", double, connection=here))


async def test_what_is_wrong_with_a_workers_connection_is_said_at_the_start_and_leaves_nothing(
    database_url: str, empty_database_url: str
) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=0, max_size=9)
    small = await asyncpg.create_pool(database_url, min_size=0, max_size=2)
    nobody = {"user": "nobody-here", "password": "x"}
    good = Worker("v", double, connection=apart(database_url))
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        (
            {"connection": database_url.replace("test_", "no_such_")},
            ConnectionFailedError,
            "connection-failed: worker w: ",
        ),
        ({"connection": empty_database_url}, SchemaError, "worker w: .*hotmesh migrate"),
        ({"connection": small}, ConfigError, "worker w: the pool has room for 2 connections"),
        (
            {"connection": pool, "worker_credentials": nobody},
            ConfigError,
            "worker w: worker_credentials= does not go",
        ),
        ({"worker_credentials": nobody}, ConnectionFailedError, "connection-failed: worker w: .*nobody-here"),
    ]
    for options, kind, words in refused:
        with pytest.raises(kind, match=words):
            await HotMesh.init(
                APP,
                connection=database_url,
                guid="me",
                name="left",
                workers=[good, Worker("w", double, **options)],
            )
        await eventually(lambda: _gone(database_url, "left", "apart"))
    async with connected(empty_database_url) as connection:
        assert await connection.fetchval("select to_regnamespace('hotmesh')") is None
    for options, words in (
        ({"connection": 7}, "worker w: connection= takes a DSN"),
        ({"connection": {"hots": "x"}}, "worker w: connection= has no option 'hots'"),
        (
            {"connection": {"store": "postgresql://x"}},
            "worker w: engine must include `store`, `stream`, and `sub`",
        ),
        (
            {"worker_credentials": {"user": "x"}},
            "worker w: worker_credentials is a dict with user and password",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            Worker("w", double, **options)
    secret = Worker(
        "w",
        double,
        connection="postgresql://u:secret@h",
        worker_credentials={"user": "u", "password": "secret"},
    )
    assert "secret" not in repr(secret)
    async with HotMesh.init(APP, connection=database_url, guid="me", workers=[good]):
        pass  # the guid is free
    await pool.close()
    await small.close()


@pytest.mark.parametrize("everything", [False, True], ids=["stop", "stop_all"])
async def test_stopping_lets_callbacks_of_outposts_finish(database_url: str, everything: bool) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def slow(message: StreamData) -> dict[str, Any]:
        started.set()
        await gate.wait()
        return {"y": 1}

    worker = Worker("w", slow, connection=apart(database_url))
    mesh = await HotMesh.init(APP, connection=database_url, workers=[worker])
    await deployed(mesh)
    job = await mesh.pub("one", {"x": 1})
    await started.wait()
    stopping = asyncio.ensure_future(HotMesh.stop_all() if everything else mesh.stop())
    await asyncio.sleep(0)
    gate.set()
    await stopping
    assert mesh.outposts[0].stopped
    async with HotMesh.init(APP, connection=database_url) as other:
        await eventually(lambda: _done(other, job))
        assert (await other.get_state("one", job)).data == {"y": 1}
    async with connected(database_url) as connection:
        assert await owed(connection, APP) == {}
    await eventually(lambda: _gone(database_url, "apart"))


@pytest.mark.parametrize("broken", ["outpost", "instance"])
async def test_what_ends_an_outpost_ends_its_instance_and_the_other_way_round(
    database_url: str, broken: str
) -> None:
    worker = Worker("w", double, connection=apart(database_url))
    mesh = await HotMesh.init(APP, connection=database_url, workers=[worker])
    [outpost] = mesh.outposts
    victim = outpost if broken == "outpost" else mesh
    assert victim._member.lifetime.runner is not None
    victim._member.lifetime.runner.cancel()
    await eventually(lambda: mesh.stopped and outpost.stopped)
    with pytest.raises(ConnectionLostError, match="has stopped"):
        await mesh.pub("one", {"x": 1})
    await asyncio.gather(mesh.stop(), outpost.stop())
