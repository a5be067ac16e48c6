"""The loop that every service runs in, and the flag it waits for."""

from __future__ import annotations

import logging

import anyio
import pytest

from hotmesh.errors import ConnectionLostError
from hotmesh.runtime.service import Flag, forever

pytestmark = pytest.mark.anyio

logger = logging.getLogger("hotmesh.test")


class Ended(BaseException):
    """Ends a loop that has no end."""


async def run(*outcomes: BaseException | None, failures: list[int] | None = None) -> int:
    """`forever` over calls with these outcomes; how many there were."""
    todo = list(outcomes)
    calls = 0

    async def once() -> None:
        nonlocal calls
        if not todo:
            raise Ended
        calls += 1
        outcome = todo.pop(0)
        if outcome is not None:
            raise outcome

    with pytest.raises(Ended):
        await forever(
            once,
            logger,
            lost="lost",
            failed="failed",
            longest_pause=0.001,
            on_failures=None if failures is None else failures.append,
        )
    return calls


async def test_a_loop_goes_on_after_whatever_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="hotmesh.test")

    assert await run(None, ConnectionLostError("gone"), ValueError("odd"), None) == 4
    assert [(record.levelname, record.message.partition(" (")[0]) for record in caplog.records] == [
        ("WARNING", "no connection to Postgres"),
        ("ERROR", "failed"),
        ("WARNING", "connected to Postgres again after 0.0 s"),
    ]


async def test_failures_in_a_row_are_counted_until_one_succeeds() -> None:
    counts: list[int] = []

    await run(ValueError(), ConnectionLostError("gone"), None, None, ValueError(), failures=counts)

    assert counts == [1, 2, 0, 1]


async def test_a_flag_that_is_taken_can_be_set_again() -> None:
    flag = Flag()
    flag.set()

    await flag.take()

    assert not flag.is_set()
    assert not await flag.wait(0.001)
    flag.set()
    assert await flag.wait(0.001)


async def test_setting_a_flag_wakes_all_who_wait() -> None:
    flag, woken = Flag(), []

    async def wait(number: int) -> None:
        await flag.wait()
        woken.append(number)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, 1)
            tasks.start_soon(wait, 2)
            await anyio.wait_all_tasks_blocked()
            flag.set()

    assert sorted(woken) == [1, 2]
