"""Processes that host the durable functions of the demo, and are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import deque
from contextlib import suppress
from typing import IO, Any, Final, Self

from hotmesh.errors import HotMeshError

MODULE: Final = "hotmesh.demo.host"
FIRST: Final = 60.0
"""Seconds within which a process has to be ready."""


class HostFailedError(HotMeshError):
    """A process of the demo did not begin to serve; the message has the end of what it said."""


class Hosts:
    """So many processes at any time: one that is killed is followed by another. Use it as an async context manager."""

    def __init__(self, number: int, namespace: str, connection: str | None, pause: float) -> None:
        self.killed = 0
        self._number = number
        self._arguments = ("-m", MODULE, namespace, str(pause))
        own = {} if connection is None else {"HOTMESH_DATABASE_URL": connection}
        self._environment = {**os.environ, **own}
        self._running: deque[Process] = deque()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the processes

    async def __aenter__(self) -> Self:
        try:
            self._running.extend(await asyncio.gather(*(self._start() for _ in range(self._number))))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._running:
            await _end(process)
        self._said.close()

    async def kill(self) -> None:
        """Kill the oldest one with SIGKILL, whatever it does, and start another."""
        process = self._running.popleft()
        await _end(process)
        self.killed += process.returncode == -signal.SIGKILL
        self._running.append(await self._start())

    async def _start(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=self._said,
            env=self._environment,
        )
        output: Any = process.stdout
        try:
            async with asyncio.timeout(FIRST):
                ready = await output.readline()
        except BaseException:
            await _end(process)
            raise
        if ready != b"ready\n":
            await _end(process)
            self._said.seek(0)
            raise HostFailedError(f"a process did not begin to serve: {self._said.read().decode()[-2_000:]}")
        return process


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
