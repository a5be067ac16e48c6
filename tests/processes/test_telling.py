"""Results and messages that one process announces and others hear, each once; and what callers who are gone leave behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from troupe import Remote, RemoteError, Troupe, graph

from harness import connected, eventually, settled

pytestmark = pytest.mark.anyio

APP = "troupe"

MANY_TONGUES = "zażółć gęślą jaźń · 漢字かな · العربية · हिन्दी · 🎈👩‍👩‍👧 · \u2028 \\ \" ' \t"


@pytest.fixture
async def three(troupe: Troupe) -> list[Remote]:
    """`a` starts jobs and advances none, `b` and `c` do everything."""
    options: dict[str, Any] = {"settings": {"lease": 1}}
    three = [
        await troupe.enter("a", topics=(), readonly=True, guid="A", **options),
        *await asyncio.gather(*(troupe.enter(name, topics="wv", **options) for name in "bc")),
    ]
    await three[0].call("deploy", graph("1"))
    await three[0].call("activate", "1")
    return three


async def rows(url: str, table: str) -> int:
    async with connected(url) as connection:
        return int(await connection.fetchval(f"select count(*) from hotmesh.{table}"))


async def test_every_process_hears_each_message_once_however_it_subscribed(
    troupe: Troupe, three: list[Remote]
) -> None:
    wanted = ["one.done", "one.done.job-3", "*.done", "*.job-3", "one.*"]
    for member in three:
        for topic in wanted:
            await member.call("listen", "psub" if "*" in topic else "sub", topic)
    await asyncio.gather(*(member.call("start", "one", 5, f"{member.name}s") for member in three))
    await three[1].call("start", "one", 5, "job")
    await three[2].call("start", "two", 5, "other")

    mine = [f"{prefix}-{number}" for prefix in ("as", "bs", "cs", "job") for number in range(5)]
    others = [f"other-{number}" for number in range(5)]
    expected = Counter(
        (name, topic, job)
        for name in "abc"
        for topic, jobs in (
            ("one.done", mine),
            ("one.done.job-3", ["job-3"]),
            ("*.done", mine + others),
            ("*.job-3", ["job-3"]),
            ("one.*", mine),
        )
        for job in jobs
    )

    def heard() -> Counter[tuple[str, str, str]]:
        return Counter((note["name"], note["by"], note["job"]) for note in troupe.notes("heard"))

    await eventually(lambda: heard().total() >= expected.total(), what=lambda: expected - heard())
    async with connected(troupe.url) as connection:
        await settled(connection, APP)
    assert heard() == expected

    for member in three:
        for topic in wanted:
            await member.call("punsub" if "*" in topic else "unsub", topic)
    assert await rows(troupe.url, "subscription") == 0


async def test_who_stands_still_hears_all_when_it_goes_on_and_who_is_killed_disturbs_nobody(
    troupe: Troupe, three: list[Remote]
) -> None:
    a, b, c = three
    for member in three:
        await member.call("listen", "sub", "one.done")
    await a.stop()
    await c.kill()
    await b.call("start", "one", 20, "job")
    await eventually(lambda: len(troupe.notes("heard", name="b")) == 20)

    a.go()
    await eventually(lambda: len(troupe.notes("heard", name="a")) >= 20)
    for name in "ab":
        assert sorted(note["job"] for note in troupe.notes("heard", name=name)) == sorted(
            f"job-{number}" for number in range(20)
        )


@pytest.mark.parametrize(("when", "within"), [("before", 5.0), ("after", 7.5)])
async def test_a_caller_is_answered_though_the_process_that_had_the_job_is_killed(
    troupe: Troupe, three: list[Remote], when: str, within: float
) -> None:
    """Before the commit, another takes the work as soon as its lease lapses. After it, the job is read every five seconds."""
    a, b, c = three
    await c.call("pause", guid=await c.call("guid_of"))
    await b.call("die_at_commit", when)
    begun = time.monotonic()
    asked = a.ask("pubsub", "one", {"x": MANY_TONGUES}, timeout=30)
    await eventually(lambda: troupe.notes("dead"))
    await c.call("resume", guid=await c.call("guid_of"))

    assert (await asked)["data"] == {"y": MANY_TONGUES, "ran": "1"}
    assert time.monotonic() - begun < within
    assert await a.call("callers") == 0
    assert len(troupe.notes("run")) == (2 if when == "before" else 1)


async def test_callers_who_have_gone_leave_nothing_anywhere(troupe: Troupe, three: list[Remote]) -> None:
    a, b, _ = three
    for caller in (a, b):
        cancelled = caller.ask("pubsub", "one", {"x": 1, "nap": 1}, timeout=60)
        late = caller.ask("pubsub", "one", {"x": 1, "nap": 1}, timeout=0.1)
        with pytest.raises(RemoteError, match="JobTimeoutError"):
            await late
        await eventually(lambda: len(troupe.notes("run")) % 2 == 0)
        assert await caller.call("callers") == 1
        await caller.cancel(cancelled)
        with pytest.raises(RemoteError, match="CancelledError"):
            await cancelled
        assert await caller.call("callers") == 0

    async with connected(troupe.url) as connection:
        await settled(connection, APP)
        left = await connection.fetch("select status, data::jsonb ->> 'y' as y from hotmesh.job")
    assert [tuple(row) for row in left] == [(0, "1")] * 4
    for table in ("subscription", "quorum_message", "dead_letter"):
        assert await rows(troupe.url, table) == 0
    assert [await member.call("callers") for member in three] == [0, 0, 0]
    assert troupe.words == ""


async def test_what_is_large_and_in_any_language_arrives_whole(troupe: Troupe, three: list[Remote]) -> None:
    large = MANY_TONGUES * 500
    for member in three:
        await member.call("listen", "sub", "one.done")
        await member.call("listen", "psub", "*.done")
        await member.call("listen_quorum")
    for member in three:
        output = await member.call("pubsub", "one", {"x": large}, timeout=10)
        assert output["data"] == {"y": large, "ran": "1"}
        await member.call(
            "pub_quorum", {"type": "user", "topic": "żółw", "message": {"from": member.name, "x": large}}
        )

    await eventually(lambda: len(troupe.notes("heard")) >= 18 and len(troupe.notes("told")) >= 9)
    heard = troupe.notes("heard")
    assert all(note["data"]["y"] == large for note in heard)
    assert set(Counter((note["name"], note["by"], note["job"]) for note in heard).values()) == {1}
    told = troupe.notes("told")
    assert all(note["message"]["x"] == large for note in told)
    assert Counter((note["name"], note["message"]["from"]) for note in told) == Counter(
        (name, sender) for name in "abc" for sender in "abc"
    )
