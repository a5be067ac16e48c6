"""How a process ends: by Ctrl-C, by SIGTERM, with callbacks that do not; and what is left of its work."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import connected, one_worker
from hotmesh import HotMesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

APP = "ending"

PROGRAM = """
import asyncio, signal, sys, time
from hotmesh import HotMesh, Worker

kind, way, url = sys.argv[1:]

async def waits(message):
    print("running", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.2)
        print("cleaned up", flush=True)

async def cleans_up(message):
    print("running", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        for _ in range(5):
            try:
                await asyncio.sleep(0.05)
            except BaseException:
                print("disturbed", flush=True)
        print("cleaned up", flush=True)

async def swallows(message):
    print("running", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            print("swallowed", flush=True)

def sleeps(message):
    print("running", flush=True)
    time.sleep(60)

async def main():
    worker = Worker("w", {"waits": waits, "cleans up": cleans_up, "swallows": swallows, "sleeps": sleeps}[kind])
    options = {"connection": url, "workers": [worker], "settings": {"grace": 0.5}, "lease": 3}
    if way == "left alone":
        mesh = await HotMesh.init("ending", **options)
        await asyncio.sleep(60)
    async with HotMesh.init("ending", **options) as mesh:
        if way == "handled":
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(mesh.stop()))
        await mesh.closed()

asyncio.run(main())
"""


@asynccontextmanager
async def program(
    kind: str, way: str, url: str, directory: Path, *, callbacks: int = 1
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in the middle of callbacks of this kind."""
    path = directory / "program.py"
    path.write_text(PROGRAM)
    async with HotMesh.init(APP, connection=url) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(path),
            kind,
            way,
            url,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            for number in range(callbacks):
                await mesh.pub("one", {"x": number})
                assert await asyncio.wait_for(process.stdout.readline(), 30) == b"running\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def ended(process: asyncio.subprocess.Process, number: int, within: float) -> tuple[int, str, str]:
    """Its exit code and what it printed, after a signal."""
    began = time.monotonic()
    process.send_signal(number)
    out, error = await asyncio.wait_for(process.communicate(), 30)
    assert time.monotonic() - began < within
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def given_back(url: str) -> bool:
    """Whether others may have the work at once, as if it had never been begun."""
    async with connected(url) as connection:
        row = await connection.fetchrow("select * from hotmesh.worker_stream")
    return row is not None and row["reserved_by"] is None and row["attempt"] == 0


INTERRUPTED = -signal.SIGINT
"""The exit code of a Python program that ends by KeyboardInterrupt."""


@pytest.mark.parametrize(
    ("way", "number", "code"),
    [("plain", signal.SIGINT, INTERRUPTED), ("handled", signal.SIGTERM, 0)],
    ids=["Ctrl-C", "SIGTERM"],
)
@pytest.mark.parametrize("kind", ["waits", "swallows", "sleeps"])
async def test_a_process_that_is_told_to_end_does_and_gives_back_its_work(
    database_url: str, tmp_path: Path, kind: str, way: str, number: int, code: int
) -> None:
    async with program(kind, way, database_url, tmp_path) as process:
        found, out, error = await ended(process, number, within=14)
        assert found == code, error
        assert await given_back(database_url)
    assert ("cleaned up" in out) == (kind == "waits")
    assert ("does not end" in error) == (kind != "waits")


async def test_a_program_that_stops_nothing_ends_by_ctrl_c_and_fails_no_job(
    database_url: str, tmp_path: Path
) -> None:
    async with program("waits", "left alone", database_url, tmp_path) as process:
        code, out, error = await ended(process, signal.SIGINT, within=14)
        assert code == INTERRUPTED, error
        assert "cleaned up" in out
        assert "instance cancelled, nobody has stopped it" in error
        async with connected(database_url) as connection:
            attempt = await connection.fetchval("select attempt from hotmesh.worker_stream")
        assert attempt == 0, "it is nobody's failure"


@pytest.mark.parametrize("way", ["plain", "left alone"])
async def test_ctrl_c_ends_a_program_although_several_callbacks_swallow_it(
    database_url: str, tmp_path: Path, way: str
) -> None:
    async with program("swallows", way, database_url, tmp_path, callbacks=3) as process:
        code, out, error = await ended(process, signal.SIGINT, within=10)
        assert code == INTERRUPTED, error
        assert out.count("swallowed") == 3, "each is cancelled once"
        assert error.count("does not end") == 3
        assert way != "plain" or await given_back(database_url)


@pytest.mark.parametrize("kind", ["waits", "swallows", "sleeps"])
async def test_a_second_ctrl_c_ends_a_program_at_once(database_url: str, tmp_path: Path, kind: str) -> None:
    """Also while its callbacks clean up: before that, it waits for them for half a second. Threads are left at once."""
    for pause in (0.3,) if kind == "sleeps" else (0.3, 0.6):
        async with program(kind, "plain", database_url, tmp_path, callbacks=3) as process:
            process.send_signal(signal.SIGINT)
            await asyncio.sleep(pause)
            code, _, error = await ended(process, signal.SIGINT, within=2)
            assert code == INTERRUPTED, error


async def test_the_end_of_a_program_by_force_cancels_a_callback_once(
    database_url: str, tmp_path: Path
) -> None:
    async with program("cleans up", "left alone", database_url, tmp_path, callbacks=3) as process:
        code, out, error = await ended(process, signal.SIGINT, within=10)
        assert code == INTERRUPTED, error
        assert (out.count("cleaned up"), out.count("disturbed")) == (3, 0)


async def test_sigterm_without_a_handler_is_the_end_at_once(database_url: str, tmp_path: Path) -> None:
    async with program("waits", "plain", database_url, tmp_path) as process:
        code, out, _ = await ended(process, signal.SIGTERM, within=5)
    assert (code, out) == (-signal.SIGTERM, "")
