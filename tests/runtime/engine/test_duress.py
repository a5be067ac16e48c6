"""Duress: what an engine makes of how long its messages take, and what others make of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness import eventually, one_worker
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.core.state.job import Event
from hotmesh.postgres import commits
from hotmesh.runtime.engine.duress import HALF_LIFE, STATE_STALE, Duress
from hotmesh.runtime.settings import Settings
from interception import database_of, intercept

pytestmark = pytest.mark.anyio


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Subject(Duress):
    """One whose clock is moved by hand, and whose messages are kept."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(Settings(), self.clock)
        self.told: list[tuple[str, float, float]] = []
        self.notify = lambda level, score, floor: self.told.append((level, score, floor))

    def looks(self, milliseconds: float, count: int = 1) -> None:
        """The slowest kind of message takes this long now, and the engine looks so often."""
        self._averages.clear()
        self.record("answer", milliseconds)
        for _ in range(count):
            self.look()

    @property
    def level(self) -> str:
        return self.reading().level


@pytest.fixture
def duress() -> Subject:
    return Subject()


@pytest.mark.row(239)
async def test_the_average_of_a_kind(duress: Subject) -> None:
    duress.record("answer", 100)
    assert duress.reading().per_type == {"answer": 100}
    duress.record("answer", 200)
    assert duress.reading().per_type == {"answer": 130}


@pytest.mark.row(240)
async def test_kinds_are_apart_and_the_slowest_counts(duress: Subject) -> None:
    duress.record("answer", 10)
    duress.record("timer", 700)
    duress.look()

    assert duress.reading().per_type == {"answer": 10, "timer": 700}
    assert (duress.reading().score, duress.level) == (700, "mild")


@pytest.mark.row(241)
async def test_levels_and_their_floors(duress: Subject) -> None:
    assert [duress.grade(score)[0] for score in (50, 199, 200, 500, 999, 1000, 3000, 5000, 6000, 90_000)] == [
        "healthy", "healthy", "mild", "mild", "mild", "moderate", "moderate", "severe", "severe", "severe",
    ]  # fmt: skip
    assert [duress.grade(score)[1] for score in (50, 200, 600, 1000, 3000, 5000, 7500, 10_000, 90_000)] == [
        0, 100, 300, 500, 1250, 2000, 3500, 5000, 5000,
    ]  # fmt: skip


@pytest.mark.row(242)
async def test_worse_at_once_and_better_the_third_time(duress: Subject) -> None:
    duress.looks(3000)
    assert duress.level == "moderate"
    duress.looks(50, 2)
    assert duress.level == "moderate"
    duress.looks(3000)
    duress.looks(50, 2)
    assert duress.level == "moderate"
    duress.looks(50)
    assert (duress.level, duress.floor()) == ("healthy", 0)
    duress.looks(6000)
    assert duress.level == "severe"


@pytest.mark.row(243)
async def test_only_what_is_worse_is_adopted(duress: Subject) -> None:
    assert duress.adopt("moderate", 800) is True
    assert (duress.level, duress.floor()) == ("moderate", 800)
    assert duress.adopt("mild", 300) is False
    assert duress.floor() == 800
    assert duress.adopt("severe", 10**9) is True
    assert duress.floor() == 5000


async def test_an_adopted_floor_sinks_unless_it_is_told_again(duress: Subject) -> None:
    duress.adopt("moderate", 800)
    duress.clock.now += HALF_LIFE
    assert duress.floor() == 400
    assert duress.adopt("moderate", 800) is True
    assert duress.floor() == 800

    duress.clock.now += 10 * HALF_LIFE
    assert (duress.level, duress.floor()) == ("healthy", 0)
    assert duress.adopt("mild", 100) is True


async def test_an_old_average_slows_nobody(duress: Subject) -> None:
    duress.looks(3000)
    assert duress.floor() == 1250
    duress.clock.now += STATE_STALE
    assert duress.floor() == 0
    duress.record("timer", 10)
    duress.look()
    assert duress.reading().per_type == {"timer": 10}


@pytest.mark.row(244)
async def test_others_are_told_of_changes_and_while_it_lasts(duress: Subject) -> None:
    duress.looks(50, 3)
    assert duress.told == []

    duress.looks(500)
    assert duress.told == [("mild", 500, 250)]
    duress.clock.now += 4.9
    duress.looks(6000)
    assert len(duress.told) == 1
    duress.clock.now += 0.2
    duress.look()
    assert [level for level, _, _ in duress.told] == ["mild", "severe"]
    duress.clock.now += 6
    duress.look()
    assert len(duress.told) == 3

    duress.clock.now += 6
    duress.looks(50, 3)
    assert duress.told[-1][0] == "severe"  # of the first look, which changed nothing yet
    duress.clock.now += 6
    duress.looks(50, 5)
    assert duress.told[-1][0] == "healthy"
    assert len(duress.told) == 5


@pytest.mark.row(245)
async def test_a_reading_changes_nothing(duress: Subject) -> None:
    duress.looks(700)
    duress.adopt("severe", 3000)

    assert duress.reading() == duress.reading()


@pytest.mark.row(246)
async def test_an_engine_looks_every_ten_messages(duress: Subject) -> None:
    event = Event("answer")
    for _ in range(9):
        duress.took([event], 0.5)
    assert (duress.floor(), duress.told) == (0, [])

    duress.took([event], 0.5)
    assert duress.floor() == 250
    assert len(duress.told) == 1


async def test_many_messages_at_once_are_measured_each(duress: Subject) -> None:
    duress.took([Event("answer")] * 100, 0.5)

    assert duress.reading().per_type == {"answer": 5}


async def test_it_can_be_turned_off() -> None:
    duress = Duress(Settings(duress_interval=0))
    duress.took([Event("answer")] * 100, 5000.0)

    assert duress.floor() == 0


SLOW = 0.25
"""Seconds that each message takes the slow engine."""


@pytest.fixture
async def slow(database_url: str) -> AsyncIterator[HotMesh]:
    async def answer(message: StreamData) -> dict[str, Any]:
        return {"y": message.data["x"]}

    async with HotMesh.init(
        "strained",
        connection=database_url,
        workers=[Worker("w", answer, max_concurrency=1)],
        settings={"duress_interval": 2},
    ) as mesh:
        await mesh.deploy(one_worker("strained"))
        await mesh.activate("1")
        yield mesh


@pytest.mark.row(247)
async def test_a_slow_engine_slows_the_others_but_no_caller(
    slow: HotMesh, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dragging(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(SLOW)
        return await commit(*arguments, **options)

    async with HotMesh.init("strained", connection=database_url) as other:
        commit = intercept(database_of(slow), commits.commit, dragging)
        for number in range(3):
            await slow.pubsub("one", {"x": number}, timeout=10)

        await eventually(lambda: is_slowed(other))
        profiles = {
            profile.engine_id: profile for profile in await other.roll_call(5) if "is_scout" in profile
        }
        assert profiles[slow.guid_].duress_level == "mild"
        assert profiles[slow.guid_].duress_per_type["answer"] >= SLOW * 1000
        assert profiles[other.guid_].duress_level == "mild"
        assert profiles[other.guid_].throttle > 0

        # Starts are answered as always, and what follows is done, though later.
        monkeypatch.undo()
        job_id = await other.pub("one", {"x": 5})

        async def ended() -> bool:
            return await other.get_status(job_id) == 0

        await eventually(ended)


def is_slowed(mesh: HotMesh) -> bool:
    return (
        mesh._member.engine is not None
        and mesh._member.engine.pace.delay > 0
        and mesh._member.engine.rate.slowed
    )
