"""Activation among real processes, while jobs flow, with members that are killed, stand still, or were away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import asyncpg
import pytest
from troupe import Remote, RemoteError, Troupe, graph

from harness import connected, eventually, settled

pytestmark = pytest.mark.anyio

APP = "troupe"

ROUNDS = 0.25 * (1 + 2 + 4 + 8)
"""Seconds after which a member that is there and does not answer counts as away."""


@pytest.fixture
async def three(troupe: Troupe) -> list[Remote]:
    return await start_three(troupe)


async def start_three(troupe: Troupe, **options: Any) -> list[Remote]:
    """Three processes with engines and workers, on version 1; 2 and 3 are deployed. `options` are those of the last."""
    three = [*await troupe.enter_all("a", "b"), await troupe.enter("c", **options)]
    for version in ("1", "2", "3"):
        await three[0].call("deploy", graph(version))
    await three[0].call("activate", "1")
    return three


async def jobs(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch(
        "select job_id, version, status, data, extract(epoch from created_at)::float8 as created_at "
        "from hotmesh.job where app_id = $1",
        APP,
    )


async def active(connection: asyncpg.Connection) -> str:
    return str(await connection.fetchval("select active_version from hotmesh.app where app_id = $1", APP))


async def flowing(troupe: Troupe, *members: Remote, since: float = 0.0) -> None:
    """Wait until each has created five jobs (after a moment)."""

    def ready() -> bool:
        created = Counter(note["name"] for note in troupe.notes("created") if note["began"] > since)
        return all(created[member.name] >= 5 for member in members)

    await eventually(ready, what="jobs")


async def check_jobs(
    troupe: Troupe, connection: asyncpg.Connection, *, killed: bool = False
) -> dict[str, Any]:
    """Every job that was created has ended with its version's result, and its work was done once; the rows by id.

    `killed`: a member that died may have stored a job that it told nobody of.
    """
    await settled(connection, APP)
    rows = {row["job_id"]: row for row in await jobs(connection)}
    created = {note["job"] for note in troupe.notes("created")}
    assert created - rows.keys() == set()
    if not killed:
        flow = {job_id for job_id in rows if job_id.partition("-")[0] in "abc" and "-" in job_id[:2]}
        assert flow == created
        assert set(Counter(note["job"] for note in troupe.notes("run")).values()) == {1}
    for row in rows.values():
        assert row["status"] == 0
        assert f'"ran":"{row["version"]}"' in row["data"].replace(" ", "")
    return rows


async def test_no_process_runs_a_version_before_all_have_agreed_and_none_an_older_one_afterwards(
    troupe: Troupe, three: list[Remote]
) -> None:
    for member in three:
        await member.call("flow")
    await flowing(troupe, *three)
    for version, activator in (("2", three[0]), ("3", three[1]), ("1", three[2])):
        await activator.call("activate", version)
        await flowing(troupe, *three, since=time.time())
    for member in three:
        await member.call("rest")

    async with connected(troupe.url) as connection:
        rows = await check_jobs(troupe, connection)
    began = {note["job"]: note["began"] for note in troupe.notes("created")}
    for version in ("2", "3"):
        agreed = [
            min(note["at"] for note in troupe.notes("agreed", version=version, name=member.name))
            for member in three
        ]
        first = min(row["created_at"] for row in rows.values() if row["version"] == version)
        assert first > max(agreed)
    in_order = sorted(rows.values(), key=lambda row: began[row["job_id"]])
    versions = [row["version"] for row in in_order]
    # Not one that began after a switch is on the version before it; those that began before may have seen it.
    assert set(versions) == {"1", "2", "3"}
    assert versions[-5:] == ["1"] * 5


async def test_jobs_that_begin_after_activate_has_returned_are_on_its_version(
    troupe: Troupe, three: list[Remote]
) -> None:
    for member in three:
        await member.call("flow")
    await flowing(troupe, *three)
    await three[0].call("activate", "2")
    switched = time.time()
    await flowing(troupe, *three, since=switched)
    for member in three:
        await member.call("rest")

    async with connected(troupe.url) as connection:
        rows = await check_jobs(troupe, connection)
    late = [note["job"] for note in troupe.notes("created") if note["began"] > switched]
    assert {rows[job_id]["version"] for job_id in late} == {"2"}
    assert {row["version"] for row in rows.values()} == {"1", "2"}


async def test_who_is_killed_before_it_is_asked_or_before_it_answers_is_not_waited_for(
    troupe: Troupe, three: list[Remote]
) -> None:
    one, two, three_ = three
    await one.call("flow")
    await two.call("hesitate")
    await three_.kill()
    activation = one.ask("activate", "2", delay=60)
    await eventually(lambda: troupe.notes("asked", version="2", name="b"))
    assert not activation.done()
    assert await one.runs() == "1"

    killed = time.monotonic()
    await two.kill()
    assert await activation is True
    assert time.monotonic() - killed < 10

    assert await one.runs() == "2"
    await one.call("rest")
    async with connected(troupe.url) as connection:
        await check_jobs(troupe, connection)


async def test_who_stands_still_is_away_and_its_stale_commit_is_refused(
    troupe: Troupe, three: list[Remote]
) -> None:
    one, two, sleeper = three
    await sleeper.call("freeze_at_commit")
    late = sleeper.ask("pub", "one", {"x": 7}, extended={"id": "late"})
    await eventually(lambda: troupe.notes("frozen") and sleeper.stopped)
    epoch = troupe.notes("frozen")[0]["epoch"]

    begun = time.monotonic()
    await one.call("activate", "2")
    took = time.monotonic() - begun
    assert ROUNDS <= took < ROUNDS + 8
    assert (await one.runs(), await two.runs()) == ("2", "2")
    assert not late.done()

    sleeper.go()
    assert await late == "late"
    assert troupe.notes("thawed")[0]["epoch"] == epoch + 1
    async with connected(troupe.url) as connection:
        rows = await check_jobs(troupe, connection)
    assert rows["late"]["version"] == "2"
    assert await sleeper.runs() == "2"


async def test_who_was_away_starts_on_the_active_version(troupe: Troupe, three: list[Remote]) -> None:
    one, two, away = three
    await away.kill()
    await one.call("activate", "2")
    back = await troupe.enter("c", guid="back")
    assert await back.runs() == "2"

    await back.kill()
    # A version that it has never seen.
    await two.call("deploy", graph("4"))
    await two.call("activate", "4")
    back = await troupe.enter("c", guid="back")
    assert await back.runs() == await one.runs() == await two.runs() == "4"


async def test_different_versions_at_once_have_one_outcome(troupe: Troupe, three: list[Remote]) -> None:
    for member in three:
        await member.call("flow")
    for _ in range(3):
        outcomes: list[bool] = await asyncio.gather(
            *(member.call("activate", version) for member, version in zip(three, "231", strict=True))
        )
        assert outcomes == [True] * 3
        async with connected(troupe.url) as connection:
            chosen = await active(connection)
        assert [await member.runs() for member in three] == [chosen] * 3
    for member in three:
        await member.call("rest")
    async with connected(troupe.url) as connection:
        await check_jobs(troupe, connection)


async def test_an_activation_whose_process_is_killed_stops_no_other(
    troupe: Troupe, three: list[Remote]
) -> None:
    one, two, killed = three
    await one.call("flow")
    await two.call("hesitate")
    killed.ask("activate", "2", delay=60)
    await eventually(lambda: troupe.notes("asked", version="2", name="b"))
    await killed.kill()
    assert await one.runs() == "1"

    begun = time.monotonic()
    activation = two.ask("activate", "3", delay=60)
    await eventually(lambda: troupe.notes("asked", version="3", name="b"))
    assert not activation.done()
    # Whoever hesitated answers the dead one now; nobody counts that.
    await two.call("make_up_its_mind")
    assert await activation is True
    assert time.monotonic() - begun < 20
    assert (await one.runs(), await two.runs()) == ("3", "3")
    await one.call("rest")
    async with connected(troupe.url) as connection:
        await check_jobs(troupe, connection)


async def test_an_activation_whose_process_stands_still_loses_the_right_and_changes_nothing_later(
    troupe: Troupe,
) -> None:
    one, two, sleeper = await start_three(troupe, activation_limits={"silence_grace": 0.5})
    await two.call("hesitate")
    stalled = sleeper.ask("activate", "2", delay=0.05)
    await eventually(lambda: troupe.notes("asked", version="2", name="b"))
    await sleeper.stop()
    await two.call("make_up_its_mind")

    # Its session is ended by the server after 2 * 0.05 * 15 + 0.5 seconds.
    await one.call("activate", "3", delay=0.05)
    assert await one.runs() == "3"

    sleeper.go()
    with pytest.raises(RemoteError, match="ConnectionLostError"):
        await asyncio.wait_for(stalled, 10)
    assert await one.runs() == await two.runs() == await sleeper.runs() == "3"
    assert await sleeper.call("activate", "2") is True


async def test_waiting_for_answers_and_for_the_right_takes_longer_than_a_connection_may_be_silent(
    troupe: Troupe, three: list[Remote]
) -> None:
    for member in three:
        await member.kill()
    one, two, sleeper = await troupe.enter_all("a", "b", "c", settings={"connect_timeout": 0.5})
    await sleeper.stop()

    outcomes: list[bool] = await asyncio.gather(
        one.call("activate", "2", delay=0.1), two.call("activate", "2", delay=0.1)
    )

    assert outcomes == [True, True]
    assert (await one.runs(), await two.runs()) == ("2", "2")
