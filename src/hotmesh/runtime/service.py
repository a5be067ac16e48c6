"""What the services of a process share: a flag to wait for, and the loop that outlives lost connections.

A service does one thing in `run_once` (or in a method named for it), which waits by itself until there is something to do.
`forever` calls it again and again until it is cancelled.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from hotmesh.errors import NoConnectionError
from hotmesh.postgres.connect.failures import backoff
from hotmesh.runtime.outage import current


class Flag:
    """An event that can be set again after it was cleared. Setting wakes everybody who waits."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def clear(self) -> None:
        if self._event.is_set():
            self._event = anyio.Event()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until set, at most `timeout` seconds; whether it is set."""
        if timeout is None:
            await self._event.wait()
            return True
        with anyio.move_on_after(timeout):
            await self._event.wait()
        return self._event.is_set()

    async def take(self) -> None:
        """Wait until set, and clear it: what is set from here on is news."""
        await self._event.wait()
        self._event = anyio.Event()


async def forever(
    run_once: Callable[[], Awaitable[object]],
    logger: logging.Logger,
    *,
    lost: str | None,
    failed: str,
    longest_pause: float,
    on_failures: Callable[[int], None] | None = None,
) -> None:
    """Call `run_once` until cancelled; after a failure once more, after a pause that grows up to `longest_pause` seconds.

    `lost`: who has no connection then, as it is told (None: somebody else says so); `failed`: the error to log for
    anything else that went wrong. `on_failures` is told how many calls have failed in a row, 0 once one succeeds.
    """
    failures = 0
    outage = current()
    while True:
        pause = backoff(failures + 1, longest=longest_pause)
        try:
            await run_once()
        except NoConnectionError as error:
            if lost is not None:
                outage.lost(lost, error, pause)
        except Exception as error:
            logger.error(failed, exc_info=error)
        else:
            if failures:
                if lost is not None:
                    outage.back(lost)
                if on_failures is not None:
                    on_failures(0)
            failures = 0
            continue
        failures += 1
        if on_failures is not None:
            on_failures(failures)
        await anyio.sleep(pause)
