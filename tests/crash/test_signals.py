"""Who was answered finds its signal delivered exactly once, however its process ended."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import signaller

from harness import connected, eventually
from hotmesh import HotMesh

pytestmark = pytest.mark.anyio

CALLERS = 20


async def test_a_signal_that_was_answered_is_delivered_once_although_its_process_is_killed(
    database_url: str, tmp_path: Path
) -> None:
    answered = tmp_path / "answered"
    answered.touch()
    async with HotMesh.init(signaller.APP, connection=database_url) as survivor:
        await survivor.deploy(signaller.FLOW)
        await survivor.activate("1")
        jobs = [await survivor.pub("s", {"count": 0}) for _ in range(CALLERS)]
        begun = {job: await _count(survivor, job) for job in jobs}
        order = {"url": database_url, "jobs": jobs, "answered": str(answered)}
        for kill in range(1, 4):
            process = subprocess.Popen(  # noqa: ASYNC220 - it is killed below
                [sys.executable, str(Path(__file__).with_name("signaller.py")), json.dumps(order)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            try:
                await eventually(partial(_has_lines, answered, 300 * kill), within=60, what="answers")
            finally:
                process.kill()
                await asyncio.to_thread(process.wait)
        async with connected(database_url) as connection:

            async def nothing_left() -> bool:
                return not await connection.fetchval("select exists (select from hotmesh.engine_stream)")

            await eventually(nothing_left, what="an empty stream")

        said = [line.split() for line in answered.read_text().splitlines()]
        assert {outcome for _, outcome in said} == {"delivered"}
        told = Counter(job for job, _ in said)
        applied = {job: await _count(survivor, job) - begun[job] for job in jobs}

    assert {job: applied[job] >= told[job] for job in jobs} == dict.fromkeys(jobs, True), "one was lost"
    # At each kill one signal of a caller may be on its way: it counts, and nobody was told.
    assert {job: applied[job] - told[job] <= 3 for job in jobs} == dict.fromkeys(jobs, True), (
        "one counts twice"
    )


async def _count(mesh: HotMesh, job_id: str) -> int:
    found: int = (await mesh.get_state("s", job_id))["data"]["count"]
    return found


def _has_lines(path: Path, count: int) -> bool:
    return path.read_text().count("\n") >= count
