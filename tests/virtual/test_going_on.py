"""Schedules go on: after failures, without a limit of runs, and with another interval when they are given one."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from harness import connected, eventually
from hotmesh import Virtual
from hotmesh.virtual.members import ENDLESS
from hotmesh.virtual.virtual import MAX_CYCLES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(module_database_url: str) -> AsyncIterator[dict[str, Any]]:
    """Where the functions of this module are; whatever a test has made is stopped after it."""
    yield {"connection": module_database_url}
    await Virtual.shutdown()


class Runs:
    """A callback that counts its calls, and fails at all of them if it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.times: list[float] = []
        self.arguments: list[Any] = []
        self._fails = fails

    async def __call__(self, *args: Any) -> None:
        self.times.append(anyio.current_time())
        self.arguments.append(args)
        if self._fails:
            raise ValueError("no")


def messages(log: pytest.LogCaptureFixture) -> list[str]:
    return [str(vars(record)["event"]) for record in log.records if record.name == "hotmesh.virtual"]


async def test_a_schedule_goes_on_after_runs_that_have_failed_and_says_so(
    place: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs(fails=True)
    with caplog.at_level(logging.INFO, "hotmesh.virtual"):
        await Virtual.cron(
            "fails", callback=runs, id="g1", interval=1, retry={"maximum_attempts": 1}, **place
        )
        await eventually(lambda: len(runs.times) >= 3)

    assert await Virtual.interrupt("fails", id="g1", **place)
    failed = [
        record
        for record in caplog.records
        if vars(record).get("event") == "run of a schedule failed, it goes on"
    ]
    assert [vars(record)["run"] for record in failed[:3]] == [1, 2, 3]
    assert vars(failed[0])["error"] == "ValueError: no"
    assert vars(failed[0])["schedule_id"] == "g1"


async def test_a_schedule_that_is_to_stop_says_that_it_does_not_go_on(
    place: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs(fails=True)
    with caplog.at_level(logging.INFO, "hotmesh.virtual"):
        await Virtual.cron(
            "stops",
            callback=runs,
            id="g2",
            interval=1,
            retry={"maximum_attempts": 1},
            on_error="stop",
            **place,
        )
        await eventually(lambda: messages(caplog))

    assert messages(caplog) == ["run of a schedule failed"]


async def test_the_last_run_of_a_schedule_says_so(
    place: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hotmesh.virtual"):
        await Virtual.cron("twice", callback=Runs(), id="g3", interval=1, max_cycles=2, **place)
        await eventually(lambda: messages(caplog))

    assert messages(caplog) == ["schedule ends, it has had all its runs"]


def test_without_a_limit_there_is_none() -> None:
    assert MAX_CYCLES == ENDLESS


async def test_another_interval_changes_a_schedule_that_runs(
    place: dict[str, Any], module_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs()

    async def start(interval: Any, *args: Any, **options: Any) -> bool:
        return await Virtual.cron(
            "other", args, callback=runs, id="g4", interval=interval, **options, **place
        )

    with caplog.at_level(logging.INFO, "hotmesh.virtual"):
        assert await start("1 hour")
        await eventually(lambda: len(runs.times) == 1)
        assert not await start("1 hour")
        since = anyio.current_time()
        assert await start(1)
        await eventually(lambda: len(runs.times) >= 3)

    assert runs.times[1] - since >= 1
    (changed,) = [record for record in caplog.records if vars(record).get("event") == "schedule changed"]
    assert vars(changed)["before"]["interval"] == 3600.0
    assert vars(changed)["after"]["interval"] == 1.0
    assert not await start(1)
    assert await start("*/5 * * * *")
    async with connected(module_database_url) as database:
        assert (
            await database.fetchval("select count(*) from hotmesh.job where job_id = 'g4' and status > 0")
            == 1
        )


async def test_other_arguments_change_nothing_and_a_warning_says_so(
    place: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs()
    with caplog.at_level(logging.INFO, "hotmesh.virtual"):
        assert await Virtual.cron("args", ["a"], callback=runs, id="g5", interval="1 hour", **place)
        assert not await Virtual.cron("args", ["b"], callback=runs, id="g5", interval="1 hour", **place)
    await eventually(lambda: runs.arguments == [("a",)])

    assert messages(caplog) == ["schedule keeps its arguments"]
