"""Real processes, killed with `kill -9`: nothing is lost, nothing counts twice, and others take over in time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import asyncpg
import drill
import pytest
from fleet import Role
from member import APP

from harness import connected, eventually
from hotmesh import HotMesh, StreamData, Worker
from ledger import entries

pytestmark = pytest.mark.anyio


async def test_a_mesh_survives_the_death_of_any_process_at_any_moment(scratch: Path) -> None:
    report = await drill.run(scratch, jobs=180, rate=45, disturbance=6, seed=20_260_801)

    assert not report.problems, "\n".join(report.problems)
    assert report.kills >= drill.ENOUGH
    assert report.restarts_of_postgres == 1
    assert report.repeated_runs > 0, "no kill hit a running callback: the drill proved nothing"


async def test_others_take_over_within_a_second_when_the_only_engine_that_created_the_jobs_dies(
    database_url: str, tmp_path: Path
) -> None:
    """`HANDOVER` (0.5 s) until others may take what an engine meant to handle, and one poll (1 s); twice that here, for
    a busy machine. A lease has 30 seconds.
    """
    creator = Role("creator", engine=True, worker=False)
    play = drill.Drill(tmp_path, database_url, jobs=40, rate=400, roles=(creator,))
    await play.prepare()
    gate = asyncio.Event()
    waiting: list[str] = []
    followed: dict[str, float] = {}

    async def first(message: StreamData) -> dict[str, Any]:
        waiting.append(message.metadata.jid)
        await gate.wait()
        return {"y": message.data["x"] + 1}

    async def left(message: StreamData) -> dict[str, Any]:
        followed[message.metadata.jid] = time.monotonic()
        return {"y": message.data["x"] + 1}

    workers = [Worker("first", first, max_concurrency=50), Worker("left", left, max_concurrency=50)]
    async with (
        HotMesh.init(app_id=APP, connection=database_url),
        HotMesh.init(app_id=APP, connection=database_url, engine=False, workers=workers),
    ):
        with play.running():
            await eventually(lambda: len(waiting) == 40, what="40 callbacks", within=60)
            play.kill(creator)
            died = time.monotonic()
            gate.set()
            await eventually(lambda: len(followed) == 40, what="the next steps")
        slowest = max(followed.values()) - died

    assert slowest <= 3


async def test_messages_that_a_dead_engine_meant_to_handle_are_taken_by_another(
    database_url: str, tmp_path: Path
) -> None:
    """Killed in the middle of a storm, with answers, timers, children and cycles on their way through its memory."""
    creator = Role("creator", engine=True, worker=False)
    other = Role("other", engine=False, worker=True)
    play = drill.Drill(tmp_path, database_url, jobs=60, rate=120, roles=(creator, other))
    await play.prepare()
    async with (
        HotMesh.init(app_id=APP, connection=database_url) as survivor,
        connected(database_url) as connection,
    ):
        with play.running():
            await eventually(lambda: count_runs(play) > 100, what="100 runs", within=60)
            play.kill(creator)
            play.jobs = await connection.fetchval("select count(*) from hotmesh.job where topic = 'order'")
            await play.settle(within=12)
        await play.judge()
        assert survivor.app_id == APP

    assert not play.report.problems, "\n".join(play.report.problems)
    assert play.report.repeated_runs == 0, "no worker died, so no callback had to run again"


def count_runs(play: drill.Drill) -> int:
    return sum(entry["what"] == "run" for entry in entries(play.ledger))


async def test_a_stalled_process_that_wakes_up_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """Its leases have lapsed and others have done its work: its answers are refused, its jobs are read again."""
    sleeper = Role("sleeper", engine=True, worker=True)
    other = Role("other", engine=True, worker=True)
    play = drill.Drill(tmp_path, database_url, jobs=60, rate=60, roles=(sleeper, other))
    await play.prepare()
    async with connected(database_url) as connection:
        with play.running():
            await eventually(lambda: count_runs(play) > 100, what="100 runs", within=60)
            await stall_between_transactions(play, sleeper, connection)

            async def only_the_sleepers_jobs_are_missing() -> bool:
                return set(await play.owed(connection)) <= {"jobs to create"}

            await eventually(only_the_sleepers_jobs_are_missing, within=30)
            taken = count_runs(play)
            play.wake(sleeper)
            await play.settle(within=30)
        await play.judge()

    assert not play.report.problems, "\n".join(play.report.problems)
    assert play.report.repeated_runs > 0, "the sleeper held nothing when it fell asleep"
    assert taken > 100


SOME = 3
"""Messages that a process holds: most likely a callback runs for one of them."""


async def stall_between_transactions(play: drill.Drill, role: Role, connection: asyncpg.Connection) -> None:
    """Stop the process while it holds work, but no lock: locks end only with the process or its connection."""

    async def stalled() -> bool:
        play.stall(role)
        # Also what is active: it may be about to stand still in the middle of a transaction.
        busy = await connection.fetchval(
            "select count(*) from pg_stat_activity where application_name = $1 and state <> 'idle'",
            play.member(role),
        )
        held = await connection.fetchval(
            "select count(*) from hotmesh.worker_stream where reserved_by = $1", play.member(role)
        )
        asleep = not busy and held >= SOME
        if not asleep:
            play.wake(role)
        return asleep

    await eventually(stalled, within=60)
