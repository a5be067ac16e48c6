"""Processes that a test starts, directs, stops, continues and kills. What they do is in a file, and in the database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from harness import eventually
from ledger import entries


def graph(version: str) -> str:
    """A worker (`one`), or two in turn (`two`), and what the version says of itself as `ran`."""
    return f"""
app:
  id: troupe
  version: '{version}'
  graphs:
    - subscribes: one
      publishes: one.done
      expire: 3600
      activities:
        start: {{type: trigger}}
        call:
          type: worker
          topic: w
          input: {{maps: {{x: '{{start.output.data.x}}', nap: '{{start.output.data.nap}}'}}}}
          job: {{maps: {{y: '{{$self.output.data.y}}', ran: '{version}'}}}}
      transitions:
        start: [{{to: call}}]

    - subscribes: two
      publishes: two.done
      expire: 3600
      activities:
        begin: {{type: trigger}}
        first: {{type: worker, topic: w, input: {{maps: {{x: '{{begin.output.data.x}}'}}}}}}
        second:
          type: worker
          topic: v
          input: {{maps: {{x: '{{first.output.data.y}}'}}}}
          job: {{maps: {{y: '{{$self.output.data.y}}', ran: '{version}'}}}}
      transitions:
        begin: [{{to: first}}]
        first: [{{to: second}}]
"""


class RemoteError(Exception):
    """What a call raised in the other process; `kind` is the name of its class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


class Gone(RemoteError):
    """The process ended before it answered."""


class Remote:
    """A process of the troupe."""

    def __init__(
        self, name: str, pid: int, lines: asyncio.StreamReader, orders: asyncio.StreamWriter, log: Path
    ) -> None:
        self.name = name
        self.alive = True
        self._pid = pid
        self._lines = lines
        self._orders = orders
        self._log = log
        self._numbers = count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with suppress(ConnectionError):
            while line := await self._lines.readline():
                self._answered(**json.loads(line))
        self.alive = False
        for future in self._answers.values():
            if not future.done():
                future.set_exception(Gone("Gone", f"{self.name} ended: {self._log.read_text()[-2_000:]}"))
                future.exception()  # nobody may wait for it any more
        self._orders.close()

    def _answered(self, n: int, result: Any = None, error: str | None = None, message: str = "") -> None:
        future = self._answers.pop(n)
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(RemoteError(error, message))

    def ask(self, do: str, *args: Any, **options: Any) -> asyncio.Future[Any]:
        """Let it do something; the future gets what comes of it, or RemoteError."""
        number = next(self._numbers)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"n": number, "do": do, "args": args, "options": options})
        self._orders.write(line.encode() + b"\n")
        return future

    async def call(self, do: str, *args: Any, **options: Any) -> Any:
        """Let it do something, and wait for what comes of it, at most 20 seconds."""
        async with asyncio.timeout(20):
            return await self.ask(do, *args, **options)

    async def cancel(self, asked: asyncio.Future[Any]) -> None:
        """Let it cancel what it was asked, which is not done yet."""
        [number] = [number for number, future in self._answers.items() if future is asked]
        await self.call("cancel", number)

    async def runs(self) -> str:
        """The version of a job that it starts now, of which the row and the data agree."""
        output = await self.call("pubsub", "one", {"x": 1}, timeout=10)
        assert output["metadata"]["vrs"] == output["data"]["ran"]
        return str(output["data"]["ran"])

    @property
    def stopped(self) -> bool:
        """Whether it stands still by a signal."""
        status = Path(f"/proc/{self._pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    async def stop(self) -> None:
        """SIGSTOP."""
        os.kill(self._pid, signal.SIGSTOP)
        await eventually(lambda: self.stopped)

    def go(self) -> None:
        """SIGCONT."""
        os.kill(self._pid, signal.SIGCONT)

    async def kill(self) -> None:
        """`kill -9`."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        await self._reading


class Forge:
    """The process that makes those of the tests: hotmesh is imported once, and not for each."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("actor.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def make(self, order: dict[str, Any]) -> int:
        """The id of a new process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


class Troupe:
    """All processes of a test, and the file in which they note what happens."""

    def __init__(self, forge: Forge, url: str, directory: Path) -> None:
        self.url = url
        self._forge = forge
        self._socket = directory / "actors"
        self._ledger = directory / "ledger.jsonl"
        self._log = directory / "actors.log"
        self._all: list[Remote] = []
        self._arriving: dict[str, asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}
        self._server: asyncio.Server | None = None
        self._ledger.touch()
        self._log.touch()

    async def open(self) -> None:
        """Be there for the processes that are to come."""
        self._server = await asyncio.start_unix_server(self._arrived, self._socket, limit=2**24)

    async def _arrived(self, lines: asyncio.StreamReader, orders: asyncio.StreamWriter) -> None:
        name = (await lines.readline()).decode().rstrip()
        self._arriving.pop(name).set_result((lines, orders))

    async def enter(
        self, name: str, *, topics: Collection[str] = ("w",), url: str = "", **options: Any
    ) -> Remote:
        """A process, up to where it has an instance; `options` are those of `HotMesh.init`, and `…_limits`."""
        remote = await self.prepare(name, topics=topics, url=url, **options)
        await remote.call("begin")
        return remote

    async def prepare(
        self, name: str, *, topics: Collection[str] = ("w",), url: str = "", **options: Any
    ) -> Remote:
        """A process without an instance; `begin` starts that."""
        arriving = self._arriving[name] = asyncio.get_running_loop().create_future()
        pid = self._forge.make(
            {
                "name": name,
                "url": url or self.url,
                "socket": str(self._socket),
                "ledger": str(self._ledger),
                "log": str(self._log),
                "topics": list(topics),
                "options": options,
            }
        )
        async with asyncio.timeout(20):
            lines, orders = await arriving
        remote = Remote(name, pid, lines, orders, self._log)
        self._all.append(remote)
        return remote

    async def enter_all(self, *names: str, **options: Any) -> list[Remote]:
        """Several processes with the same options."""
        return list(await asyncio.gather(*(self.enter(name, **options) for name in names)))

    async def end(self) -> None:
        for remote in self._all:
            await remote.kill()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def words(self) -> str:
        """What the processes have written to their stderr: warnings and errors that nobody caught."""
        return self._log.read_text()

    def notes(self, what: str, **facts: Any) -> list[dict[str, Any]]:
        """What the processes have noted of a kind, with these facts, in order."""
        return [
            note for note in entries(self._ledger) if note["what"] == what and facts.items() <= note.items()
        ]
