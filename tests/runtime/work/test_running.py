"""Running: one piece of work from its slot to its outcome, and what must not start any more, or not go on."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from hotmesh import StreamData
from hotmesh.runtime.pace import Pace
from memory_queue import Workshop, row

pytestmark = pytest.mark.anyio


class Gate:
    """A callback that waits until it is opened; `running` is the most that did at once."""

    def __init__(self) -> None:
        self.open = anyio.Event()
        self.inside = self.running = 0

    async def __call__(self, message: StreamData) -> dict[str, Any]:
        self.inside += 1
        self.running = max(self.running, self.inside)
        await self.open.wait()
        self.inside -= 1
        return {"y": message.data["x"]}


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def test_work_becomes_an_answer_and_its_slot_is_free(gate: Gate) -> None:
    shop = Workshop(gate)
    gate.open.set()
    async with shop.working():
        shop.take(row(1))
        await anyio.wait_all_tasks_blocked()

    assert [(event.status, event.code, event.data) for event in shop.events] == [("success", 200, {"y": 1})]
    assert shop.worker().used == 0


async def test_no_more_callbacks_run_than_there_are_slots(gate: Gate) -> None:
    shop = Workshop(gate, slots=2)
    async with shop.working():
        shop.take(*(row(number) for number in range(5)))
        await anyio.wait_all_tasks_blocked()
        gate.open.set()
        await shop.idle()

    assert (gate.running, len(shop.events)) == (2, 5)


async def test_nothing_runs_when_all_work_is_done(gate: Gate) -> None:
    shop = Workshop(gate, slots=5)
    gate.open.set()
    async with shop.working():
        for number in range(3):
            shop.take(row(number))
            await anyio.wait_all_tasks_blocked()

    assert shop.worker().running == 0


async def test_what_a_callback_raises_is_tried_again_by_its_policy() -> None:
    async def fail(message: StreamData) -> None:
        raise ValueError("no")

    shop = Workshop(fail, retry={"maximum_attempts": 2, "initial_interval": 3, "backoff_coefficient": 1})
    async with shop.working():
        shop.take(row(1), row(2, attempt=1))
        await shop.idle()

    assert shop.queue.postponed == [("1", 3.0, True)]
    assert [(event.status, event.code) for event in shop.events] == [("error", 500)]


async def test_work_whose_reservation_has_lapsed_is_given_back(gate: Gate) -> None:
    shop = Workshop(gate, settings={"lease": 1.0})
    async with shop.working():
        shop.take(row(1), since=time.monotonic() - 2)
        await shop.idle()

    assert (shop.queue.postponed, gate.running, shop.worker().used) == ([("1", 0.0, False)], 0, 0)


async def test_what_comes_while_stopping_is_given_back(gate: Gate) -> None:
    shop = Workshop(gate)
    async with shop.working():
        shop.served.stopping = True
        shop.take(row(1))
        await shop.idle()

    assert (shop.queue.postponed, gate.running) == ([("1", 0.0, False)], 0)


async def test_what_was_reserved_before_a_pause_is_given_back(gate: Gate) -> None:
    shop = Workshop(gate)
    shop.worker().pace = Pace(-1)
    async with shop.working():
        shop.take(row(1))
        await shop.idle()

    assert (shop.queue.postponed, gate.running, shop.worker().used) == ([("1", 0.0, False)], 0, 0)


async def test_what_waits_for_a_callback_to_be_over_can_be_given_back(gate: Gate) -> None:
    shop = Workshop(gate, slots=1)
    async with shop.working():
        shop.take(row(1), row(2))
        await anyio.wait_all_tasks_blocked()
        shop.callbacks.give_back_queue(shop.worker())
        await anyio.wait_all_tasks_blocked()

        assert (shop.queue.postponed, shop.worker().used) == ([("2", 0.0, False)], 1)


async def test_work_that_is_answered_already_is_not_done_again(gate: Gate) -> None:
    """Its lease had lapsed before the answer was written, and it was claimed once more."""
    shop = Workshop(gate)
    shop.leases.hold(row(1), time.monotonic())
    shop.leases.finish(row(1))
    async with shop.working():
        shop.take(row(1))
        await shop.idle()

    assert (gate.running, shop.worker().used, shop.queue.postponed) == (0, 0, [])


async def test_work_that_was_delivered_too_often_is_buried(gate: Gate) -> None:
    shop = Workshop(gate, settings={"poison_threshold": 5})
    gate.open.set()
    async with shop.working():
        shop.take(row(1, delivery=6), row(2, delivery=5))
        await shop.idle()

    assert (shop.queue.buried, len(shop.events), shop.worker().used) == (["1"], 1, 0)


async def test_a_callback_is_cut_off_by_the_timeout_of_its_worker(gate: Gate) -> None:
    shop = Workshop(gate, timeout=0.05)
    async with shop.working():
        shop.take(row(1))
        await anyio.wait_all_tasks_blocked()
        await shop.idle()

    assert [(event.status, event.code) for event in shop.events] == [("error", 504)]


async def test_a_callback_that_runs_longer_than_any_may_leaves_its_work_to_others(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Workshop(gate, settings={"longest_callback": 0.05})
    async with shop.working():
        shop.take(row(1))
        await anyio.wait_all_tasks_blocked()
        await shop.idle()

    assert (shop.events, shop.queue.postponed, shop.worker().used) == ([], [], 0)
    assert [record.__dict__["event"] for record in caplog.records] == ["stream-lease-expired"]


async def test_a_callback_that_is_cut_off_by_stopping_is_for_others_at_once(gate: Gate) -> None:
    shop = Workshop(gate)
    async with shop.working():
        shop.take(row(1))
        await anyio.wait_all_tasks_blocked()
        shop.served.stopping = True
        shop.callbacks.cut_off_all()
        await shop.idle()

    assert (shop.events, shop.queue.postponed) == ([], [("1", 0.0, False)])


async def test_the_topics_of_what_runs_are_known_while_it_does(gate: Gate) -> None:
    shop = Workshop(gate)
    async with shop.working():
        shop.take(row(1))
        await anyio.wait_all_tasks_blocked()
        during = shop.callbacks.topics
        gate.open.set()
        await shop.idle()

    assert (during, shop.callbacks.topics) == (["w"], [])


async def test_an_answer_goes_to_the_stream_where_the_engine_is_slowed_or_elsewhere(gate: Gate) -> None:
    shop = Workshop(gate)
    gate.open.set()
    async with shop.working():
        shop.answers.by_stream = True
        shop.take(row(1))
        await shop.idle()
        shop.answers.by_stream, shop.answers.deliver = False, None
        shop.take(row(2))
        await shop.idle()

    assert shop.events == []
    assert shop.queue.answered == [("1", "success", 200, '{"y":1}'), ("2", "success", 200, '{"y":2}')]
