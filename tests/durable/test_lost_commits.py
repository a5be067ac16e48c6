"""A fault at each commit of a workflow in turn, in a process that lives on, or is killed: afterwards it is as if nothing had happened.

Each test names the line of the table of crash points that it is about (`durable.md`, "What a crash leaves").
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import host
import pytest

import ledger
from harness import eventually
from hotmesh.durable import Client, Worker, WorkflowHandle, errors
from hotmesh.errors import ConnectionLostError
from hotmesh.postgres import commits
from interception import database_of, intercept

pytestmark = pytest.mark.anyio

LOSSES = ("lost before", "lost after", "comes late", "refused")
MOMENTS = ("before", "during", "after")
COMMITS = 6
"""Of a `mixed` workflow: its start, a step, two at once, a timer, a step; its end goes with that of the last."""
STEPS = {"a", "b", "c", "d"}


class Saboteur:
    """Replaces the commit of a worker: the n-th from now on goes wrong."""

    def __init__(self, worker: Worker, mode: str, number: int) -> None:
        self.left = number
        self.struck = False
        self._mode = mode
        self._database = database_of(worker.mesh)
        self._honest = intercept(self._database, commits.commit, self._commit)

    def disarm(self) -> None:
        intercept(self._database, commits.commit, None)
        intercept(self._database, commits.written, None)

    async def _commit(self, connection: Any, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left:
            return await self._honest(connection, *arguments, **options)
        self.struck = True
        whole = partial(self._honest, connection, *arguments, **options)
        match self._mode:
            case "refused":
                raise asyncpg.DiskFullError("no space left on the device")
            case "lost after":
                await whole()
            case "comes late" if connection.is_in_transaction():
                await whole()
            case "comes late":
                self._late(arguments, options)
        raise ConnectionLostError("the answer was lost")

    def _late(self, arguments: Any, options: Any) -> None:
        """Have it written once it was looked up, and not found."""

        async def written(connection: Any, job_ids: Any) -> Any:
            found = await look(connection, job_ids)
            intercept(self._database, commits.written, None)
            await self._honest(connection, *arguments, **options)
            return found

        look = intercept(self._database, commits.written, written)


def effects(path: Path, workflow_id: str) -> Counter[str]:
    """How often each step of a workflow had its effect."""
    found = [entry for entry in ledger.entries(path) if entry["workflow"] == workflow_id]
    keys = Counter((entry["step"], entry["key"]) for entry in found)
    assert len(keys) == len({step for step, _ in keys}), "a step that is run again has the same key"
    return Counter(entry["step"] for entry in found)


async def judge(connection: asyncpg.Connection, handle: WorkflowHandle[Any]) -> None:
    """It has ended right, each result is recorded once, and nothing is left of it."""
    assert await handle.result(timeout=30) == host.MIXED
    run = (await handle.describe()).run_id
    rows = await connection.fetch(
        "select position, kind, name, status from durable.operation where generation = $1 order by position",
        run,
    )
    assert [tuple(row) for row in rows] == [
        (1, "step", "a", "done"),
        (2, "step", "b", "done"),
        (3, "step", "c", "done"),
        (4, "sleep", "timer", "done"),
        (5, "step", "d", "done"),
    ]
    for table in ("worker_stream", "engine_stream", "timer", "wait", "dead_letter"):
        assert not await connection.fetchval(
            f"select count(*) from durable.{table} where generation = $1", run
        )


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setattr(host, "ORDER", {"ledger": str(path), "hang": (), "die": ()})
    return path


@pytest.mark.row("WA-09")
@pytest.mark.parametrize("mode", LOSSES)
async def test_a_fault_at_any_commit_leaves_no_trace(database_url: str, path: Path, mode: str) -> None:
    """During the commit of a turn (all or nothing; written: it goes on; not written: it is dropped); statement refused."""
    connection = await asyncpg.connect(database_url)
    async with Worker(database_url, task_queue="crash", workflows=[host.mixed]) as worker:
        client = await Client.connect(database_url)
        struck = 0
        for number in range(1, COMMITS + 1):
            saboteur = Saboteur(worker, mode, number)
            handle = await client.start_workflow(host.mixed, id=f"{mode}-{number}")
            await judge(connection, handle)
            saboteur.disarm()
            struck += saboteur.struck
            # The process lives: whatever becomes of a commit, no step is run a second time.
            assert effects(path, handle.workflow_id) == dict.fromkeys(STEPS, 1), (mode, number)
        assert struck == COMMITS
        assert worker.mesh._member.functions is not None
    await connection.close()


async def _die(url: str, path: Path, strikes: list[tuple[str, int, str]]) -> None:
    """Processes, one after the other, that each start a workflow, and are killed at its n-th commit."""
    order = {
        "url": url,
        "ledger": str(path),
        "hang": (),
        "die": (),
        "lease": 30.0,
        "strikes": strikes,
        "workflows": True,
    }
    program = Path(host.__file__)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        json.dumps(order),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(program.parent.parent)},
        start_new_session=True,
    )
    try:
        found, _ = await asyncio.wait_for(process.communicate(), 60)
        assert found.split() == [b"9"] * len(strikes)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.row("WA-09")
async def test_a_kill_at_any_commit_leaves_no_trace(database_url: str, path: Path) -> None:
    """During `start`, after it, while code of a turn runs, after a step's effect and before its commit, during the commit."""
    connection = await asyncpg.connect(database_url)
    strikes = [(f"{moment}-{number}", number, moment) for moment in MOMENTS for number in (1, 2, 4, COMMITS)]
    await _die(database_url, path, strikes)
    async with Worker(database_url, task_queue="crash", workflows=[host.mixed]):
        client = await Client.connect(database_url)
        for name, number, moment in strikes:
            try:
                handle = await client.start_workflow(host.mixed, id=name, id_reuse_policy="reject")
                assert (number, moment) != (1, "after"), "it was committed, and is a duplicate"
                assert number == 1, "it was lost"
            except errors.WorkflowAlreadyStartedError:
                assert (number, moment) != (1, "before"), "nothing was sent, and yet it is there"
                handle = client.get_workflow_handle(name)
            await judge(connection, handle)
            done = effects(path, name)
            assert set(done) == STEPS
            assert max(done.values()) <= 2
    await eventually(partial(_nothing_held, connection), what="the end of all tenures")
    await connection.close()


async def _nothing_held(connection: asyncpg.Connection) -> bool:
    return not await connection.fetchval("select count(*) from durable.job where held")
