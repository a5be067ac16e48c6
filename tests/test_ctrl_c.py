"""Ctrl-C and a KeyboardInterrupt that users' code raised by itself, with the handlers that a program may have."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hotmesh.interrupts import is_interrupt


def caught(act: Callable[[], Any]) -> KeyboardInterrupt:
    try:
        act()
    except KeyboardInterrupt as error:
        return error
    raise AssertionError("it raises")


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)


def interrupted_in_a_loop() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        pass


def raised() -> None:
    raise KeyboardInterrupt


def raised_again() -> None:
    try:
        raised()
    finally:
        time.sleep(0)


def raised_in_what_is_awaited() -> None:
    async def wait() -> None:
        found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found.set_exception(KeyboardInterrupt())
        await found

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(wait())
    finally:
        loop.close()


def plain(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture(params=["Python's own", "of the program", "partial"])
def handler(request: pytest.FixtureRequest) -> Iterator[None]:
    kinds: dict[str, Any] = {
        "Python's own": signal.default_int_handler,
        "of the program": plain,
        "partial": functools.partial(plain, 1),
    }
    before = signal.signal(signal.SIGINT, kinds[request.param])
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (interrupted, True),
        (interrupted_in_a_loop, True),
        (raised, False),
        (raised_again, False),
        (raised_in_what_is_awaited, False),
    ],
)
def test_ctrl_c_is_told_from_what_users_raise(act: Callable[[], None], expected: bool) -> None:
    assert is_interrupt(caught(act)) is expected


def test_nothing_else_is_an_interrupt() -> None:
    assert not is_interrupt(SystemExit())
