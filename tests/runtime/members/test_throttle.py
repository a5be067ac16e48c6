"""Rates and pauses: what is stored, who hears of it, and what every consumer makes of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from harness import connected, eventually, one_worker
from hotmesh import ConfigError, HotMesh, JobTimeoutError, StreamData, Worker
from hotmesh.runtime.pace import Pace, effective

pytestmark = pytest.mark.anyio

APP = "throttled"

CALCULATOR = """
app:
  id: calculator
  version: '1'
  graphs:
    - subscribes: calculate
      activities:
        start: {type: trigger}
        work:
          type: worker
          topic: calculator.do
          input: {maps: {values: '{start.output.data.values}', operation: '{start.output.data.operation}'}}
          job: {maps: {result: '{$self.output.data.result}'}}
      transitions:
        start: [{to: work}]
"""

SLEEPER = """
    - subscribes: nap
      expire: 3600
      activities:
        begin: {type: trigger}
        rest: {type: hook, sleep: 0.1}
        done: {type: hook, job: {maps: {awake: true}}}
      transitions:
        begin: [{to: rest}]
        rest: [{to: done}]
"""


class Starts:
    """A callback that notes when it started."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def __call__(self, message: StreamData) -> dict[str, Any]:
        self.at.append(time.monotonic())
        return {"y": message.data["x"] + 1}

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.at)]


@pytest.fixture
def starts() -> Starts:
    return Starts()


@pytest.fixture
async def mesh(database_url: str, starts: Starts) -> AsyncIterator[HotMesh]:
    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", starts)]) as mesh:
        await mesh.deploy(one_worker(APP, more=SLEEPER))
        await mesh.activate("1")
        yield mesh


@pytest.fixture
async def heard(mesh: HotMesh) -> list[tuple[str, dict[str, Any]]]:
    """The messages about throttles; a busy machine may have something to say about duress, too."""
    found: list[tuple[str, dict[str, Any]]] = []

    def hear(channel: str, message: dict[str, Any]) -> None:
        if message["type"] == "throttle":
            found.append((channel, message))

    await mesh.sub_quorum(hear)
    return found


async def start(mesh: HotMesh, count: int) -> list[str]:
    return list(await asyncio.gather(*(mesh.pub("one", {"x": number}) for number in range(count))))


async def rates(mesh: HotMesh) -> dict[str, int]:
    """The rate of each engine and worker, by stream."""
    return {profile.stream: profile.throttle for profile in await mesh.roll_call()}


@pytest.mark.row(218)
async def test_five_calls_in_parallel(database_url: str) -> None:
    async def calculate(message: StreamData) -> dict[str, Any]:
        values = message.data["values"]
        return {"result": sum(values) if message.data["operation"] == "add" else math.prod(values)}

    async with HotMesh.init(
        "calculator", connection=database_url, workers=[Worker("calculator.do", calculate)]
    ) as mesh:
        await mesh.deploy(CALCULATOR)
        await mesh.activate("1")
        outputs = await asyncio.gather(
            *(
                mesh.pubsub("calculate", {"values": values, "operation": operation}, timeout=10)
                for values, operation in [([5, 5], "add")] * 3 + [([10, 10, 10], "multiply")] * 2
            )
        )

    assert [output.data["result"] for output in outputs] == [10] * 3 + [1000] * 2


