"""An instance belongs to one event loop: calls from elsewhere are refused at once, and the two ways there work."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import asyncpg
import pytest

from harness import one_worker
from hotmesh import DBA, ConfigError, HotMesh, HotMeshError, StreamData, Virtual, Worker
from hotmesh.postgres.connect.belonging import Home
from hotmesh.runtime.lifetime import Lifetime
from hotmesh.runtime.registry import PROCESS
from hotmesh.runtime.telemetry.logs import LogContext

pytestmark = pytest.mark.anyio

SAID = (
    "this instance belongs to another event loop (thread MainThread); make one there, or use "
    "asyncio.run_coroutine_threadsafe(…, loop); a plain callback uses anyio.from_thread.run(…)"
)

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "activate": ("1",),
    "add": ({"metadata": {}},),
    "add_worker": (Worker("other", print),),
    "deploy": ({"app": {}},),
    "discard": (1,),
    "forget": ("j", "00000000-0000-7000-8000-000000000000"),
    "get_query_state": ("j", ["a"]),
    "get_state": ("t", "j"),
    "interrupt": ("t", "j"),
    "plan": ({"app": {}},),
    "psub": ("t*", print),
    "pub_quorum": ({"type": "user", "topic": "t", "message": {}},),
    "requeue": (1,),
    "resume": ("j",),
    "signal": ("t", {}),
    "signal_all": ("t", {}, {}),
    "sub": ("t", print),
    "sub_quorum": (print,),
    "throttle": (5,),
    "unsub_quorum": (print,),
    **dict.fromkeys(("get_stats", "get_ids", "resolve_query"), ("t", {})),
    **dict.fromkeys(("pub", "pubsub", "unsub", "punsub"), ("t",)),
    **dict.fromkeys(("cancel", "explain", "export", "get_raw", "get_status", "scrub"), ("j",)),
}
"""What those methods are called with that need something."""

ANYWHERE = {"init", "stopped", "outposts", "metrics_address"}


def in_another_loop(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in a loop and a thread of its own; its result, or the error that it raises."""
    return asyncio.run(call())


def methods() -> list[str]:
    static = {name for name, value in vars(HotMesh).items() if isinstance(value, staticmethod)}
    return [
        name
        for name, value in vars(HotMesh).items()
        if not name.startswith("_") and name not in ANYWHERE | static and inspect.isfunction(value)
    ]


async def test_every_method_refuses_a_call_from_another_loop(database_url: str) -> None:
    async with HotMesh.init("loops", connection=database_url) as mesh:
        for name in methods():

            async def call(name: str = name) -> None:
                found = getattr(mesh, name)(*ARGUMENTS.get(name, ()))
                if inspect.isawaitable(found):
                    await found

            with pytest.raises(ConfigError) as raised:
                await anyio.to_thread.run_sync(in_another_loop, call)

            assert str(raised.value) == SAID, name
        assert not mesh.stopped
        assert await mesh.roll_call(0.05)


async def test_a_synchronous_method_refuses_a_thread_without_a_loop(database_url: str) -> None:
    async with HotMesh.init("loops", connection=database_url) as mesh:
        with pytest.raises(ConfigError, match="belongs to another event loop"):
            await anyio.to_thread.run_sync(mesh.add_worker, Worker("w", print))
        assert await anyio.to_thread.run_sync(lambda: mesh.stopped) is False


async def test_a_call_can_be_handed_over_from_any_thread(database_url: str) -> None:
    async def work(message: StreamData) -> dict[str, Any]:
        return {"y": message.data["x"] * 2}

    loop = asyncio.get_running_loop()
    async with HotMesh.init("over", connection=database_url, workers=[Worker("w", work)]) as mesh:
        await mesh.deploy(one_worker("over"))
        await mesh.activate("1")

        def elsewhere() -> Any:
            asked = mesh.pubsub("one", {"x": 4}, timeout=10)
            return asyncio.run_coroutine_threadsafe(asked, loop).result(timeout=10).data

        found: list[Any] = []
        ended = anyio.Event()

        def run() -> None:
            found.append(elsewhere())
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=run).start()
        with anyio.fail_after(10):
            await ended.wait()

        assert found == [{"y": 8}]


