"""How an engine passes the work of its own steps to the workers of its process: slots, and work that finds none."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from hotmesh.core.state.job import Event, WorkReceipt
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.pace import Pace
from hotmesh.runtime.work.served import ServedWorker
from hotmesh.runtime.work.slots import OVERFLOW_LIMIT, Slots
from memory_queue import Room, a_worker, row, work

pytestmark = pytest.mark.anyio


class Desk:
    """The engine's side of a room. Nothing runs: `started` is what would."""

    def __init__(self, *workers: Any) -> None:
        self.room = Room(*(workers or (a_worker(2),)))
        self.started: list[str] = []
        self.free = 0
        self.room.served.slot_free = self._slot_free
        self.slots = Slots(
            self.room.served, self._run, self.room.answers, self.room.leases, self.room.lost_reservations
        )

    def _run(self, served: ServedWorker, held: HeldWork, since: float) -> None:
        self.started.append(held.job_id)

    def _slot_free(self) -> None:
        self.free += 1

    @property
    def used(self) -> int:
        return self.room.worker().used

    def overflowed(self, *numbers: int) -> None:
        for number in numbers:
            self.slots.overflow(work(number), None)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_slots_are_held_as_long_as_there_are_any(desk: Desk) -> None:
    assert [desk.slots.hold_slot(work(number)) for number in (1, 2, 3)] == [True, True, False]
    assert desk.used == 2


async def test_no_slot_is_held_for_what_nobody_here_serves(desk: Desk) -> None:
    assert not desk.slots.hold_slot(work(topic="another"))


async def test_a_slot_that_is_freed_can_be_held_again(desk: Desk) -> None:
    desk.slots.hold_slot(work(1))
    desk.slots.hold_slot(work(2))

    desk.slots.free_slot(work(1))

    assert desk.slots.hold_slot(work(3))


async def test_a_slot_is_in_use_from_being_held_on_through_the_start(desk: Desk) -> None:
    desk.slots.hold_slot(work(1))

    desk.slots.start(work(1), None, 0.0)

    assert (desk.started, desk.used) == (["job-1"], 1)


async def test_work_of_a_name_has_a_slot_of_the_worker_of_that_name() -> None:
    desk = Desk(a_worker(1), a_worker(1, workflow_name="late"))

    assert [desk.slots.hold_slot(work(n, name=name)) for n, name in enumerate(["late", "late", "other"])] == [
        True,
        False,
        True,
    ]


async def test_what_comes_after_overflowed_work_gets_no_slot_before_it(desk: Desk) -> None:
    desk.overflowed(1)

    assert not desk.slots.hold_slot(work(2))


async def test_an_engine_hears_of_a_slot_that_is_free_for_what_overflowed(desk: Desk) -> None:
    desk.slots.hold_slot(work(1))
    desk.slots.hold_slot(work(2))
    desk.overflowed(3)
    assert (desk.free, desk.slots.can_take) == (0, False)

    desk.slots.free_slot(work(1))

    assert (desk.free, desk.slots.can_take) == (1, True)


async def test_overflowed_work_is_offered_in_order_as_far_as_there_are_slots(desk: Desk) -> None:
    desk.overflowed(1, 2, 3)

    assert [held.job_id for held in desk.slots.offer_overflow()] == ["job-1", "job-2"]
    assert desk.used == 2


async def test_of_what_was_offered_that_starts_which_nobody_else_has(desk: Desk) -> None:
    desk.overflowed(1, 2)

    desk.slots.overflow_claimed(desk.slots.offer_overflow(), [1], 0.0)

    assert (desk.started, desk.used) == (["job-2"], 1)


async def test_what_was_refused_is_first_in_line_again(desk: Desk) -> None:
    desk.overflowed(1, 2, 3)

    desk.slots.overflow_refused(desk.slots.offer_overflow())

    assert desk.used == 0
    assert [held.job_id for held in desk.room.worker().overflow] == ["job-1", "job-2", "job-3"]


async def test_what_is_beyond_the_limit_of_overflow_is_found_by_claiming(desk: Desk) -> None:
    desk.room.worker().backlog = False

    desk.overflowed(*range(OVERFLOW_LIMIT))
    assert not desk.room.worker().backlog
    desk.overflowed(OVERFLOW_LIMIT)

    assert desk.room.worker().backlog
    assert len(desk.room.worker().overflow) == OVERFLOW_LIMIT


async def test_a_process_that_stops_holds_no_slots(desk: Desk) -> None:
    desk.overflowed(1)
    desk.room.served.stopping = True

    assert not desk.slots.hold_slot(work(2))
    assert (desk.slots.can_take, desk.slots.offer_overflow()) == (False, [])


async def test_a_pause_lets_go_of_no_slot_that_is_held(desk: Desk) -> None:
    desk.slots.hold_slot(work(1))
    served = desk.room.worker()
    served.pace = Pace(-1)
    desk.room.served.open_next(served, served.pace)

    assert not desk.slots.hold_slot(work(2))
    desk.slots.start(work(1), None, 0.0)
    assert (desk.started, desk.used) == (["job-1"], 1)


async def test_work_is_held_until_its_answer_is_committed(desk: Desk) -> None:
    held = row(1)
    desk.room.leases.hold(held, 0.0)
    desk.room.leases.finish(held)

    answer = Event("answer", held.activity_id, held.dimension, receipt=WorkReceipt("call", (0, 0)))
    desk.slots.answers_committed(held.generation, [answer])

    assert not desk.room.leases.is_answered(held)


async def test_others_always_hear_of_topics_that_are_not_served_here(desk: Desk) -> None:
    hints = [desk.slots.wake_text([work(topic="another")]) for _ in range(2)]

    assert hints == ['{"w":["another"]}'] * 2


async def test_others_hear_of_overflow_now_and_then(desk: Desk) -> None:
    assert desk.slots.wake_text([work(1)]) == '{"w":["w"]}'
    assert desk.slots.wake_text([work(2)]) is None
    await anyio.sleep(0.06)
    assert desk.slots.wake_text([work(3)]) == '{"w":["w"]}'


async def test_others_always_hear_of_what_a_paused_worker_leaves_to_them(desk: Desk) -> None:
    desk.room.worker().most = 0

    assert [desk.slots.wake_text([work(n)]) for n in (1, 2)] == ['{"w":["w"]}'] * 2


async def test_nothing_left_is_no_hint(desk: Desk) -> None:
    assert desk.slots.wake_text([]) is None
