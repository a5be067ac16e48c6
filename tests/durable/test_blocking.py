"""Workflow code that blocks is cut off: nothing of its turn counts, others go on, and it goes on when it behaves."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter

import pytest

from harness import eventually, init_within
from hotmesh.durable import Client, Worker, activity, workflow
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.limits import MemberLimits
from hotmesh.runtime.loop_watch import LoopLimits, is_debugged

pytestmark = pytest.mark.anyio

LIMITS = MemberLimits(engine=EngineLimits(long_step=0.2, longest_step=0.5))

blocking = [True]
calls: Counter[str] = Counter()


@activity.step
async def note(name: str) -> str:
    calls[name] += 1
    return name


@workflow.defn(task_queue="blocking")
async def blocks() -> str:
    await note("before")
    beside = asyncio.ensure_future(note("beside"))
    await asyncio.sleep(0)
    while blocking[0]:
        pass
    return await beside + await note("after")


@workflow.defn(task_queue="blocking")
async def behaves() -> str:
    return await note("other")


@activity.step
async def blocks_the_loop(seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251
    return "slept"


@workflow.defn(task_queue="blocking")
async def steps_that_block(seconds: float) -> str:
    return await blocks_the_loop(seconds)


async def test_a_step_that_blocks_the_loop_is_told_with_its_place_once_for_all_instances(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    limits = MemberLimits(loop=LoopLimits(tick=0.05, long=0.2))
    async with (
        init_within(limits, "durable", connection=database_url, namespace="durable") as mesh,
        init_within(limits, "durable", connection=database_url, namespace="durable"),
        Worker(mesh=mesh, task_queue="blocking", workflows=[steps_that_block]),
    ):
        client = await Client.connect(mesh=mesh)
        assert await client.execute_workflow(steps_that_block, 0.6) == "slept"

        def free() -> list[str]:
            return [one.getMessage() for one in caplog.records if getattr(one, "event", "") == "loop-free"]

        await eventually(free)
    told = [one for one in caplog.records if getattr(one, "event", "") == "loop-blocked"]
    assert len(told) == 1
    assert "in blocks_the_loop\n    time.sleep(seconds)" in told[0].getMessage()


async def test_code_that_blocks_is_cut_off_and_tried_again(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """WP-51: it is told with its stack, and parked; what it asked for in that turn was never started."""
    blocking[0] = True
    async with (
        init_within(LIMITS, "durable", connection=database_url, namespace="durable") as mesh,
        Worker(mesh=mesh, task_queue="blocking", workflows=[blocks, behaves]),
    ):
        client = await Client.connect(mesh=mesh)
        stuck = await client.start_workflow(blocks)

        async def parked() -> bool:
            found = (await stuck.describe()).parked
            return found is not None and found.reason == "blocked"

        await eventually(parked, within=20, what="the park")
        assert (calls["before"], calls["beside"], calls["after"]) == (1, 0, 0)
        assert await client.execute_workflow(behaves) == "other"
        told = [
            record.getMessage()
            for record in caplog.records
            if getattr(record, "event", None) == "step-takes-long"
        ]
        assert "while blocking[0]" in told[0]
        blocking[0] = False
        assert await stuck.result(timeout=20) == "besideafter"
    assert calls == {"before": 1, "beside": 1, "after": 1, "other": 1}


def test_who_stands_in_a_debugger_is_not_hurried() -> None:
    names: dict[str, object] = {"__name__": "pdb", "look": lambda: is_debugged(sys._getframe())}
    assert eval("look()", names)
    assert not is_debugged(sys._getframe())
