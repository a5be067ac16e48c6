"""Connections that break in the ways of real networks and servers: all goes on by itself, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from asyncpg.transaction import Transaction

from harness import Doubler, connected, eventually, init_within, one_worker, settled
from hotmesh import HotMesh, HotMeshError, Worker
from hotmesh.errors import ConfigError, ConnectionLostError, DatabaseError
from hotmesh.postgres import commits, local
from hotmesh.postgres.connect.failures import backoff
from hotmesh.postgres.connect.link import STOOD_STILL, Link
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.work import OrdinaryWork
from hotmesh.runtime.limits import DEFAULT_LIMITS, MemberLimits
from hotmesh.runtime.members.listener import ListenerLimits
from interception import database_of, intercept, lose_one, losing
from proxy import proxied

pytestmark = pytest.mark.anyio

APP = "losses"

PROBES_OFTEN = MemberLimits(listener=ListenerLimits(probe_period=0.5))


@asynccontextmanager
async def mesh_on(
    connection: Any, callback: Any, *, limits: MemberLimits = DEFAULT_LIMITS, **settings: float
) -> AsyncIterator[HotMesh]:
    async with init_within(
        limits,
        APP,
        connection=connection,
        workers=[Worker("w", callback)],
        settings={"connect_timeout": 1.0, "reconnect_max": 0.2, "grace": 1.0, **settings},
    ) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        yield mesh


def lose_one_commit(mesh: HotMesh) -> asyncio.Event:
    """Let the first answer of a commit that reserved work get lost; set once it was."""

    async def commit(*arguments: Any, **options: Any) -> Any:
        return await honest(*arguments, **options)

    answer, lost = losing(commit, when=lambda committed: bool(committed.held))
    honest = intercept(database_of(mesh), commits.commit, answer)
    return lost


async def succeeds(mesh: HotMesh) -> bool:
    try:
        return bool((await mesh.pubsub("one", {"x": 4}, timeout=5)).data == {"y": 8})
    except HotMeshError:
        return False


# -- half-open connections -----------------------------------------------------------------------------------


async def test_a_line_that_swallows_everything_is_found_out_and_left(database_url: str) -> None:
    double = Doubler()
    double.gate.set()
    async with (
        proxied(database_url) as proxy,
        mesh_on(proxy.url, double, limits=PROBES_OFTEN) as mesh,
        connected(database_url) as connection,
    ):
        assert await succeeds(mesh)
        proxy.mute()
        began = time.monotonic()
        calls = [
            *(mesh.pub("one", {"x": x}, extended={"id": f"lost-{x}"}) for x in range(5)),
            *(mesh.get_status("nobody") for _ in range(20)),
            mesh.signal("nothing", {}),
        ]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 10
        assert all(isinstance(error, DatabaseError) for error in errors[:25]), errors
        proxy.unmute()
        await eventually(lambda: succeeds(mesh), within=20, what="an answer")
        await settled(connection, APP)

    assert max(double.runs.values()) == 1


async def test_what_is_under_way_outlasts_a_silent_line(database_url: str) -> None:
    """A callback goes on; its answer is sent when there is a line again, and counts once."""
    double = Doubler()
    async with (
        proxied(database_url) as proxy,
        mesh_on(proxy.url, double) as mesh,
        connected(database_url) as connection,
    ):
        waiting = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(5)]
        await eventually(lambda: len(double.runs) == 5, what="five callbacks")
        proxy.mute()
        double.gate.set()
        done, _ = await asyncio.wait(waiting, timeout=1.5)
        assert not done
        proxy.unmute()
        outputs = await asyncio.gather(*waiting)
        await settled(connection, APP)

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(5)]
    assert set(double.runs.values()) == {1}


async def test_lines_cut_under_load_lose_nothing_and_repeat_nothing(database_url: str) -> None:
    double = Doubler()
    double.gate.set()
    async with (
        proxied(database_url) as proxy,
        mesh_on(proxy.url, double, connect_timeout=30) as mesh,
        connected(database_url) as connection,
    ):
        calls = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(200)]
        for _ in range(4):
            proxy.cut()
            await asyncio.wait(calls, timeout=0.1)
        outputs = await asyncio.gather(*calls)
        await settled(connection, APP)
        assert await connection.fetchval("select count(*) from hotmesh.job") == 200

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(200)]
    assert proxy.accepted > 5


async def test_work_that_a_lost_claim_reserved_is_run_at_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Doubler()
    double.gate.set()
    async with mesh_on(database_url, double, lease=60) as mesh, connected(database_url) as connection:
        await mesh.throttle(-1, topic="w", guid=mesh.guid_)
        await eventually(lambda: mesh._member.workers.figures()[0].rate == -1, what="the pause")
        # Before the member starts whose claim it is to be: a running one may have a claim on its way.
        lost = lose_one(monkeypatch, OrdinaryWork, "claim")
        async with HotMesh.init(
            APP, connection=database_url, engine=False, workers=[Worker("w", double)], settings={"lease": 60}
        ):
            output = await mesh.pubsub("one", {"x": 4}, timeout=10)
            assert lost.is_set()
            await settled(connection, APP)

    assert output.data == {"y": 8}
    assert set(double.runs.values()) == {1}


async def test_overflowed_work_that_a_lost_commit_reserved_is_run_at_once(database_url: str) -> None:
    double = Doubler()
    async with (
        HotMesh.init(
            APP,
            connection=database_url,
            workers=[Worker("w", double, max_concurrency=2)],
            settings={"lease": 60},
        ) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        calls = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=10)) for x in range(20)]
        await eventually(lambda: len(double.runs) == 2, what="two callbacks")
        lost = lose_one_commit(mesh)
        double.gate.set()
        outputs = await asyncio.gather(*calls)
        assert lost.is_set()
        await settled(connection, APP)

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(20)]
    assert set(double.runs.values()) == {1}


async def test_work_that_a_lost_transaction_of_the_stream_reserved_is_run_at_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = one_worker(APP).replace("start: [{to: call}]", "start: [{to: nap}]\n        nap: [{to: call}]")
    graph = graph.replace(
        "start: {type: trigger}", "start: {type: trigger}\n        nap: {type: hook, sleep: 0.01}"
    )
    leave = Transaction.__aexit__
    double = Doubler()
    double.gate.set()
    async with mesh_on(database_url, double, lease=60) as mesh, connected(database_url) as connection:
        await mesh.deploy(graph.replace("version: '1'", "version: '2'"))
        await mesh.activate("2")
        lost = asyncio.Event()

        async def lose(self: Transaction, kind: Any, error: Any, trace: Any) -> None:
            reserved = kind is None and await self._connection.fetchval(  # type: ignore[attr-defined]
                "select count(*) from hotmesh.worker_stream where reserved_by = $1", mesh.guid_
            )
            await leave(self, kind, error, trace)
            if reserved and not lost.is_set():
                lost.set()
                raise ConnectionLostError("the answer to COMMIT was lost")

        monkeypatch.setattr(Transaction, "__aexit__", lose)
        output = await mesh.pubsub("one", {"x": 4}, timeout=10)
        assert lost.is_set()
        await settled(connection, APP)

    assert output.data == {"y": 8}
    assert set(double.runs.values()) == {1}


async def test_a_blocked_event_loop_is_no_silent_database(database_url: str) -> None:
    link = Link(ConnectionSource(database_url), patience=0.3)
    async with link.use() as connection:
        before = connection.get_server_pid()
        asyncio.get_running_loop().call_later(0.02, time.sleep, 0.3 + STOOD_STILL + 0.2)
        assert await connection.fetchval("select 1 from pg_sleep(0.1)") == 1
    async with link.use() as connection:
        assert connection.get_server_pid() == before
        with pytest.raises(ConnectionLostError, match=r"did not answer within 0\.3 s"):
            async with Link(ConnectionSource(database_url), patience=0.3).use() as other:
                await other.fetchval("select 1 from pg_sleep(30)")
    await link.close()


def test_a_pause_stays_short_however_long_the_database_is_away() -> None:
    for failures in (0, 1, 5, 50, 5_000):
        assert 0 < backoff(failures, longest=5.0) <= 5.0


# -- no room -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2])
async def test_a_pool_that_is_too_small_is_refused_with_the_size_it_needs(
    database_url: str, size: int
) -> None:
    async with asyncpg.create_pool(database_url, min_size=0, max_size=size) as pool:
        with pytest.raises(ConfigError, match=rf"room for {size} connections.*max_size=9 or more"):
            await asyncio.wait_for(HotMesh.init(APP, connection=pool), timeout=5)


async def test_a_server_without_room_is_told_to_callers_and_used_when_there_is_some(
    empty_database_url: str,
) -> None:
    name = empty_database_url.split("?", maxsplit=1)[0].rpartition("/")[2]
    guest = f"guest_{name}"
    double = Doubler()
    double.gate.set()
    async with connected(empty_database_url) as connection:
        await connection.execute(f"create role {guest} login; alter database {name} owner to {guest}")
        try:
            async with mesh_on({"dsn": empty_database_url, "user": guest}, double) as mesh:
                await succeeds(mesh)
                await connection.execute(f"alter role {guest} connection limit 0")
                await connection.fetchval(
                    "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where usename = $1",
                    guest,
                )
                with pytest.raises(ConnectionLostError, match="too many connections"):
                    await mesh.pub("one", {"x": 1})
                with pytest.raises(ConnectionLostError, match="raise max_connections"):
                    await mesh.get_status("nobody")
                await connection.execute(f"alter role {guest} connection limit -1")
                await eventually(lambda: succeeds(mesh), within=20, what="an answer")
        finally:
            await connection.execute(f"alter database {name} owner to hotmesh")
            await connection.execute(f"drop owned by {guest} cascade; drop role {guest}")


# -- servers that come back ----------------------------------------------------------------------------------


async def test_a_restart_of_postgres_costs_no_job(scratch: Path) -> None:
    server = await asyncio.to_thread(_durable_server, scratch)
    double = Doubler()
    outputs: list[Any] = []
    try:
        async with mesh_on(server.dsn, double, connect_timeout=30) as mesh:
            for how in ("immediate", "fast"):
                double.gate = asyncio.Event()
                before = len(double.runs)
                early = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(20)]
                await eventually(lambda: len(double.runs) == before + 20, what="twenty callbacks")  # noqa: B023
                double.gate.set()
                await asyncio.to_thread(local.stop, scratch, how)
                late = [asyncio.create_task(mesh.pubsub("one", {"x": x}, timeout=30)) for x in range(20, 40)]
                state = asyncio.create_task(mesh.get_status("nobody"))
                await asyncio.to_thread(local.ensure_running, scratch)
                outputs += await asyncio.gather(*early, *late)
                with pytest.raises(HotMeshError, match="not found"):
                    await state
            async with connected(server.dsn) as connection:
                await settled(connection, APP)
    finally:
        await asyncio.to_thread(local.stop, scratch, "immediate")

    assert [output.data["y"] for output in outputs] == [x * 2 for x in range(40)] * 2
    assert set(double.runs.values()) == {1}


async def test_a_failover_to_a_standby_is_followed(scratch: Path) -> None:
    """The first server is gone for good, the second becomes the primary; the URL names both."""
    first, second = scratch / "first", scratch / "second"
    primary = await asyncio.to_thread(_durable_server, first)
    await asyncio.to_thread(local.stop, first, "fast")
    await asyncio.to_thread(_clone, first, second, primary.socket_dir)
    double = Doubler()
    double.gate.set()
    try:
        await asyncio.to_thread(local.ensure_running, first)
        standby = await asyncio.to_thread(local.ensure_running, second)
        both = (
            f"postgresql://hotmesh@/hotmesh?host={primary.socket_dir},{standby.socket_dir}"
            "&port=5432,5432&target_session_attrs=read-write"
        )
        async with mesh_on(both, double, limits=PROBES_OFTEN, connect_timeout=30) as mesh:
            assert await succeeds(mesh)
            async with connected(standby.dsn) as connection:
                await eventually(lambda: _has_jobs(connection, 1), what="the job at the standby")
                await asyncio.to_thread(local.stop, first, "immediate")
                await connection.fetchval("select pg_promote()")
                assert (await mesh.pubsub("one", {"x": 4}, timeout=30)).data == {"y": 8}
                assert await _has_jobs(connection, 2)
                await settled(connection, APP)
    finally:
        for directory in (first, second):
            await asyncio.to_thread(local.stop, directory, "immediate")


def _durable_server(directory: Path) -> local.LocalServer:
    """A server whose commits survive its sudden end, though not that of the machine."""
    server = local.ensure_running(directory, sync=False)

    async def configure() -> None:
        async with connected(server.dsn) as connection:
            await connection.execute("alter system set synchronous_commit = on")
            await connection.execute("select pg_reload_conf()")

    asyncio.run(configure())
    return server


def _clone(first: Path, second: Path, socket_dir: Path) -> None:
    source, target = first / "cluster", second / "cluster"
    owner = source.stat()
    second.mkdir(mode=0o711)
    shutil.copytree(source, target)
    (target / "standby.signal").touch()
    with (target / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = 'host={socket_dir} port=5432 user=hotmesh'\n")
    for path in (target, *target.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)


async def _has_jobs(connection: asyncpg.Connection, count: int) -> bool:
    try:
        query = "select count(*) from hotmesh.job where status = 0"
        return bool(await connection.fetchval(query) == count)
    except asyncpg.UndefinedTableError:
        return False
