"""Whatever a subscriber, a listener to the mesh or an event sink does is its own affair: others are told, and nothing ends."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from harness import eventually
from hotmesh import HotMesh
from odd_errors import ODD_ERRORS

pytestmark = pytest.mark.anyio

APP = "listeners"

GRAPH = {
    "app": {
        "id": APP,
        "version": "1",
        "graphs": [
            {
                "subscribes": "go",
                "publishes": "gone",
                "expire": 60,
                "activities": {
                    "t": {"type": "trigger", "job": {"maps": {"lines": "{$self.input.data.lines}"}}}
                },
            }
        ],
    }
}

KINDS = ["subscriber", "quorum listener", "event sink"]


@asynccontextmanager
async def told(
    url: str, kind: str, *callbacks: Callable[..., Any], **settings: float
) -> AsyncIterator[HotMesh]:
    """An instance with these callbacks, of which an event sink is but one."""
    sink = callbacks[0] if kind == "event sink" else None
    async with HotMesh.init(APP, connection=url, events=sink, settings=settings) as mesh:
        await mesh.deploy(GRAPH)
        await mesh.activate("1")
        for callback in callbacks:
            if kind == "subscriber":
                await mesh.sub("gone", callback)
            if kind == "quorum listener":
                await mesh.sub_quorum(callback)
        yield mesh


async def tell(mesh: HotMesh, kind: str) -> None:
    """Let something happen of which callbacks of this kind are told."""
    if kind == "subscriber":
        await mesh.pubsub("go", {"lines": [1, 2]}, timeout=5)
    elif kind == "quorum listener":
        await mesh.pub_quorum({"type": "user", "topic": "x", "message": {"lines": [1, 2]}})
    else:
        await mesh.deploy(GRAPH | {"app": GRAPH["app"] | {"version": "2"}})


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancels_itself(*_: Any) -> None:
    _current().cancel()
    await asyncio.sleep(0)


async def leaves_itself_cancelled(*_: Any) -> None:
    _current().cancel()


async def awaits_what_was_cancelled(*_: Any) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


def raising(error: BaseException) -> Callable[..., Any]:
    async def raises(*_: Any) -> None:
        raise error

    return raises


def raising_odd(make: Callable[[], BaseException]) -> Callable[..., Any]:
    async def raises(*_: Any) -> None:
        raise make()

    return raises


def raising_at_once(error: BaseException) -> Callable[..., Any]:
    def raises(*_: Any) -> None:
        raise error

    return raises


ERRORS = (asyncio.CancelledError(), SystemExit(2), GeneratorExit(), ValueError("no"), StopIteration())

HOSTILE: dict[str, Callable[..., Any]] = {
    "cancels itself": cancels_itself,
    "leaves itself cancelled": leaves_itself_cancelled,
    "awaits what was cancelled": awaits_what_was_cancelled,
    **{f"raises {type(error).__name__}": raising(error) for error in ERRORS},
    **{f"raises {type(error).__name__}, plain": raising_at_once(error) for error in ERRORS},
    **{f"raises an error with {name}": raising_odd(make) for name, make in ODD_ERRORS.items()},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_instance_outlives_whatever_they_do(database_url: str, kind: str) -> None:
    for name, hostile in HOSTILE.items():
        calls: list[str] = []

        def note(*_: Any, calls: list[str] = calls) -> None:
            calls.append("told")

        async with told(database_url, kind, hostile, note) as mesh:
            for _ in range(2):
                await tell(mesh, kind)
                await asyncio.sleep(0.02)
            assert not mesh.stopped, name
            if kind != "event sink":
                await eventually(partial(_are, calls, 2), what=f"what is told beside {name}")


def _are(calls: list[str], number: int) -> bool:
    return len(calls) >= number


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "plain"])
@pytest.mark.parametrize("kind", KINDS)
async def test_each_call_has_a_context_and_data_of_its_own(database_url: str, kind: str, plain: bool) -> None:
    seen: list[tuple[str, Any]] = []

    def look(*arguments: Any) -> None:
        data = arguments[-1].data if kind != "quorum listener" else arguments[-1]
        if kind == "quorum listener":
            if data["type"] != "user":
                return
            data = data["message"]
        if kind == "event sink":
            data["lines"] = data.get("lines", [1, 2])
        seen.append((tenant.get(), list(data["lines"])))
        tenant.set("of the last call")
        data["lines"].clear()

    async def look_later(*arguments: Any) -> None:
        look(*arguments)

    callback = look if plain else look_later
    again = (lambda *arguments: look(*arguments)) if kind != "event sink" else look  # noqa: PLW0108
    async with told(database_url, kind, callback, again) as mesh:
        for _ in range(2):
            await tell(mesh, kind)
        await eventually(lambda: len(seen) >= 4 or (kind == "event sink" and len(seen) >= 2))
    assert set(map(str, seen)) == {str(("nobody", [1, 2]))}


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_swallows_its_cancellation_is_left(
    database_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    release, inside = asyncio.Event(), asyncio.Event()

    async def stubborn(*_: Any) -> None:
        inside.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with told(database_url, kind, stubborn, cleaning_up=0.1) as mesh:
        await tell(mesh, kind)
        await asyncio.wait_for(inside.wait(), 5)
        began = time.monotonic()
        await mesh.stop(grace=0.1)
        assert time.monotonic() - began < 5
    (record,) = [record for record in caplog.records if "does not end" in record.message]
    assert kind.split(maxsplit=1)[0] in record.message
    assert "await release.wait()" in record.message
    assert record.levelno == logging.ERROR
    release.set()


@pytest.mark.parametrize("kind", ["subscriber", "event sink"])
async def test_a_plain_function_that_never_returns_keeps_no_instance(
    database_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    release, inside = threading.Event(), threading.Event()

    def blocks(*_: Any) -> None:
        inside.set()
        release.wait(30)

    try:
        async with told(database_url, kind, blocks) as mesh:
            await tell(mesh, kind)
            await eventually(inside.is_set)
            began = time.monotonic()
            await mesh.stop(grace=0.1)
            assert time.monotonic() - began < 5
        (record,) = [record for record in caplog.records if "does not end" in record.message]
        assert "release.wait(30)" in record.message
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == kind)
    finally:
        release.set()


async def test_a_subscriber_may_finish_what_it_does_when_it_is_cancelled(database_url: str) -> None:
    done: list[str] = []
    inside = asyncio.Event()

    async def slow(*_: Any) -> None:
        inside.set()
        try:
            await asyncio.sleep(30)
        finally:
            for step in ("a", "b", "c"):
                await asyncio.sleep(0.01)
                done.append(step)

    async with told(database_url, "subscriber", slow) as mesh:
        await tell(mesh, "subscriber")
        await asyncio.wait_for(inside.wait(), 5)
    assert done == ["a", "b", "c"]
