"""The threads of plain functions: bounded, daemons, and at home in the event loop that they were started from."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio.from_thread
import pytest

from harness import eventually
from hotmesh.runtime import anyio_threads
from hotmesh.runtime.threads import Abandoned, Threads

pytestmark = pytest.mark.anyio


async def double(number: int) -> int:
    return number * 2


async def test_a_function_runs_in_a_daemon_and_may_call_the_event_loop() -> None:
    threads = Threads(2, "some")

    def work() -> tuple[int, bool, str]:
        anyio.from_thread.check_cancelled()
        thread = threading.current_thread()
        return anyio.from_thread.run(double, 21), thread.daemon, thread.name

    assert await threads.run(work) == (42, True, "some")
    threads.close()


async def test_without_the_names_of_anyio_functions_run_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyio_threads, "core", None)
    threads = Threads(1, "some")

    assert await threads.run(lambda: 42) == 42
    with pytest.raises(RuntimeError):
        await threads.run(lambda: anyio.from_thread.run(double, 21))
    loop = asyncio.get_running_loop()
    assert await threads.run(lambda: asyncio.run_coroutine_threadsafe(double(21), loop).result()) == 42
    threads.close()


async def test_who_finds_no_room_for_a_further_thread_waits_for_one_of_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = Threads(3, "some")
    release = threading.Event()
    first = asyncio.ensure_future(threads.run(release.wait, 10))
    await asyncio.sleep(0)

    def no_room(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_room)
        others = [asyncio.ensure_future(threads.run(lambda number=number: number)) for number in range(3)]
        await asyncio.sleep(0.05)
        assert not any(other.done() for other in others)
        release.set()
        assert await asyncio.wait_for(asyncio.gather(first, *others), 5) == [True, 0, 1, 2]
    threads.close()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_room)
        alone = Threads(3, "none")
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await alone.run(lambda: 1)


async def test_a_function_that_was_left_keeps_its_place_until_it_returns() -> None:
    threads = Threads(1, "some")
    release = threading.Event()
    left = asyncio.ensure_future(threads.run(release.wait, 10))
    await asyncio.sleep(0.01)
    left.cancel()
    with pytest.raises(Abandoned):
        await left
    following = asyncio.ensure_future(threads.run(lambda: "next"))
    await asyncio.sleep(0.05)
    assert not following.done()
    release.set()
    assert await asyncio.wait_for(following, 5) == "next"
    threads.close()
    await eventually(lambda: not any(thread.name == "some" for thread in threading.enumerate()))
