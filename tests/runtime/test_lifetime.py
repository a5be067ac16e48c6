"""Lifetimes: services begin, drain and end in this order, and what ends them otherwise is told to whoever depends on them."""

from __future__ import annotations

import asyncio
import logging

import anyio
import pytest
from anyio.abc import TaskGroup

from hotmesh import ConfigError, ConnectionLostError, InstanceFailedError
from hotmesh.runtime.lifetime import Lifetime
from hotmesh.runtime.registry import Registry
from hotmesh.runtime.telemetry.logs import LogContext

pytestmark = pytest.mark.anyio


class Recorded:
    """Services that note what is done with them, and fail where they are told to."""

    def __init__(self, *, fails: Exception | None = None, hangs: bool = False) -> None:
        self.seen: list[str] = []
        self.fails = fails
        self.hangs = hangs
        self.break_down = anyio.Event()

    async def begin(self, tasks: TaskGroup) -> None:
        self.seen.append("begin")
        if self.fails is not None:
            raise self.fails
        if self.hangs:
            await anyio.sleep_forever()
        tasks.start_soon(self._work)

    async def _work(self) -> None:
        await self.break_down.wait()
        raise RuntimeError("broken")

    async def drain(self, grace: float) -> None:
        self.seen.append(f"drain {grace:g}")

    async def end(self) -> None:
        self.seen.append("end")

    async def close(self) -> None:
        self.seen.append("close")


def lifetime_of(services: Recorded) -> Lifetime:
    return Lifetime(services, LogContext("app", "me"), 10)


async def test_what_began_is_drained_and_ended_once() -> None:
    services = Recorded()
    lifetime = lifetime_of(services)

    await lifetime.start()
    lifetime.check("this")
    stopped = [lifetime.stopped]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifetime.stop, 3)
        tasks.start_soon(lifetime.watch)

    assert services.seen == ["begin", "drain 3", "end"]
    assert ([*stopped, lifetime.stopped], lifetime.failure) == ([False, True], None)
    await lifetime.stop("nonsense")  # nothing is left to stop
    with pytest.raises(
        ConnectionLostError, match="this cannot be served: this instance of app app has stopped"
    ):
        lifetime.check("this")


async def test_a_start_that_fails_raises_what_was_wrong_and_ends() -> None:
    services = Recorded(fails=ConfigError("wrong"))
    lifetime = lifetime_of(services)

    with pytest.raises(ConfigError, match="wrong"):
        await lifetime.start()
    await lifetime.abandon()

    assert services.seen == ["begin", "end"]
    assert lifetime.stopped


async def test_a_start_that_is_cancelled_ends_what_began() -> None:
    services = Recorded(hangs=True)
    lifetime = lifetime_of(services)

    with anyio.move_on_after(0.01):
        await lifetime.start()
    await lifetime.abandon()

    assert services.seen == ["begin", "end"]


async def test_what_never_began_is_closed() -> None:
    services = Recorded()

    await lifetime_of(services).abandon()

    assert services.seen == ["close"]


async def test_a_service_that_fails_ends_the_others_and_whoever_watches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    services = Recorded()
    lifetime = lifetime_of(services)
    await lifetime.start()

    services.break_down.set()
    with pytest.raises(ConnectionLostError, match="work of an outpost") as raised:
        await lifetime.watch()

    assert isinstance(raised.value.__cause__, RuntimeError)
    assert services.seen == ["begin", "end"]
    assert [(r.__dict__["event"], r.levelno) for r in caplog.records] == [
        ("instance failed", logging.CRITICAL)
    ]
    assert lifetime.runner is not None
    assert isinstance(lifetime.runner.exception(), BaseExceptionGroup)


async def test_one_that_is_cancelled_from_outside_says_so(caplog: pytest.LogCaptureFixture) -> None:
    lifetime = lifetime_of(Recorded())
    await lifetime.start()
    assert lifetime.runner is not None

    lifetime.runner.cancel()
    await asyncio.wait([lifetime.runner])

    assert [r.__dict__["event"] for r in caplog.records] == ["instance cancelled, nobody has stopped it"]
    assert isinstance(lifetime.failure, asyncio.CancelledError)


async def test_whoever_waits_for_the_end_learns_what_brought_it_about() -> None:
    services = Recorded()
    stopped, failed = lifetime_of(Recorded()), lifetime_of(services)
    await stopped.start()
    await failed.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stopped.closed)
        await anyio.wait_all_tasks_blocked()
        await stopped.stop()

    services.break_down.set()
    with pytest.raises(
        InstanceFailedError, match="instance me of app app has ended by RuntimeError: broken"
    ) as raised:
        await failed.closed()

    assert isinstance(raised.value.__cause__, RuntimeError)
    with pytest.raises(InstanceFailedError):
        await failed.closed()


def test_a_guid_belongs_to_one_member_at_a_time() -> None:
    registry = Registry()
    at = ("database", "hotmesh", "app", "me")

    registry.take_guid(*at)
    registry.take_guid("another", *at[1:])
    with pytest.raises(ConfigError, match=r"config\.guid \[me\] is in use by another instance of app app"):
        registry.take_guid(*at)
    registry.free_guid(*at)
    registry.free_guid(*at)
    registry.take_guid(*at)