async def test_a_plain_callback_calls_by_anyio(database_url: str) -> None:
    started: list[str] = []

    def plain(message: StreamData) -> dict[str, Any]:
        if message.data.get("x") == "child":
            return {}
        started.append(anyio.from_thread.run(mesh.pub, "one", {"x": "child"}))
        return {}

    async with HotMesh.init("plain", connection=database_url, workers=[Worker("w", plain)]) as mesh:
        await mesh.deploy(one_worker("plain"))
        await mesh.activate("1")
        await mesh.pubsub("one", {}, timeout=10)

        assert await mesh.get_status(started[0]) in (0, 1)


async def test_a_plain_callback_that_makes_a_loop_of_its_own_is_told(database_url: str) -> None:
    told: list[str] = []

    def plain(message: StreamData) -> dict[str, Any]:
        try:
            asyncio.run(mesh.pub("one", {}))
        except ConfigError as error:
            told.append(str(error))
        return {}

    async with HotMesh.init("own", connection=database_url, workers=[Worker("w", plain)]) as mesh:
        await mesh.deploy(one_worker("own"))
        await mesh.activate("1")
        await mesh.pubsub("one", {}, timeout=10)

    assert told == [SAID]


async def test_a_pool_of_another_loop_is_refused_wherever_it_is_given(database_url: str) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=20)
    try:
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: _init(pool),
            lambda: DBA.deploy(pool),
            lambda: DBA.prune("loops", pool),
            lambda: Virtual.exec("f", connection=pool, timeout=1),
        ]
        for call in calls:
            with pytest.raises(HotMeshError, match="the given pool belongs to another event loop; make one"):
                await anyio.to_thread.run_sync(in_another_loop, call)
    finally:
        await pool.close()


async def _init(pool: Any) -> None:
    await HotMesh.init("loops", connection=pool)


async def test_a_connection_of_another_loop_is_refused_by_pub(database_url: str) -> None:
    connection: list[Any] = []

    async def connect() -> None:
        connection.append(await asyncpg.connect(database_url))

    async with HotMesh.init("loops", connection=database_url) as mesh:
        await mesh.deploy(one_worker("loops"))
        await mesh.activate("1")
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.call(connect)
            with pytest.raises(ConfigError, match="the given connection belongs to another event loop"):
                await mesh.pub("one", {}, connection=connection[0])
            portal.call(connection[0].close)


async def test_all_instances_are_stopped_each_in_its_own_loop(database_url: str) -> None:
    async def make() -> HotMesh:
        return await HotMesh.init("away", connection=database_url)

    with anyio.from_thread.start_blocking_portal() as portal:
        away = await anyio.to_thread.run_sync(portal.call, make)
        here = await HotMesh.init("here", connection=database_url)
        with pytest.raises(ConfigError, match="belongs to another event loop"):
            await away.stop()
        assert not away.stopped

        await HotMesh.stop_all()

        assert [instance.stopped for instance in (away, here)] == [True, True]
        await away.stop()


async def test_an_init_that_was_not_awaited_says_so(database_url: str) -> None:
    starting = HotMesh.init("loops", connection=database_url)

    with pytest.raises(AttributeError) as raised:
        starting.pub("one")

    assert str(raised.value) == (
        "await HotMesh.init(…), or use it as `async with HotMesh.init(…) as mesh`, before calling pub"
    )
    assert not hasattr(starting, "anything")


async def test_an_instance_whose_loop_has_ended_is_forgotten() -> None:
    class Nothing:
        async def begin(self, tasks: Any) -> None: ...
        async def drain(self, grace: float) -> None: ...
        async def end(self) -> None: ...
        async def close(self) -> None: ...

    lifetime = Lifetime(Nothing(), LogContext("app", "me"), 1)

    async def start() -> None:
        lifetime.home = Home()

    await anyio.to_thread.run_sync(in_another_loop, start)
    PROCESS.live.add(lifetime)
    await lifetime.stop_from_anywhere()

    assert lifetime not in PROCESS.live
    assert lifetime.home is not None
    assert "(thread AnyIO worker thread), which has ended; make one there" in str(lifetime.home.refusal())
