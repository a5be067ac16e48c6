"""The callers who wait for a job: one timer for all of their limits, and nothing of them when they have gone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from hotmesh.core.state.job import Job
from hotmesh.errors import DuplicateJobError, HotMeshError, JobTimeoutError
from hotmesh.runtime.results.waiting import LEAST_SWEPT, Caller, Callers

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)


def callers() -> Callers:
    nobody: Any = None
    return Callers(nobody, nobody)


def waiting(room: Callers, name: str, limit: float) -> Caller:
    """A caller whose job exists."""
    caller = room.expect(name, "t", limit)
    caller.created(Job("app", f"job {name}", name, "1", "t", 1, 1, {}, {}, NOW, NOW))
    return caller


def limits(room: Callers) -> list[tuple[float, str]]:
    assert room._limits is not None
    return room._limits._due


async def test_each_caller_waits_as_long_as_it_said() -> None:
    room = callers()
    loop = asyncio.get_running_loop()
    seconds = {"long": 60.0, "second": 0.06, "first": 0.02, "third": 0.1}
    since = loop.time()
    found = {name: waiting(room, name, limit) for name, limit in seconds.items()}
    reached: list[str] = []

    def note(name: str, _: object) -> None:
        reached.append(name)

    for name, caller in found.items():
        caller.answer.add_done_callback(partial(note, name))

    for name in ("first", "second", "third"):
        with pytest.raises(JobTimeoutError, match=f"job {name}"):
            await found[name].answer
        assert loop.time() - since >= seconds[name]
        room.forget(name)

    assert reached == ["first", "second", "third"]
    assert not found["long"].answer.done()
    room.close(HotMeshError("over"), HotMeshError("unknown"))


async def test_a_limit_is_no_matter_once_the_caller_has_gone() -> None:
    room = callers()
    gone = waiting(room, "gone", 0.01)
    room.forget("gone")
    with pytest.raises(JobTimeoutError):
        await waiting(room, "there", 0.03).answer

    assert gone.answer.cancelled()


async def test_limits_of_callers_who_have_gone_do_not_pile_up() -> None:
    room = callers()
    for number in range(3 * LEAST_SWEPT):
        waiting(room, str(number), 3_600)
        room.forget(str(number))
        assert len(limits(room)) <= LEAST_SWEPT

    there = [waiting(room, f"there {number}", 3_600) for number in range(2 * LEAST_SWEPT)]
    assert len(limits(room)) <= 3 * LEAST_SWEPT
    assert {name for _, name in limits(room)} >= {caller.generation for caller in there}
    room.close(HotMeshError("over"), HotMeshError("unknown"))
    assert limits(room) == []


async def test_the_end_tells_each_caller_what_is_known_of_its_job() -> None:
    room = callers()
    exists, unknown, refused = waiting(room, "a", 60), room.expect("b", "t", 60), room.expect("c", "t", 60)
    refused.not_created(DuplicateJobError("c"))
    room.close(HotMeshError("over"), HotMeshError("not known"))

    with pytest.raises(HotMeshError, match="over"):
        await exists.answer
    with pytest.raises(HotMeshError, match="not known"):
        await unknown.answer
    with pytest.raises(DuplicateJobError):
        await refused.answer


async def test_an_answer_may_come_before_the_news_that_the_job_exists() -> None:
    room = callers()
    caller = room.expect("a", "t", 0.0)
    room.answer({"gid": "a", "jid": "job a"}, {"x": 1})
    caller.created(Job("app", "job a", "a", "1", "t", 1, 1, {}, {}, NOW, NOW))
    await asyncio.sleep(0.01)

    assert (await caller.answer).data == {"x": 1}
