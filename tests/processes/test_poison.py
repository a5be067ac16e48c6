"""Work that kills its process is given up, and nothing that was merely beside it: whoever takes work, and however."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from doomed import APP, play, program
from harness import eventually, one_worker
from hotmesh import HotMesh
from ledger import entries

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["claimed", "threads", "topics", "two instances", "own engine"])
async def test_only_what_kills_its_process_is_given_up(kind: str, database_url: str, tmp_path: Path) -> None:
    assert await play(database_url, tmp_path, kind, threshold=3) == [0]


@pytest.mark.parametrize("threshold", [1, 2])
async def test_the_smallest_threshold_buries_no_neighbours_either(
    threshold: int, database_url: str, tmp_path: Path
) -> None:
    assert await play(database_url, tmp_path, "claimed", threshold=threshold) == [0]


async def test_after_an_ordinary_death_everything_runs_at_once_again(
    database_url: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    order = {"kind": "claimed", "url": database_url, "ledger": str(ledger), "threshold": 5, "takes": 1.0}
    order |= {"topics": ["w"], "together": 0, "publish": 0}

    def begun() -> list[int]:
        return [one["pid"] for one in entries(ledger) if one["what"] == "begin"]

    async with HotMesh.init(APP, connection=database_url, lease=1.5) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        jobs = [await mesh.pub("one", {"x": number}) for number in range(1, 101)]
        async with program(tmp_path, **order) as process:
            await eventually(lambda: len(begun()) == 100, what="100 callbacks", within=20)
            process.kill()
            await process.wait()
        async with program(tmp_path, **order):
            for job in jobs:
                await eventually(partial(_ended, mesh, job), within=30, what="an end")
    first = begun()[0]
    running = most = 0
    for one in entries(ledger):
        if one["pid"] != first:
            running += 1 if one["what"] == "begin" else -1
            most = max(most, running)
    assert most == 100


async def _ended(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) == 0
