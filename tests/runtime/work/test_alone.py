"""Work that may be the reason why processes die runs with nothing beside it, and nothing else waits for longer than that takes."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from harness import eventually
from hotmesh import StreamData
from hotmesh.core.state.job import Event
from hotmesh.errors import ConnectionLostError
from hotmesh.runtime.work.alone import TrialLimits
from hotmesh.runtime.work.company import Company
from memory_queue import Workshop, row, work

pytestmark = pytest.mark.anyio


class Steps:
    """A callback that notes who runs, and waits until it may end."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.seen: list[set[int]] = []
        self.may_end: set[int] = set()

    async def __call__(self, message: StreamData) -> dict[str, Any]:
        x = message.data["x"]
        self.running.add(x)
        self.seen.append(set(self.running))
        while x not in self.may_end:  # noqa: ASYNC110 - of many, each may end by itself
            await anyio.sleep(0.001)
        self.running.discard(x)
        return {}


@pytest.fixture
def steps() -> Steps:
    return Steps()


def answered(shop: Workshop) -> None:
    """As an engine that commits at once."""

    def deliver(job_id: str, generation: str, event: Event) -> None:
        shop.events.append(event)
        shop.leases.release((generation, event.activity_id, event.dimension))

    shop.answers.deliver = deliver


async def test_the_last_delivery_waits_for_what_runs_and_runs_alone(
    steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Workshop(steps, slots=5, settings={"poison_threshold": 3})
    answered(shop)
    async with shop.working():
        shop.take(row(1), row(2, delivery=2), row(3, delivery=3), row(4, delivery=3))
        await eventually(lambda: shop.served.closed)
        assert steps.running == {1, 2}
        assert not shop.slots.hold_slot(work(5)), "nothing new begins"
        steps.may_end |= {1, 2}
        await eventually(lambda: steps.running == {3})
        assert shop.queue.beside == [("job-3", False)]
        steps.may_end.add(3)
        await eventually(lambda: steps.running == {4})
        steps.may_end.add(4)
        await eventually(lambda: not shop.served.closed)
        assert shop.slots.hold_slot(work(5))

    assert steps.seen[-2:] == [{3}, {4}]
    assert "worker w of job job-3 is tried alone, because its process died or lost it 2 times" in caplog.text
    assert "until 2 callbacks are over" in caplog.text


async def test_what_was_beside_others_when_its_process_died_is_tried_however_often_that_was(
    steps: Steps,
) -> None:
    shop = Workshop(steps, settings={"poison_threshold": 3})
    answered(shop)
    async with shop.working():
        steps.may_end = {1, 2}
        shop.take(row(1, delivery=40, beside=True), row(2, delivery=4, beside=False))
        await shop.idle()

    assert (shop.queue.buried, steps.seen) == (["2"], [{1}])


async def test_work_that_is_lost_while_it_waits_is_left_to_others(steps: Steps) -> None:
    shop = Workshop(steps, settings={"poison_threshold": 2})
    answered(shop)
    async with shop.working():
        shop.queue.lost = {row(1).key}
        shop.take(row(1, delivery=2))
        await eventually(lambda: not shop.trials.busy and not shop.served.closed)

    assert (steps.seen, shop.worker().used, shop.leases.holds(row(1))) == ([], 0, False)


async def test_who_stops_gives_back_what_waits(steps: Steps) -> None:
    shop = Workshop(steps, settings={"poison_threshold": 2})
    async with shop.working():
        shop.take(row(1), row(2, delivery=2))
        await eventually(lambda: shop.served.closed)
        shop.served.stopping = True
        shop.trials.give_back()
        await eventually(lambda: shop.queue.postponed == [("2", 0.0, False)])


async def test_who_stops_while_it_notes_that_work_is_alone_does_not_run_it(
    steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Workshop(steps, settings={"poison_threshold": 2})
    note = shop.queue.set_beside

    async def stop_meanwhile(*arguments: Any) -> bool:
        shop.served.stopping = True
        shop.trials.give_back()
        return await note(*arguments)

    shop.queue.set_beside = stop_meanwhile  # type: ignore[assignment, method-assign]
    async with shop.working():
        shop.take(row(1, delivery=2))
        await eventually(lambda: shop.queue.postponed == [("1", 0.0, False)])
        await eventually(lambda: not shop.served.closed)
    assert (steps.seen, shop.worker().used, caplog.text) == ([], 0, "")


async def test_what_comes_when_the_instance_stops_is_given_back(steps: Steps) -> None:
    shop = Workshop(steps, settings={"poison_threshold": 2})
    async with shop.working():
        shop.served.stopping = True
        shop.take(row(1, delivery=2), row(2, delivery=3, beside=False))
        await eventually(lambda: sorted(shop.queue.postponed) == [("1", 0.0, False), ("2", 0.0, False)])
    assert (steps.seen, shop.queue.buried) == ([], [])


async def test_work_whose_answer_is_on_its_way_is_neither_tried_nor_given_up(steps: Steps) -> None:
    """Its lease had lapsed before that could be written."""
    shop = Workshop(steps, settings={"poison_threshold": 2})
    steps.may_end = {1, 2}
    async with shop.working():
        shop.take(row(1), row(2))
        await shop.idle()
        assert shop.leases.is_answered(row(1))
        shop.take(row(1, delivery=2), row(2, delivery=3, beside=False))
        await shop.idle()
    assert (len(steps.seen), shop.queue.buried, shop.queue.beside) == (2, [], [])


async def test_what_came_through_many_trials_is_alone_until_it_is_over(steps: Steps) -> None:
    limits = TrialLimits(longest_trial=0.1, most_trials=1)
    shop = Workshop(steps, settings={"poison_threshold": 2, "lease": 1.0}, trial_limits=limits)
    answered(shop)
    async with shop.working():
        shop.take(row(1, delivery=4, beside=True))
        await eventually(lambda: steps.running == {1})
        await anyio.sleep(2.5)  # twice the lease, and more
        assert (shop.served.closed, shop.queue.beside) == (True, [("job-1", False)])
        steps.may_end.add(1)
        await shop.idle()


async def test_others_start_again_only_once_it_is_written_down_and_work_to_be_tried_waits_longer(
    steps: Steps,
) -> None:
    shop = Workshop(
        steps, settings={"poison_threshold": 2, "lease": 1.0}, trial_limits=TrialLimits(longest_trial=0.1)
    )
    answered(shop)
    async with shop.working():
        shop.take(row(1, delivery=2))
        await eventually(lambda: steps.running == {1})
        shop.queue.failing = [ConnectionLostError("gone"), ConnectionLostError("gone")]
        await eventually(lambda: not shop.served.closed)
        assert (shop.queue.failing, shop.queue.beside) == ([], [("job-1", False), ("job-1", True)])
        shop.take(row(2, delivery=2))
        for _ in range(10):
            await anyio.sleep(0.02)
            assert (shop.served.closed, steps.running) == (False, {1})
        steps.may_end |= {1, 2}
        await eventually(lambda: steps.seen == [{1}, {2}])


async def test_who_has_ended_is_no_company(steps: Steps) -> None:
    """Whatever it has left behind."""
    company = Company()
    one = Workshop(steps, settings={"poison_threshold": 2}, company=company)
    other = Workshop(steps, settings={"poison_threshold": 2}, company=company)
    answered(other)
    steps.may_end = {1}
    async with one.working():
        pass
    one.worker().used = 1
    async with other.working():
        other.take(row(1, delivery=2))
        await other.idle()
    assert steps.seen == [{1}]


async def test_being_alone_has_an_end(steps: Steps) -> None:
    """A callback may wait for work of its own process."""
    shop = Workshop(
        steps, settings={"poison_threshold": 2, "lease": 1.0}, trial_limits=TrialLimits(longest_trial=0.1)
    )
    answered(shop)
    async with shop.working():
        shop.take(row(1, delivery=2))
        await eventually(lambda: steps.running == {1})
        await eventually(lambda: not shop.served.closed)
        assert shop.queue.beside == [("job-1", False), ("job-1", True)]
        assert steps.running == {1}
        steps.may_end.add(1)
        await shop.idle()


async def test_all_of_a_process_stand_still_and_take_turns(steps: Steps) -> None:
    company = Company()
    others = Steps()
    one = Workshop(steps, settings={"poison_threshold": 2}, company=company)
    other = Workshop(others, settings={"poison_threshold": 2}, company=company)
    answered(one)
    answered(other)
    async with one.working(), other.working():
        other.take(row(1))
        one.take(row(2, delivery=2))
        await eventually(lambda: one.served.closed and other.served.closed)
        other.take(row(3, delivery=2))
        assert steps.running == set()
        others.may_end.add(1)
        await eventually(lambda: steps.running == {2})
        assert others.running == set()
        steps.may_end.add(2)
        await eventually(lambda: others.running == {3})
        others.may_end.add(3)
        await eventually(lambda: not one.served.closed and not other.served.closed)
