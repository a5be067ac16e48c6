"""What is in flight: whoever waits for its end waits for all of it."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from hotmesh.runtime.engine.in_flight import InFlight

pytestmark = pytest.mark.anyio


async def test_what_is_in_flight_is_waited_for() -> None:
    in_flight = InFlight()
    await in_flight.none()
    done: list[str] = []

    async def wait() -> None:
        await in_flight.none()
        done.append("waited")

    async with anyio.create_task_group() as tasks:
        in_flight.begin()
        in_flight.begin()
        tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        in_flight.end()
        await anyio.lowlevel.checkpoint()
        assert not done
        # What begins before anybody has looked is waited for, too.
        in_flight.end()
        in_flight.begin()
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        assert not done
        in_flight.end()
    assert done == ["waited"]
