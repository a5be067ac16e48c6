"""A fault at each commit of a job in turn: afterwards it is as if nothing had happened.

`lost before`: the connection breaks before the statement is sent. `lost after`: it is executed, its answer is lost.
`comes late`: so it is, but only once the engine has looked whether it was.
`killed`: Postgres ends the session while the statement runs. `dies before`, `dies after`: the process is gone, and
another one takes over. `on the stream` the engine has no workers, so that everything comes to it as messages.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
import asyncpg
import pytest
from asyncpg.transaction import Transaction
from member import FLOW, RECORDS, TOPICS, expected

from harness import connected, eventually, owed
from hotmesh import DuplicateJobError, HotMesh, StreamData, Worker
from hotmesh.errors import ConnectionLostError
from hotmesh.postgres import commits
from hotmesh.postgres.database import Database
from interception import database_of, intercept

pytestmark = pytest.mark.anyio

MODES = ("lost before", "lost after", "comes late", "killed", "dies before", "dies after")

AT_ONCE = 3
"""Experiments that run side by side; each has some ten connections."""


class Saboteur:
    """Replaces the commit of one engine: the n-th goes wrong."""

    def __init__(self, url: str, mode: str, number: int) -> None:
        self._url = url
        self._mode = mode
        self._left = number
        self.struck = asyncio.Event()
        self.death: Callable[[], object] | None = None

    def arm(self, mesh: HotMesh) -> None:
        database = database_of(mesh)
        runner = mesh._member.lifetime.runner
        assert runner is not None
        self.death = runner.cancel

        async def commit(connection: Any, *arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left:
                return await honest(connection, *arguments, **options)
            self.struck.set()
            match self._mode:
                case "lost before":
                    raise ConnectionLostError("lost before it was sent")
                case "lost after":
                    await honest(connection, *arguments, **options)
                    raise ConnectionLostError("the answer was lost")
                case "comes late":
                    if connection.is_in_transaction():
                        await honest(connection, *arguments, **options)
                    else:
                        self._execute_late(database, partial(honest, **options), arguments)
                    raise ConnectionLostError("the answer was lost")
                case "killed":
                    return await self._killed(connection, honest(connection, *arguments, **options))
                case "dies after":
                    await honest(connection, *arguments, **options)
            runner.cancel()
            return await asyncio.get_running_loop().create_future()

        honest = intercept(database, commits.commit, commit)

    def _execute_late(
        self, database: Database, honest: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        """Let the commit be executed as soon as the engine has found that it was not."""

        async def written(connection: Any, job_ids: Any) -> Any:
            found = await look(connection, job_ids)
            intercept(database, commits.written, None)
            async with connected(self._url) as other:
                await honest(other, *arguments)
            return found

        look = intercept(database, commits.written, written)

    async def _killed(self, connection: asyncpg.Connection, committing: Any) -> Any:
        """Let the statement wait for a lock, and end its session there."""
        victim = connection.get_server_pid()
        # A transaction of the stream has locked its job rows already: it shall wait where it writes its records.
        table = "activity" if connection.is_in_transaction() else "job"
        async with connected(self._url) as other, other.transaction():
            await other.execute(f"lock table hotmesh.{table} in exclusive mode")
            running = asyncio.ensure_future(committing)

            async def waits() -> bool:
                # A commit that is refused at once (the definitions have changed) writes nothing and waits for nobody.
                return running.done() or bool(
                    await other.fetchval("select cardinality(pg_blocking_pids($1)) > 0", victim)
                )

            await eventually(waits, what="the commit")
            if running.done():
                self._left = 1
                self.struck.clear()
                return await running
            await other.fetchval("select pg_terminate_backend($1)", victim)
            await asyncio.wait([running])
        return running.result()


class Experiment:
    """One job in an app of its own, with one fault."""

    def __init__(self, url: str, mode: str, number: int, *, on_the_stream: bool) -> None:
        self.url = url
        self.mode = mode
        self.number = number
        self.on_the_stream = on_the_stream
        # Where nobody dies, nothing may have to wait for a lease.
        self.lease = 0.6 if mode.startswith("dies") else 60
        self.app_id = f"fault-{MODES.index(mode)}-{number}-{on_the_stream:d}"
        self.runs = Counter[str]()
        self.saboteur = Saboteur(url, mode, number)

    async def _work(self, message: StreamData) -> dict[str, Any]:
        self.runs[message.metadata.guid] += 1
        return {"y": message.data["x"] + 1}

    def mesh(self, *, engine: bool, worker: bool) -> Any:
        workers = [Worker(topic, self._work) for topic in TOPICS] if worker else []
        return HotMesh.init(
            app_id=self.app_id,
            connection=self.url,
            engine=engine,
            workers=workers,
            lease=self.lease,
            settings={"poll": 0.2},
        )

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(self.mesh(engine=True, worker=not self.on_the_stream))
            await first.deploy(
                FLOW.replace("id: drill", f"id: {self.app_id}").replace("sleep: 0.3", "sleep: 0.01")
            )
            await first.activate("1")
            if self.on_the_stream:
                await stack.enter_async_context(self.mesh(engine=False, worker=True))
            runner = first._member.lifetime.runner
            assert runner is not None
            self.saboteur.arm(first)
            published = asyncio.ensure_future(first.pub("order", {"x": 7}, extended={"id": "the-job"}))
            connection = await stack.enter_async_context(connected(self.url))
            if self.mode.startswith("dies"):
                await self._someone_else(stack, connection, published)
            else:
                assert await published == "the-job"
            await self.judge(connection)

    async def _someone_else(
        self, stack: AsyncExitStack, connection: asyncpg.Connection, published: asyncio.Future[str]
    ) -> None:
        """Once the first process is gone, start another, and repeat the call that may not have been answered."""

        async def over() -> bool:
            return self.saboteur.struck.is_set() or await self._is_settled(connection)

        await eventually(over, what="the death, or the end of the job")
        with anyio.move_on_after(0.05):
            await asyncio.wait([published])
        second = await stack.enter_async_context(self.mesh(engine=True, worker=True))
        if not published.done() or published.exception() is not None:
            published.cancel()
            try:
                await second.pub("order", {"x": 7}, extended={"id": "the-job"})
            except DuplicateJobError:
                assert self.mode == "dies after", "nothing was sent, and yet there is a job"

    async def _is_settled(self, connection: asyncpg.Connection) -> bool:
        created = await connection.fetchval("select count(*) from hotmesh.job where app_id = $1", self.app_id)
        return bool(created) and not await owed(connection, self.app_id)

    async def judge(self, connection: asyncpg.Connection) -> None:
        await eventually(lambda: self._is_settled(connection), what=f"the end of {self}")
        jobs = await connection.fetch(
            "select job_id, topic, status, data, error from hotmesh.job where app_id = $1 order by topic",
            self.app_id,
        )
        order, part = jobs
        assert (order["job_id"], order["status"], order["error"]) == ("the-job", 0, None), self
        assert json.loads(order["data"]) == expected(7), self
        assert (part["status"], json.loads(part["data"])) == (0, {"y": 9}), self
        passes = await connection.fetch(
            "select a.activity_id, count(*) as passes from hotmesh.activity as a join hotmesh.job as j using (generation) "
            "where j.app_id = $1 and j.topic = 'order' and a.state = 'closed' group by 1",
            self.app_id,
        )
        assert {row["activity_id"]: row["passes"] for row in passes} == RECORDS, self
        assert len(self.runs) == 8, self
        if not self.mode.startswith("dies"):  # there, the lease may lapse a second time on a busy machine
            assert max(self.runs.values()) == 1, self
        assert not await connection.fetchval(
            "select count(*) from hotmesh.dead_letter where app_id = $1", self.app_id
        )

    def __str__(self) -> str:
        return f"{self.mode} at commit {self.number}{' on the stream' if self.on_the_stream else ''}: {self.runs}"


@pytest.mark.parametrize("on_the_stream", [False, True], ids=["in memory", "on the stream"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_fault_at_any_commit_leaves_no_trace(
    database_url: str, mode: str, on_the_stream: bool
) -> None:
    experiments = [
        Experiment(database_url, mode, number, on_the_stream=on_the_stream) for number in range(1, 10)
    ]
    slots = asyncio.Semaphore(AT_ONCE)

    failures: list[str] = []

    async def perform(experiment: Experiment) -> None:
        async with slots:
            try:
                await experiment.run()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - all of them are reported below
                failures.append(f"{experiment}: {type(error).__name__}: {error}")

    await asyncio.gather(*map(perform, experiments))

    assert not failures, "\n".join(failures)
    assert sum(experiment.saboteur.struck.is_set() for experiment in experiments) >= 4, (
        "few faults were reached"
    )


async def test_the_lost_answer_to_a_transaction_of_the_stream_leaves_no_trace(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COMMIT is executed and its answer is lost: the places that were kept in local workers are free again."""
    experiment = Experiment(database_url, "lost after", 0, on_the_stream=False)
    honest = Transaction.__aexit__
    losses = 0

    async def leave(self: Transaction, kind: Any, error: Any, trace: Any) -> None:
        nonlocal losses
        await honest(self, kind, error, trace)
        if kind is None and losses < 2:
            losses += 1
            raise ConnectionLostError("the answer to COMMIT was lost")

    async with connected(database_url) as connection, experiment.mesh(engine=True, worker=True) as mesh:
        await mesh.deploy(
            FLOW.replace("id: drill", f"id: {experiment.app_id}").replace("sleep: 0.3", "sleep: 0.01")
        )
        await mesh.activate("1")
        monkeypatch.setattr(Transaction, "__aexit__", leave)
        assert await mesh.pub("order", {"x": 7}, extended={"id": "the-job"}) == "the-job"
        await experiment.judge(connection)
        assert losses > 0, "no transaction was lost"
        assert {
            figures.worker.topic: figures.used for figures in mesh._member.workers.figures()
        } == dict.fromkeys(TOPICS, 0)
