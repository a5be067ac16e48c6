"""The worker stream as consumers see it: reserve, hold, lose, answer, postpone. The clock is set, nothing sleeps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from harness import connected
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.rows import work_from
from hotmesh.postgres.work import OrdinaryWork, Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hotmesh.postgres.rows import HeldWork

pytestmark = pytest.mark.anyio

APP = "app"

BEGIN = 1_900_000_000
"""When the tests begin, in seconds."""


class Stream:
    """One connection to a database whose clock stands where it is told to."""

    def __init__(self, connection: Any, url: str) -> None:
        self.connection = connection
        self.work = OrdinaryWork(Database(ConnectionSource(url), "hotmesh", APP))
        self.generation = str(uuid4())

    async def at(self, seconds: float) -> None:
        await self.connection.execute(
            "select set_config('hotmesh.now', to_timestamp($1::float8)::text, false)", BEGIN + seconds
        )

    async def put(self, *numbers: int, topic: str = "t", visible_at: float = 0) -> None:
        await self.connection.executemany(
            "insert into hotmesh.worker_stream (app_id, topic, generation, activity_id, dimension, job_id, "
            "workflow_name, visible_at, created_at) "
            "values ($1, $2, $3, 'a', array[0, $4::integer], 'j', 'n', to_timestamp($5::float8), now())",
            [(APP, topic, self.generation, number, BEGIN + visible_at) for number in numbers],
        )

    async def claim(
        self, member: str, limit: int = 10, *, lease: float = 2, topic: str = "t"
    ) -> list[HeldWork]:
        found = await self.work.claim(self.connection, member, [Wanted(topic, limit=limit)], lease, 1)
        return sorted(found, key=lambda work: work.dimension)

    async def extend(self, member: str, number: int, lease: float) -> bool:
        kept = await self.connection.fetchval(
            "select hotmesh.extend_work($1, $2, $3, $4, $5)",
            member, [self.generation], ["a"], [f"{{0,{number}}}"], lease,
        )  # fmt: skip
        return bool(kept[0])

    async def answer(self, member: str, number: int) -> bool:
        held = await self.work.answer(
            self.connection, member, [(self.generation, "a", (0, number), "success", 200, "{}")], "{}"
        )
        return held[0]

    async def depths(self) -> dict[str, int]:
        rows = await self.connection.fetch(
            "select topic, total from hotmesh.open_work where app_id = $1", APP
        )
        return {row["topic"]: row["total"] for row in rows}


@pytest.fixture
async def stream(database_url: str) -> AsyncIterator[Stream]:
    async with connected(database_url) as connection:
        found = Stream(connection, database_url)
        await found.at(0)
        yield found


def numbers(works: list[HeldWork]) -> list[int]:
    return [work.dimension[1] for work in works]


@pytest.mark.row(248)
async def test_the_depths_of_queues(stream: Stream) -> None:
    assert await stream.depths() == {}
    await stream.put(1, 2)
    await stream.put(3, topic="other")
    assert await stream.depths() == {"t": 2, "other": 1}


@pytest.mark.row(250, 251)
async def test_what_is_claimed_and_answered_is_gone(stream: Stream) -> None:
    await stream.put(1, 2)
    assert numbers(await stream.claim("me", 2)) == [1, 2]
    assert [await stream.answer("me", number) for number in (1, 2)] == [True, True]
    assert await stream.depths() == {}


@pytest.mark.row(255, 256, 262, 269)
async def test_a_lapsed_reservation_is_rescued(stream: Stream) -> None:
    await stream.put(1)
    (first,) = await stream.claim("dead")
    assert (first.attempt, first.delivery) == (0, 1)
    await stream.at(1.9)
    assert await stream.claim("other") == []
    await stream.at(2)
    (again,) = await stream.claim("other")
    assert (again.dimension, again.attempt, again.delivery) == (first.dimension, 0, 2)
    assert not await stream.answer("dead", 1)

    postponed = [(stream.generation, "a", (0, 1), 5.0, True, "E: no", None)]
    assert await stream.work.postpone(stream.connection, "other", postponed, None) == 1
    await stream.at(7)
    assert [(work.attempt, work.delivery) for work in await stream.claim("other")] == [(1, 1)]


@pytest.mark.row(258, 265)
async def test_what_is_due_first_comes_first(stream: Stream) -> None:
    for number, due in ((1, 30), (2, 10), (3, 20), (4, -1)):
        await stream.put(number, visible_at=due)
    found = []
    for moment in (0, 9, 10, 25):
        await stream.at(moment)
        found.append(numbers(await stream.claim("me", lease=600)))
    assert found == [[4], [], [2], [3]]
    await stream.put(*range(10, 20), visible_at=1)
    order = []
    await stream.connection.execute(
        "update hotmesh.worker_stream set visible_at = visible_at - (20 - dimension[2]) * interval '1 microsecond' "
        "where dimension[2] >= 10"
    )
    while claimed := await stream.claim("me", 1, lease=600):
        order += numbers(claimed)
    assert order == [*range(10, 20)]


@pytest.mark.row(267, 268)
async def test_only_the_holder_prolongs(stream: Stream) -> None:
    await stream.put(1)
    await stream.claim("me")
    await stream.at(1)
    assert await stream.extend("me", 1, 10)
    await stream.at(9)
    assert await stream.claim("other") == []
    assert not await stream.extend("other", 1, 10)
    assert await stream.answer("me", 1)
    assert not await stream.extend("me", 1, 10)


@pytest.mark.row(273)
async def test_only_what_nobody_holds_is_work_to_do(stream: Stream) -> None:
    await stream.put(1, 2)
    await stream.claim("me", 1, lease=120)
    wanted = [Wanted("t")]
    assert (await stream.work.next_at(stream.connection, wanted)).seconds == 0
    await stream.claim("me", 1, lease=60)
    assert (await stream.work.next_at(stream.connection, wanted)).seconds == 60
    await stream.at(121)
    assert numbers(await stream.claim("other")) == [1, 2]


async def test_what_a_member_holds_is_given_back_and_nothing_else(stream: Stream) -> None:
    await stream.put(1, 2, 3)
    await stream.put(4, topic="u")
    await stream.claim("me", 2, lease=60)
    await stream.claim("other", 1, lease=60)
    await stream.claim("me", 1, lease=60, topic="u")
    assert await stream.work.give_back(stream.connection, "me", ["t"]) == 2
    assert await stream.work.give_back(stream.connection, "me", ["t"]) == 0
    assert [(work.dimension[1], work.delivery) for work in await stream.claim("third")] == [(1, 1), (2, 1)]


async def test_a_row_says_whether_it_was_alone_when_its_process_had_it_last(stream: Stream) -> None:
    """Before the last delivery (the third here) never; then only once it runs, and no more once it is given back."""
    await stream.put(1)

    async def beside(at: float) -> bool | None:
        await stream.at(at)
        (work,) = await stream.work.claim(stream.connection, "me", [Wanted("t")], 2, 1, 3)
        return work.beside

    async def alone(member: str = "me") -> bool:
        work = (await stream.connection.fetch("select * from hotmesh.worker_stream"))[0]
        return await stream.work.set_beside(stream.connection, member, work_from(work), False)

    assert [await beside(at) for at in (0, 2, 4)] == [True, True, True]
    assert await beside(6) is True, "its process died while it waited for its turn"
    assert await alone()
    assert not await alone("other")
    assert await beside(8) is False, "its process died of it"
    await stream.at(10)
    assert not await alone(), "its lease is over"
    assert await beside(10) is False
    given = [(stream.generation, "a", (0, 1), 0.0, False, None, None)]
    assert await stream.work.postpone(stream.connection, "me", given, None) == 1
    assert await beside(10) is True, "it was given back"


async def test_only_what_is_new_is_reserved_by_a_commit(stream: Stream) -> None:
    """Of what others had before, the process that remembers the row does not know what it has gone through."""
    await stream.put(1, 2)
    await stream.connection.execute("update hotmesh.worker_stream set delivery = 1 where dimension[2] = 1")
    held = await stream.connection.fetchval(
        "select hotmesh.reserve_work('me', 1, 30, $1::text::jsonb, hotmesh.clock())",
        json.dumps([[-1, stream.generation, "a", dimension] for dimension in ("{0,1}", "{0,2}")]),
    )
    assert held == [1]
