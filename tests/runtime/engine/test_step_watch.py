"""No step holds an engine: what takes long is named, divided, and cut off in the end."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from harness import connected, init_within, one_worker, settled
from hotmesh import HotMesh, JobError, StreamData, Worker
from hotmesh.core.advance import advance as core
from hotmesh.runtime.definitions import program as program_module
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.engine.step_watch import StepCutOffError, StepWatch
from hotmesh.runtime.limits import MemberLimits

pytestmark = pytest.mark.anyio

APP = "watched"

PATTERN = """
app:
  id: watched
  version: '1'
  graphs:
    - subscribes: one
      expire: 3600
      activities:
        start: {type: trigger}
        call: {type: worker, topic: w, input: {maps: {x: '{start.output.data.x}'}}}
        match:
          type: hook
          job:
            maps:
              y: '{call.output.data.y}'
              at: {'@pipe': [['{call.output.data.text}', '{call.output.data.pattern}'], ['{@string.search}']]}
      transitions:
        start: [{to: call}]
        call: [{to: match}]
"""


async def answer(message: StreamData) -> dict[str, Any]:
    text = "a" * 4_000 if message.data["x"] == "evil" else "ab"
    return {"y": message.data["x"], "text": text, "pattern": "^(?:.*a){12}b" if len(text) > 2 else "^(a+)+b"}


def spin(seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(100))
    return "done"


# -- the watch alone -----------------------------------------------------------------------------------------


def test_a_step_that_takes_long_is_named_and_one_that_takes_longer_is_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = StepWatch(0.2, 2)
    watch.start()
    try:
        with caplog.at_level(logging.WARNING, "hotmesh.engine"):
            assert watch.run("quick", spin, 0.01) == "done"
            assert caplog.records == []
            assert watch.run("slow", spin, 0.4) == "done"
            began = time.monotonic()
            with pytest.raises(StepCutOffError, match="took longer than 2 s"):
                watch.run("endless", spin, 60)
            assert time.monotonic() - began < 20
        told = [(record.__dict__["event"], record.__dict__["job_id"]) for record in caplog.records]
    finally:
        watch.close()

    assert told == [
        ("step-takes-long", "slow"),
        ("step-takes-long", "endless"),
        ("step-cut-off", "endless"),
    ]
    assert "spin" in caplog.records[0].getMessage()


@pytest.mark.parametrize("ended", [False, True])
def test_a_cut_that_has_not_arrived_when_its_step_ends_is_taken_back(*, ended: bool) -> None:
    """The thread of the step is inside of a call that runs no Python, where nothing can arrive."""
    watch = StepWatch(10, 0.2)
    inside = threading.Event()
    met: list[str] = []

    def step() -> None:
        try:
            inside.set()
            time.sleep(1)
            spin(0.1)
        except BaseException as error:  # noqa: BLE001 - the cut is one
            met.append(type(error).__name__)

    thread = threading.Thread(target=step)
    thread.start()
    assert inside.wait(5)
    time.sleep(0.2)
    assert thread.ident is not None
    watch._thread_id, watch._job = thread.ident, "job"
    for _ in range(4):
        watch._look()
    if ended:
        watch._over()
    thread.join(10)

    assert met == ([] if ended else ["_CutError"])


def test_what_a_step_raises_is_raised() -> None:
    watch = StepWatch(1, 1)
    with pytest.raises(KeyError):
        watch.run("job", dict[str, str]().__getitem__, "x")


# -- in an engine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True], ids=["memory", "stream"])
async def test_a_pattern_from_a_payload_stops_no_engine(database_url: str, *, apart: bool) -> None:
    async with (
        HotMesh.init(APP, connection=database_url, workers=[] if apart else [Worker("w", answer)]) as mesh,
        HotMesh.init(APP, connection=database_url, engine=False, workers=[Worker("w", answer)]),
    ):
        await mesh.deploy(PATTERN)
        await mesh.activate("1")
        evil = asyncio.create_task(mesh.pubsub("one", {"x": "evil"}, timeout=30))
        for x in range(10):
            assert (await mesh.pubsub("one", {"x": x}, timeout=15)).data == {"y": x, "at": 0}
        with pytest.raises(JobError, match="takes more than"):
            await evil
        assert await mesh.list_dead_letters() == []


@pytest.mark.parametrize("apart", [False, True], ids=["memory", "stream"])
async def test_a_step_without_end_becomes_the_error_of_its_activity(
    database_url: str, monkeypatch: pytest.MonkeyPatch, *, apart: bool
) -> None:
    steps = 0

    def advance(plan: Any, job: Any, events: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal steps
        if job.job_id == "endless" and events[0].status == "success":
            steps += 1
            spin(60)
        return honest(plan, job, events, *arguments, **options)

    async def double(message: StreamData) -> dict[str, Any]:
        return {"y": message.data["x"] * 2}

    honest = core.advance
    monkeypatch.setattr(program_module, "advance", advance)
    limits = MemberLimits(engine=EngineLimits(long_step=0.2, longest_step=0.5))
    async with (
        init_within(
            limits, APP, connection=database_url, workers=[] if apart else [Worker("w", double)]
        ) as mesh,
        HotMesh.init(APP, connection=database_url, engine=False, workers=[Worker("w", double)]),
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        with pytest.raises(JobError, match=r"took longer than 0\.5 s and was cut off") as caught:
            await mesh.pubsub("one", {"x": 1}, extended={"id": "endless"}, timeout=30)
        assert (await mesh.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}
        await settled(connection, APP)
        assert await mesh.list_dead_letters() == []

    assert caught.value.code == 500
    assert steps >= 2


async def test_a_job_whose_failure_leads_to_the_same_work_again_ends_and_holds_nobody_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a transition that is always taken: the failing step is cut off, too. Others have a turn after each cut."""
    steps = turns = 0

    def advance(plan: Any, job: Any, events: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal steps
        if job.job_id == "endless" and events[0].kind == "answer":
            steps += 1
            turned.append(turns)
            spin(60)
        return honest(plan, job, events, *arguments, **options)

    async def double(message: StreamData) -> dict[str, Any]:
        return {"y": message.data["x"] * 2}

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turned: list[int] = []
    honest = core.advance
    monkeypatch.setattr(program_module, "advance", advance)
    limits = MemberLimits(engine=EngineLimits(long_step=0.2, longest_step=0.5))
    async with (
        init_within(limits, APP, connection=database_url, workers=[Worker("w", double)]) as mesh,
        connected(database_url) as connection,
    ):
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        counting = asyncio.create_task(count_turns())
        with pytest.raises(JobError, match=r"took longer than 0\.5 s and was cut off"):
            await mesh.pubsub("one", {"x": 1}, extended={"id": "endless"}, timeout=30)
        counting.cancel()
        assert (await mesh.pubsub("one", {"x": 2}, timeout=10)).data == {"y": 4}
        await settled(connection, APP)

    assert steps == 3, "tried, tried once more, and as a failure"
    assert turned[0] < turned[1] < turned[2]
