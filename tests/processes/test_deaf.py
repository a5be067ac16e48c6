"""Activation among processes that cannot listen, or that have a PgBouncer in between."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pytest
from troupe import Remote, Troupe, graph

from harness import connected, eventually, settled

pytestmark = pytest.mark.anyio

APP = "troupe"

POLL = 1.0
"""Seconds between two looks of who hears nothing."""


@dataclass(frozen=True)
class Way:
    """How the processes reach Postgres: through a pooler or not, and whether some or none of them listen."""

    pooled: bool
    listening: str = ""


WAYS = {
    "nobody listens": Way(pooled=False),
    "one listens": Way(pooled=False, listening="b"),
    "pooler, all listen beside it": Way(pooled=True, listening="abc"),
    "pooler alone": Way(pooled=True),
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
async def three(request: pytest.FixtureRequest, troupe: Troupe) -> list[Remote]:
    """Three processes, on version 1; 2 and 3 are deployed."""
    way: Way = request.param
    url = request.getfixturevalue("pooled_database_url") if way.pooled else troupe.url

    def enter(name: str) -> Any:
        listens = name in way.listening
        # Without a pooler, the only way is the direct one.
        direct = {"direct_connection": troupe.url} if way.pooled else {}
        return troupe.enter(name, url=url, **(direct if listens else {"direct_connection": False}))

    three = list(await asyncio.gather(*map(enter, "abc")))
    for version in ("1", "2", "3"):
        await three[0].call("deploy", graph(version))
    await three[0].call("activate", "1")
    return three


async def test_all_switch_at_once_and_no_job_is_lost(troupe: Troupe, three: list[Remote]) -> None:
    for member in three:
        await member.call("flow")
    switched: dict[str, float] = {}
    for version, activator in (("2", three[0]), ("3", three[1])):
        await activator.call("activate", version)
        switched[version] = time.time()
        assert [await member.runs() for member in three] == [version] * 3
    for member in three:
        await member.call("rest")

    async with connected(troupe.url) as connection:
        await settled(connection, APP)
        rows = await connection.fetch(
            "select job_id, version, status, data::jsonb ->> 'ran' as ran from hotmesh.job"
        )
    found = {row["job_id"]: row for row in rows}
    created = troupe.notes("created")
    assert {note["job"] for note in created} <= found.keys()
    assert len(troupe.notes("run")) == len(rows)
    assert all(row["status"] == 0 and row["ran"] == row["version"] for row in rows)
    late = {found[note["job"]]["version"] for note in created if note["began"] > switched["3"]}
    assert late <= {"3"}


async def test_different_versions_at_once_have_one_outcome(troupe: Troupe, three: list[Remote]) -> None:
    outcomes: list[bool] = await asyncio.gather(
        *(member.call("activate", version) for member, version in zip(three, "231", strict=True))
    )
    assert outcomes == [True] * 3
    assert len({await member.runs() for member in three}) == 1


async def test_an_activation_whose_process_is_killed_stops_no_other(
    request: pytest.FixtureRequest, troupe: Troupe, three: list[Remote]
) -> None:
    way: Way = request.node.callspec.params["three"]
    killed, two, one = three
    if way.listening:
        # It holds the right, and waits for an answer.
        await two.call("hesitate")
        killed.ask("activate", "2", delay=60)
        await eventually(lambda: troupe.notes("asked", version="2", name="b"))
        await two.call("make_up_its_mind")
    else:
        killed.ask("activate", "2")
    await killed.kill()

    begun = time.monotonic()
    await one.call("activate", "3")
    assert time.monotonic() - begun < POLL + 2
    assert [await one.runs(), await two.runs()] == ["3", "3"]


async def test_who_stands_still_meanwhile_finds_the_version_when_it_goes_on(
    troupe: Troupe, three: list[Remote]
) -> None:
    one, sleeper, two = three
    await sleeper.call("freeze_at_commit")
    late = sleeper.ask("pub", "one", {"x": 7}, extended={"id": "late"})
    await eventually(lambda: troupe.notes("frozen") and sleeper.stopped)
    await one.call("activate", "2", delay=0.05)
    assert [await one.runs(), await two.runs()] == ["2", "2"]

    sleeper.go()
    assert await late == "late"
    assert await sleeper.runs() == "2"
    async with connected(troupe.url) as connection:
        await settled(connection, APP)
        assert await connection.fetchval("select version from hotmesh.job where job_id = 'late'") == "2"
