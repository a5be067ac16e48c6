"""The processes that take part: how each is started, asked and watched."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from cluster import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
DBOS_VENV = ROOT / ".bench" / "dbos-venv"
DBOS_LOCK = ROOT / "locks" / "contender.txt"
START_TIMEOUT = 60


class SideError(RuntimeError):
    """A side has ended or does not answer."""


@dataclass(frozen=True, slots=True)
class Process:
    """How to start one process of a contender; `drives` says whether it runs flows or only serves them.

    `checkout`: another checkout of this project whose code it runs, in the environment that is in it.
    """

    script: str
    arguments: tuple[str, ...] = ()
    drives: bool = True
    checkout: Path | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """One engine in one arrangement of processes on one database."""

    label: str
    database: str
    processes: tuple[Process, ...]

    @property
    def product(self) -> str:
        """The label, but the same for all ways to drive DBOS."""
        return "DBOS" if self.label.startswith("DBOS") else self.label


class RunningProcess:
    """A started process of a contender."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, *, drives: bool) -> None:
        self._process = process
        self._log = log
        self._watched = psutil.Process(process.pid)
        self.drives = drives

    async def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await self.receive(timeout)

    async def receive(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        except TimeoutError:
            raise SideError(f"no answer within {timeout:.0f} s\n{self._last_words()}") from None
        if not line:
            raise SideError(f"the process has ended\n{self._last_words()}")
        return json.loads(line)

    async def stop(self) -> None:
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), START_TIMEOUT)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._watched)

    def memory(self) -> int:
        """Bytes of resident memory."""
        return self._watched.memory_info().rss

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


@asynccontextmanager
async def started(contender: Contender, dsn: str) -> AsyncIterator[list[RunningProcess]]:
    """The contender's processes, ready for requests."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hotmesh-bench-")))
        running = [
            await stack.enter_async_context(_started(process, dsn, directory / f"{number}.log"))
            for number, process in enumerate(contender.processes)
        ]
        yield running


@asynccontextmanager
async def _started(process: Process, dsn: str, log: Path) -> AsyncIterator[RunningProcess]:
    with log.open("wb") as errors:
        started = await asyncio.create_subprocess_exec(
            python_of(process),
            str((process.checkout or ROOT) / "bench" / process.script),
            dsn,
            *process.arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    running = RunningProcess(started, log, drives=process.drives)
    try:
        await running.receive(START_TIMEOUT)
        yield running
    finally:
        await running.stop()


def python_of(process: Process) -> str:
    if process.checkout is not None:
        return str(process.checkout / ".venv" / "bin" / "python")
    return str(DBOS_VENV / "bin" / "python") if process.script == "side_dbos.py" else sys.executable


def install_dbos() -> None:
    """Give DBOS an environment of its own, once for each version."""
    wanted = DBOS_LOCK.read_text()
    installed = DBOS_VENV / "requirements.txt"
    if installed.exists() and installed.read_text() == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(DBOS_VENV)], check=True)
    subprocess.run(
        [DBOS_VENV / "bin" / "python", "-m", "pip", "install", "-qq", "--require-hashes", "-r", DBOS_LOCK],
        check=True,
    )
    installed.write_text(wanted)


def versions() -> dict[str, str]:
    """Python and the libraries that matter, on both sides."""
    ours = _installed(sys.executable, ["hotmesh", "asyncpg", "anyio", "msgspec"])
    theirs = _installed(str(DBOS_VENV / "bin" / "python"), ["dbos", "SQLAlchemy", "psycopg"])
    return {"Python": sys.version.split()[0]} | ours | theirs


def _installed(python: str, names: list[str]) -> dict[str, str]:
    if not Path(python).exists():
        return {}
    script = (
        "import json, sys; from importlib import metadata\n"
        "found = {d.metadata['Name']: d.version for d in metadata.distributions()}\n"
        "print(json.dumps({n: found[n] for n in sys.argv[1:] if n in found}))"
    )
    answer = subprocess.run([python, "-c", script, *names], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)
