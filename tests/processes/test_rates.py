"""Rates and pauses that one process sets and others obey, by what their workers have noted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from troupe import Remote, Troupe, graph

from harness import connected, eventually, settled

pytestmark = pytest.mark.anyio

APP = "troupe"

OBEYED = 1.5
"""Seconds within which a rate holds everywhere: one, and half of one for a busy machine."""


@pytest.fixture
async def three(troupe: Troupe) -> list[Remote]:
    """`a` has an engine alone, `b` and `c` have workers, too."""
    three = [
        await troupe.enter("a", topics=(), guid="A"),
        *await asyncio.gather(*(troupe.enter(name, topics="wv", guid=name.upper()) for name in "bc")),
    ]
    await three[0].call("deploy", graph("1"))
    await three[0].call("activate", "1")
    return three


def runs(troupe: Troupe, since: float = 0.0, **facts: str) -> Counter[str]:
    """How often each process has started work since a moment."""
    return Counter(note["name"] for note in troupe.notes("run", **facts) if note["at"] > since)


async def check(troupe: Troupe, started: int) -> None:
    """So many jobs have ended, and no work was done twice."""
    async with connected(troupe.url) as connection:
        await settled(connection, APP, within=15)
        assert await connection.fetchval("select count(*) from hotmesh.job where status = 0") == started
    seen = Counter((note["job"], note["topic"]) for note in troupe.notes("run"))
    assert set(seen.values()) == {1}


async def test_a_pause_of_all_stops_every_process_within_a_second_and_loses_nothing(
    troupe: Troupe, three: list[Remote]
) -> None:
    a, b, c = three
    await asyncio.gather(b.call("flow", "two"), c.call("flow", "two"))
    await eventually(lambda: len(runs(troupe, topic="v")) == 2, what="work in both")
    await a.call("pause")
    paused = time.time()
    await asyncio.sleep(OBEYED)
    await asyncio.gather(b.call("rest"), c.call("rest"))
    await a.call("start", "two", 10, "late")
    await asyncio.sleep(1)
    assert runs(troupe, paused + OBEYED) == {}

    await b.call("resume")
    resumed = time.time()
    await eventually(lambda: runs(troupe, resumed), within=2 * OBEYED)
    await check(troupe, len(troupe.notes("created")) + 10)


async def test_a_pause_of_a_topic_leaves_other_topics_alone(troupe: Troupe, three: list[Remote]) -> None:
    a, b, c = three
    await b.call("pause", topic="v")
    await asyncio.sleep(OBEYED)
    await a.call("start", "two", 20, "job")
    await eventually(lambda: runs(troupe, topic="w").total() == 20)
    await asyncio.sleep(0.5)
    assert runs(troupe, topic="v") == {}

    await c.call("resume", topic="v")
    await check(troupe, 20)


async def test_paused_engines_take_no_answer_and_no_start_is_refused(
    troupe: Troupe, three: list[Remote]
) -> None:
    a, b, c = three
    await a.call("pause", scope="engines")
    await asyncio.sleep(OBEYED)
    await b.call("start", "two", 20, "job")
    await eventually(lambda: runs(troupe, topic="w").total() == 20)
    await asyncio.sleep(0.5)
    assert runs(troupe, topic="v") == {}

    await c.call("resume", scope="engines")
    await check(troupe, 20)


async def test_a_rate_holds_for_each_process(troupe: Troupe, three: list[Remote]) -> None:
    await three[0].call("throttle", 200, topic="w")
    await asyncio.sleep(OBEYED)
    await three[0].call("start", "one", 12, "job")
    await check(troupe, 12)

    by_process = {name: sorted(note["at"] for note in troupe.notes("run", name=name)) for name in "bc"}
    # Noted by the callback, a moment after its turn.
    assert all(times[-1] - times[0] > 0.2 * (len(times) - 1) - 0.1 for times in by_process.values())
    assert all(len(times) >= 3 for times in by_process.values())


async def test_a_pause_by_guid_is_for_one_process_as_long_as_it_lives(
    troupe: Troupe, three: list[Remote]
) -> None:
    a, b, c = three
    await c.call("pause", guid="B", scope="workers")
    await asyncio.sleep(OBEYED)
    paused = time.time()
    await b.call("start", "one", 20, "job")
    await eventually(lambda: runs(troupe, paused).total() == 20)
    assert runs(troupe, paused) == {"c": 20}
    await check(troupe, 20)

    # Another instance under the same guid knows nothing of it.
    await b.kill()
    await c.kill()
    await troupe.enter("b", topics="wv", guid="B")
    back = time.time()
    await a.call("start", "one", 20, "next")
    await eventually(lambda: runs(troupe, back) == {"b": 20})
    await check(troupe, 40)


@pytest.mark.parametrize("target", [{}, {"topic": "w"}])
async def test_who_starts_later_or_comes_back_from_the_dead_obeys_what_is_stored(
    troupe: Troupe, three: list[Remote], target: dict[str, str]
) -> None:
    a, b, c = three
    await a.call("pause", **target)
    await asyncio.sleep(OBEYED)
    await b.call("start", "one", 10, "job")  # with work that it holds for itself when it is killed
    await b.kill()
    await c.kill()
    await asyncio.gather(troupe.enter("b", topics="wv", guid="B"), troupe.enter("d", topics="wv"))
    await a.call("start", "one", 10, "next")
    await asyncio.sleep(1)
    assert runs(troupe) == {}

    await a.call("resume", **target)
    await check(troupe, 20)


async def test_who_stood_still_meanwhile_obeys_within_a_second(troupe: Troupe, three: list[Remote]) -> None:
    a, _, sleeper = three
    await sleeper.stop()
    await a.call("pause")
    await a.call("start", "one", 10, "job")
    sleeper.go()
    awake = time.time()
    await asyncio.sleep(OBEYED + 0.5)
    assert runs(troupe, awake + OBEYED) == {}

    await sleeper.stop()
    await a.call("resume")
    sleeper.go()
    await check(troupe, 10)


async def test_who_has_no_connection_to_listen_on_obeys_within_a_second_too(
    troupe: Troupe, three: list[Remote]
) -> None:
    a, b, c = three
    await b.kill()
    await c.kill()
    deaf = await troupe.enter("d", topics="wv", direct_connection=False)
    await deaf.call("flow", "one")
    await eventually(lambda: runs(troupe).total() >= 5)
    await a.call("pause")
    paused = time.time()
    await asyncio.sleep(OBEYED + 1)
    # It looks once a second; and the look itself takes a moment.
    assert runs(troupe, paused + OBEYED) == {}
    await deaf.call("rest")

    await a.call("resume")
    await check(troupe, len(troupe.notes("created")))