@pytest.mark.row(219)
async def test_a_message_to_a_topic_is_for_its_workers_only(
    mesh: HotMesh, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    await mesh.pub_quorum({"type": "throttle", "throttle": 1500, "topic": "w"})

    await eventually(lambda: heard)
    assert heard == [(f"hotmesh:{APP}:q:w", {"type": "throttle", "throttle": 1500, "topic": "w"})]
    await eventually(lambda: is_(mesh, {"w": 1500, "": 0}))
    assert await mesh.get_throttle("w") == 0


async def is_(mesh: HotMesh, expected: dict[str, int]) -> bool:
    return await rates(mesh) == {f"hotmesh:{APP}:x:{topic}": rate for topic, rate in expected.items()}


@pytest.mark.row(220, 221)
async def test_a_rate_of_all_replaces_those_of_topics(mesh: HotMesh) -> None:
    assert await mesh.throttle(2000, topic="w") is True
    assert (await mesh.get_throttle("w"), await mesh.get_throttle()) == (2000, 0)
    assert await is_(mesh, {"w": 2000, "": 0})

    await mesh.throttle(5000)
    assert (await mesh.get_throttle("w"), await mesh.get_throttle()) == (5000, 5000)
    assert await mesh.get_throttle(scope="engines") == 5000
    assert await is_(mesh, {"w": 5000, "": 5000})


@pytest.mark.row(222)
async def test_one_member_or_all(
    mesh: HotMesh, heard: list[tuple[str, dict[str, Any]]], database_url: str
) -> None:
    async with HotMesh.init(APP, connection=database_url) as other:
        await mesh.throttle(7, guid=mesh.guid_)
        await eventually(lambda: heard)
        await mesh.throttle(8)
        await eventually(lambda: len(heard) == 2)
        one, everybody = (message for _, message in heard)
        assert one == {"type": "throttle", "throttle": 7, "guid": mesh.guid_}
        assert "guid" not in everybody
        assert "topic" not in everybody

        await mesh.throttle(9, guid=other.guid_)
        await eventually(lambda: other._member.engine is not None and other._member.engine.pace.rate == 9)
        assert await is_(mesh, {"w": 8, "": 8}) is False
        assert sorted(profile.throttle for profile in await mesh.roll_call()) == [8, 8, 9]
        assert len(heard) == 2


async def test_a_rate_for_nobody_is_spoken_of(
    mesh: HotMesh, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with HotMesh.init(APP, connection=database_url) as other:
        assert await mesh.pause(guid=other.guid_) is True
        assert await mesh.resume(guid=mesh.guid_) is True
        assert await mesh.throttle(5, topic="w") is True
    assert [one.getMessage() for one in caplog.records if "a rate was set" in one.getMessage()] == []

    assert await mesh.pause(guid="nope") is False
    assert await mesh.resume(guid="nope") is False
    assert await mesh.pause(topic="nope") is True
    told = [one.getMessage() for one in caplog.records if "a rate was set" in one.getMessage()]
    assert ["that is not there" in text for text in told] == [True, True, False]
    assert "topic nope" in told[2]


@pytest.mark.row(223, 224)
async def test_a_pause_is_stored_and_told_until_it_is_lifted(
    mesh: HotMesh, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    await mesh.pause()
    assert await mesh.get_throttle() == -1
    await eventually(lambda: heard and heard[-1][1]["throttle"] == -1)
    assert await is_(mesh, {"w": -1, "": -1})

    assert await mesh.resume() is True
    assert await mesh.get_throttle() == 0
    await eventually(lambda: heard[-1][1]["throttle"] == 0)
    assert await is_(mesh, {"w": 0, "": 0})


@pytest.mark.row(225)
async def test_a_pause_of_a_topic(mesh: HotMesh) -> None:
    await mesh.pause(topic="w")

    assert (await mesh.get_throttle("w"), await mesh.get_throttle()) == (-1, 0)


@pytest.mark.row(226)
async def test_engines_have_no_topic(mesh: HotMesh, heard: list[tuple[str, dict[str, Any]]]) -> None:
    await mesh.throttle(3, scope="engines")

    await eventually(lambda: heard)
    assert heard[0][1]["topic"] is None
    assert (await mesh.get_throttle(scope="engines"), await mesh.get_throttle()) == (3, 0)
    assert await is_(mesh, {"w": 0, "": 3})


@pytest.mark.row(227)
async def test_a_pause_is_minus_one() -> None:
    pace = Pace()
    found = []
    for rate in (0, 5000, -1, 0):
        pace.change(rate)
        found.append(pace.paused)

    assert found == [False, False, True, False]


@pytest.mark.row(228)
async def test_what_is_no_rate_is_refused(mesh: HotMesh) -> None:
    words = r"Throttle must be -1 \(pause\) or a non-negative integer \(ms delay\); 0 = resume"
    for rate in (-2, 1.5, "5", True, None, 2_147_483_648):
        with pytest.raises(ConfigError, match=words):
            await mesh.throttle(rate)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=words):
            await mesh.pub_quorum({"type": "throttle", "throttle": rate})

    wrong: list[dict[str, Any]] = [
        {"scope": "nobody"},
        {"topic": "w", "scope": "engines"},
        {"guid": ""},
        {"topic": 7},
    ]
    for target in wrong:
        with pytest.raises(ConfigError):
            await mesh.throttle(5, **target)
    with pytest.raises(ConfigError):
        await mesh.resume("job", topic="w")  # type: ignore[call-overload]
    assert await mesh.get_throttle() == 0


@pytest.mark.row(229)
async def test_paused_engines_take_nothing_until_they_go_on(
    mesh: HotMesh, starts: Starts, database_url: str
) -> None:
    await mesh.pause(scope="engines")

    with pytest.raises(JobTimeoutError) as caught:
        await mesh.pubsub("one", {"x": 1}, timeout=0.4)
    job_id = str(caught.value.job_id)
    # The work was done, and its answer waits where every engine could take it.
    await eventually(lambda: len(starts.at) == 1)
    async with connected(database_url) as connection:

        async def waiting() -> bool:
            return bool(await connection.fetchval("select kind = 'answer' from hotmesh.engine_stream"))

        await eventually(waiting)
    assert await mesh.get_status(job_id) == 1

    await mesh.resume(scope="engines")
    await eventually(lambda: ended(mesh, job_id))
    assert (await mesh.get_state("one", job_id)).data == {"y": 2}


async def ended(mesh: HotMesh, job_id: str) -> bool:
    return await mesh.get_status(job_id) == 0


async def test_timers_wait_for_a_paused_engine(mesh: HotMesh) -> None:
    await mesh.pause(scope="engines")
    job_id = await mesh.pub("nap")
    await asyncio.sleep(0.4)
    assert await mesh.get_status(job_id) > 0

    await mesh.resume()
    await eventually(lambda: ended(mesh, job_id))


async def test_another_engine_goes_on_when_one_is_paused(mesh: HotMesh, database_url: str) -> None:
    async with HotMesh.init(APP, connection=database_url):
        await mesh.pause(guid=mesh.guid_, scope="engines")
        await eventually(lambda: is_paused(mesh))

        output = await mesh.pubsub("one", {"x": 1}, timeout=5)

        assert output.data == {"y": 2}


async def is_paused(mesh: HotMesh) -> bool:
    return mesh._member.engine is not None and mesh._member.engine.pace.paused


async def test_a_slowed_engine_takes_one_job_at_a_time(mesh: HotMesh) -> None:
    await mesh.throttle(150, scope="engines")
    begun = time.monotonic()
    jobs = await start(mesh, 4)
    assert len(jobs) == 4  # what callers start is not slowed

    for job_id in jobs:
        await eventually(lambda job_id=job_id: ended(mesh, job_id))  # type: ignore[misc]
    assert time.monotonic() - begun >= 4 * 0.15


@pytest.mark.row(230)
@pytest.mark.parametrize("places", [1, 10])
async def test_a_worker_starts_one_message_per_interval(
    database_url: str, starts: Starts, places: int
) -> None:
    worker = Worker("w", starts, max_concurrency=places)
    async with HotMesh.init(APP, connection=database_url, workers=[worker]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        await mesh.throttle(200, topic="w")
        await start(mesh, 4)

        await eventually(lambda: len(starts.at) == 4)

    assert min(starts.gaps) >= 0.2


async def test_a_burst_in_memory_is_slowed_like_any_other(mesh: HotMesh, starts: Starts) -> None:
    """Work that was reserved before the rate was set goes back to the stream."""
    rated = asyncio.create_task(mesh.throttle(100, topic="w"))
    await start(mesh, 5)
    await rated
    slowed_at = time.monotonic()

    await eventually(lambda: len(starts.at) == 5)
    later = [at for at in starts.at if at > slowed_at]
    assert all(b - a >= 0.1 for a, b in pairwise(later))


@pytest.mark.row(231)
async def test_a_paused_worker_starts_nothing(mesh: HotMesh, starts: Starts) -> None:
    await mesh.pause(topic="w")
    await start(mesh, 3)
    await asyncio.sleep(0.5)
    assert starts.at == []

    await mesh.resume(topic="w")
    await eventually(lambda: len(starts.at) == 3)


async def test_a_job_that_does_not_move_says_that_it_is_because_of_a_pause(mesh: HotMesh) -> None:
    await mesh.pause(topic="w")
    await mesh.throttle(70, topic="of others")
    await mesh.throttle(80, scope="engines")
    [job_id] = await start(mesh, 1)

    notes = (await mesh.explain(job_id)).notes

    assert notes == (
        "all engines are throttled: one message per 80 ms",
        "workers of topic w are paused: resume them",
    )


async def test_others_take_what_a_paused_worker_leaves(
    mesh: HotMesh, starts: Starts, database_url: str
) -> None:
    elsewhere = Starts()
    async with HotMesh.init(APP, connection=database_url, engine=False, workers=[Worker("w", elsewhere)]):
        await mesh.pause(guid=mesh.guid_, scope="workers")
        await eventually(lambda: -1 in [f.rate for f in mesh._member.workers.figures()])

        outputs = await asyncio.gather(*(mesh.pubsub("one", {"x": number}, timeout=5) for number in range(5)))

    assert [output.data["y"] for output in outputs] == [1, 2, 3, 4, 5]
    assert (len(starts.at), len(elsewhere.at)) == (0, 5)


async def test_a_rate_outlives_the_processes(database_url: str, starts: Starts) -> None:
    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", starts)]) as mesh:
        await mesh.deploy(one_worker(APP))
        await mesh.activate("1")
        await mesh.pause(scope="workers")
        job_id = await mesh.pub("one", {"x": 1})

    async with HotMesh.init(APP, connection=database_url, workers=[Worker("w", starts)]) as mesh:
        await asyncio.sleep(0.3)
        assert starts.at == []
        await mesh.resume()
        await eventually(lambda: ended(mesh, job_id))


async def test_a_rate_that_was_set_while_a_member_was_away_is_found(mesh: HotMesh, database_url: str) -> None:
    async with connected(database_url) as connection:
        # Written without a notification, as one that was lost.
        await connection.execute(
            "insert into hotmesh.throttle (app_id, scope, rate, set_at) values ($1, 'engines', 11, now())",
            APP,
        )
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )

    await eventually(lambda: mesh._member.engine is not None and mesh._member.engine.pace.rate == 11)


async def test_who_hears_nothing_looks_for_rates(database_url: str) -> None:
    async with (
        HotMesh.init(APP, connection=database_url, direct_connection=False) as deaf,
        HotMesh.init(APP, connection=database_url) as mesh,
    ):
        await mesh.throttle(12, scope="engines")
        await eventually(
            lambda: deaf._member.engine is not None and deaf._member.engine.pace.rate == 12, within=5
        )
        await deaf.throttle(13, scope="engines")
        await eventually(lambda: mesh._member.engine is not None and mesh._member.engine.pace.rate == 13)


async def test_a_lower_rate_wakes_a_sleeping_worker(mesh: HotMesh, starts: Starts) -> None:
    await mesh.throttle(60_000, topic="w")
    await start(mesh, 2)
    await asyncio.sleep(0.1)
    assert starts.at == []

    await mesh.throttle(50, topic="w")

    await eventually(lambda: len(starts.at) == 2)


@pytest.mark.row(237)
@pytest.mark.parametrize(
    ("rate", "floor", "expected"),
    [(0, 0, 0), (50, 20, 50), (50, 80, 80), (-1, 80, -1), (50, 0, 50), (0, -5, 0)],
)
async def test_the_effective_rate(rate: int, floor: float, expected: float) -> None:
    assert effective(rate, floor) == expected


async def turn_after(rate: int, floor: Callable[[], float]) -> float:
    pace = Pace(rate, floor)
    pace.started()
    begun = time.monotonic()
    await pace.turn()
    return time.monotonic() - begun


@pytest.mark.row(238)
async def test_a_floor_delays_the_next_message() -> None:
    assert 0.08 <= await turn_after(0, lambda: 100.0) < 1
    assert await turn_after(0, lambda: 0.0) < 0.05
