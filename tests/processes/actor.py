"""The processes of a troupe. Each has one instance, and does what it is told through a socket.

`python actor.py` imports what they need, once, and makes a process by `fork` for each order that its stdin says; it
answers with the id of the process.

Each line of the socket is `{"n": …, "do": …, "args": […], "options": {…}}`: a method of `Actor`, else one of `HotMesh`.
Each is answered by a line when it is done: `{"n": …, "result": …}`, or `error` and `message`. What happens meanwhile is
one appended line each in a file that all processes share.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

from harness import init_within
from hotmesh import HotMesh, JobOutput, StreamData, Worker
from hotmesh.postgres import commits
from hotmesh.runtime.limits import MemberLimits
from hotmesh.runtime.members.activation import ActivationLimits
from hotmesh.runtime.members.listener import ListenerLimits
from interception import database_of, intercept
from ledger import Ledger

APP = "troupe"


class Actor:
    """What a process can be told beside what `HotMesh` can do."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._name: str = order["name"]
        self._ledger = Ledger(order["ledger"])
        self._flowing = False
        self._flow: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._ready.set()
        self._doing: dict[int, asyncio.Task[None]] = {}
        self._mesh: HotMesh | None = None

    @property
    def mesh(self) -> HotMesh:
        assert self._mesh is not None
        return self._mesh

    async def begin(self) -> str:
        """Start the instance."""
        options = self._order["options"]
        limits = MemberLimits(
            listener=ListenerLimits(**options.pop("listener_limits", {})),
            activations=ActivationLimits(**options.pop("activation_limits", {})),
        )
        self._mesh = await init_within(
            limits,
            APP,
            connection=self._order["url"],
            workers=[Worker(topic, self._work) for topic in self._order["topics"]],
            **options,
        )
        honest = self._mesh._member.plans.prepare

        async def prepare(version: str) -> str:
            self._note("asked", version=version)
            await self._ready.wait()
            checksum = await honest(version)
            self._note("agreed", version=version)
            return checksum

        self._mesh._member.plans.prepare = prepare  # type: ignore[method-assign]
        return self._mesh.guid_

    def _note(self, what: str, **facts: Any) -> None:
        self._ledger.append(what=what, name=self._name, **facts)

    async def _work(self, message: StreamData) -> dict[str, Any]:
        self._note("run", job=message.metadata.jid, topic=message.metadata.topic)
        await asyncio.sleep(message.data.get("nap", 0))
        return {"y": message.data["x"]}

    async def cancel(self, number: int) -> None:
        """Cancel what it was told under this number."""
        self._doing[number].cancel()

    # -- jobs --------------------------------------------------------------------------------------------

    async def flow(self, topic: str = "one") -> None:
        """Create jobs one after the other, `<name>-<number>`, until told to stop."""

        async def create() -> None:
            number = 0
            while self._flowing:
                job_id, began = f"{self._name}-{number}", time.time()
                await self.mesh.pub(topic, {"x": number}, extended={"id": job_id})
                self._note("created", job=job_id, began=began)
                number += 1
                await asyncio.sleep(0.005)

        self._flowing = True
        self._flow = asyncio.create_task(create())

    async def start(self, topic: str, count: int, prefix: str) -> None:
        """Create jobs `<prefix>-<number>` at once."""
        await asyncio.gather(
            *(
                self.mesh.pub(topic, {"x": number}, extended={"id": f"{prefix}-{number}"})
                for number in range(count)
            )
        )

    async def rest(self) -> None:
        """End the flow."""
        self._flowing = False
        assert self._flow is not None
        await self._flow

    async def guid_of(self) -> str:
        """The guid of its instance."""
        return self.mesh.guid_

    async def callers(self) -> int:
        """How many wait for an answer here."""
        return self.mesh._member.callers.waiting

    # -- listening ---------------------------------------------------------------------------------------

    async def listen(self, method: str, topic: str) -> None:
        """`sub` or `psub`; each message is noted with the topic that was subscribed to."""

        async def hear(published: str, output: JobOutput) -> None:
            self._note("heard", by=topic, topic=published, job=output.metadata.jid, data=output.data)

        await getattr(self.mesh, method)(topic, hear)

    async def listen_quorum(self) -> None:
        """Note the messages of users."""

        def hear(_: str, message: dict[str, Any]) -> None:
            if message["type"] == "user":
                self._note("told", message=message["message"])

        await self.mesh.sub_quorum(hear)

    # -- faults ------------------------------------------------------------------------------------------

    async def hesitate(self) -> None:
        """From now on, load no version that is to be activated."""
        self._ready.clear()

    async def make_up_its_mind(self) -> None:
        """Load what it was asked for, and what it will be."""
        self._ready.set()

    async def freeze_at_commit(self) -> None:
        """Stand still, as by SIGSTOP, with the next step computed and not yet sent."""
        database = database_of(self.mesh)

        async def commit(*arguments: Any, **options: Any) -> Any:
            intercept(database, commits.commit, None)
            self._note("frozen", epoch=arguments[3])
            os.kill(os.getpid(), signal.SIGSTOP)
            committed = await honest(*arguments, **options)
            self._note("thawed", epoch=committed.epoch)
            return committed

        honest = intercept(database, commits.commit, commit)

    async def die_at_commit(self, when: str) -> None:
        """`kill -9` with the next step computed: `before` it is sent, or `after` it is committed, with nobody told."""

        async def commit(*arguments: Any, **options: Any) -> Any:
            if when == "after":
                await honest(*arguments, **options)
            self._note("dead")
            os.kill(os.getpid(), signal.SIGKILL)

        honest = intercept(database_of(self.mesh), commits.commit, commit)

    # -- the protocol ------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Do what the socket says, each thing at once, until it ends."""
        lines, answers = await asyncio.open_unix_connection(self._order["socket"], limit=MOST)
        answers.write(self._name.encode() + b"\n")
        async with asyncio.TaskGroup() as tasks:
            while line := await lines.readline():
                order = json.loads(line)
                self._doing[order["n"]] = tasks.create_task(self._do(answers, **order))
            os._exit(0)  # the test has ended

    async def _do(
        self, answers: asyncio.StreamWriter, n: int, do: str, args: list[Any], options: dict[str, Any]
    ) -> None:
        try:
            method = getattr(self, do, None) or getattr(self.mesh, do)
            answer = {"n": n, "result": await method(*args, **options)}
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - told to whoever asked
            answer = {"n": n, "error": type(error).__name__, "message": str(error)}
        del self._doing[n]
        answers.write(json.dumps(answer, default=str).encode() + b"\n")


MOST = 2**24
"""Bytes of a line."""


def fork_actors() -> None:
    """Make a process for each line of stdin, and say its id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for them
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            order = json.loads(line)
            os.dup2(os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), sys.stderr.fileno())
            asyncio.run(Actor(order).serve())
        print(pid, flush=True)


if __name__ == "__main__":
    fork_actors()
