"""Claiming: as much as there are free slots for, and what becomes of these slots whatever happens to the claim."""

from __future__ import annotations

import anyio
import pytest

from harness import eventually
from hotmesh.errors import ConnectionLostError
from memory_queue import Room, a_worker, row

pytestmark = pytest.mark.anyio


@pytest.fixture
def room() -> Room:
    room = Room(a_worker(2))
    room.queue.rows = [row(1), row(2), row(3)]
    return room


async def test_as_much_is_claimed_as_there_are_free_slots(room: Room) -> None:
    room.worker().used = 1

    assert await room.claims.run_once() == 1
    assert room.claimed == ["job-1"]
    assert room.worker().used == 2


async def test_where_all_slots_found_work_there_may_be_more(room: Room) -> None:
    await room.claims.run_once()

    assert room.worker().backlog


async def test_slots_for_which_there_is_nothing_stay_free_and_nobody_looks_again(room: Room) -> None:
    del room.queue.rows[1:]

    assert await room.claims.run_once() == 1
    assert room.claimed == ["job-1"]
    assert (room.worker().used, room.worker().backlog) == (1, False)
    await room.claims.run_once()
    assert room.queue.asked == ["claim"]


async def test_news_of_work_makes_it_look_again(room: Room) -> None:
    room.worker().backlog = False
    assert await room.claims.run_once() == 0

    room.served.expect(["w"])

    assert await room.claims.run_once() == 2


async def test_nothing_is_claimed_while_many_answers_wait_for_their_commits(room: Room) -> None:
    behind = True
    room.claims.behind = lambda: behind
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(room.claims.run_once)
        await anyio.wait_all_tasks_blocked()
        assert room.queue.asked == []
        behind = False
        await eventually(lambda: room.queue.asked == ["claim"])
        tasks.cancel_scope.cancel()


async def test_a_lost_claim_frees_its_slots_and_is_looked_for(room: Room) -> None:
    room.queue.failing = [ConnectionLostError("gone")]

    with pytest.raises(ConnectionLostError):
        await room.claims.run_once()

    assert room.worker().used == 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(room.lost_reservations.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert [len(asked) for asked in room.queue.given_back] == [1]


async def test_what_cannot_be_decoded_here_is_left_to_others(room: Room) -> None:
    room.queue.rows = [row(1, unreadable="no key"), row(2)]

    assert await room.claims.run_once() == 2
    assert room.claimed == ["job-2"]
    assert room.queue.postponed == [("1", 1.0, False)]
    assert room.worker().used == 1


async def test_a_worker_without_a_name_takes_what_no_other_is_named_for() -> None:
    room = Room(a_worker(2), a_worker(2, workflow_name="late"))
    room.queue.rows = [row(1, name="other"), row(2, name="late"), row(3, name="more")]

    await room.claims.run_once()

    assert room.claimed == ["job-1", "job-3", "job-2"]
    assert (room.worker("w").used, room.worker("w", "late").used) == (2, 1)


async def test_hidden_work_is_claimed_when_it_becomes_visible() -> None:
    room = Room(a_worker(1))
    room.queue.due = 0.05
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(room.claims.run)
        await eventually(lambda: room.queue.asked.count("claim") == 2)
        tasks.cancel_scope.cancel()
    assert room.queue.asked[:3] == ["claim", "next", "claim"]


@pytest.mark.parametrize("error", [ConnectionLostError("gone"), ValueError("odd")], ids=["lost", "odd"])
async def test_failed_claims_are_counted_until_one_succeeds(error: Exception) -> None:
    room = Room(a_worker(1))
    room.queue.failing = [error]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(room.claims.run)
        counts = [room.claims.failures]
        with anyio.fail_after(5):
            while counts[-1] or len(counts) == 1:
                if room.claims.failures != counts[-1]:
                    counts.append(room.claims.failures)
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert counts == [0, 1, 0]


async def test_claiming_ends_with_stopping(room: Room) -> None:
    room.served.stopping = True

    await room.claims.run()

    assert room.queue.asked == []


async def test_what_is_still_held_at_the_end_is_given_back(room: Room) -> None:
    await room.claims.give_back_held()

    assert room.queue.given_back == [None]


async def test_that_it_cannot_be_given_back_is_no_failure_of_stopping(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.queue.failing = [ConnectionLostError("gone")]

    await room.claims.give_back_held()

    assert [record.event for record in caplog.records] == ["work could not be given back"]  # type: ignore[attr-defined]
